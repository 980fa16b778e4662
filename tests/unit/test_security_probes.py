"""The probes' limits hold on the loop that the worker really runs on, and not only on asyncio's own."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from workers import probes

Run = Callable[[Coroutine[Any, Any, None]], None]
LOOPS = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])


class Fine:
    """A health with nothing to complain about."""

    def reasons_not_ready(self) -> list[str]:
        """Return nothing."""
        return []

    def stuck(self) -> str | None:
        """Return nothing."""
        return None


async def _served(silent: int) -> tuple[int, bytes]:
    """Open `silent` connections that say nothing; return how many are left, and a probe's answer."""
    server = probes.Probes("127.0.0.1", 0, Fine())
    await server.start()
    assert server._protocols is not None
    opened = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(silent)]
    asked, asking = await asyncio.open_connection("127.0.0.1", server.port)
    asking.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
    said = await asyncio.wait_for(asked.read(), 30)
    left = len(server._protocols.connections)
    for _, writer in [*opened, (asked, asking)]:
        writer.close()
    await server.close()
    return left, said


@LOOPS
def test_no_more_connections_than_the_limit_stay_open(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silent peers beyond the limit are cut, the oldest first, and a new probe has its answer."""
    monkeypatch.setattr(probes, "MAX_CONNECTIONS", 20)

    async def check() -> None:
        left, said = await _served(60)
        assert said.startswith(b"HTTP/1.1 200"), said
        assert 0 < left <= 20 + 1

    run(check())


@LOOPS
def test_a_connection_ends_after_its_time(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever drips a header for ever is cut."""
    monkeypatch.setattr(probes, "CONNECTION_S", 0.0)
    left: list[int] = []

    async def check() -> None:
        server = probes.Probes("127.0.0.1", 0, Fine())
        await server.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /metrics HTTP/1.1\r\nX: ")
        with contextlib.suppress(ConnectionResetError):
            await asyncio.wait_for(reader.read(), 30)
        assert server._protocols is not None
        left.append(len(server._protocols.connections))
        writer.close()
        await server.close()

    run(check())
    assert left == [0]


@LOOPS
@pytest.mark.parametrize("head", [b"GET /", b"GET / HTTP/1.1\r\nX: ", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n"])
def test_a_request_without_an_end_is_cut_unread(run: Run, head: bytes) -> None:
    """Beyond `REQUEST_BYTES` nothing is parsed, answered or logged: the connection ends."""
    said: list[bytes] = []

    async def check() -> None:
        server = probes.Probes("127.0.0.1", 0, Fine())
        await server.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(head.ljust(probes.REQUEST_BYTES + 1, b"a"))
        with contextlib.suppress(ConnectionResetError):
            said.append(await asyncio.wait_for(reader.read(), 30))
        writer.close()
        await server.close()

    run(check())
    assert said in ([], [b""])


@LOOPS
def test_a_request_with_many_headers_is_answered(run: Run) -> None:
    """What a proxy in front of the port may add stays below `REQUEST_BYTES`."""

    async def check() -> None:
        server = probes.Probes("127.0.0.1", 0, Fine())
        await server.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n" + b"X-Added: %s\r\n" % (b"a" * 1_000) * 15 + b"\r\n")
        assert (await asyncio.wait_for(reader.read(), 30)).startswith(b"HTTP/1.1 200")
        writer.close()
        await server.close()

    run(check())
