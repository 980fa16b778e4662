"""The probes' limits hold on the loop that the worker really runs on, and not only on asyncio's own."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
import uvloop

from workers import probes

Run = Callable[[Coroutine[Any, Any, None]], None]
PROBE = b"GET /livez HTTP/1.1\r\nHost: x\r\n"
LOOPS = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])


class Fine:
    """A health with nothing to complain about."""

    def reasons_not_ready(self) -> list[str]:
        """Return nothing."""
        return []

    def stuck(self) -> str | None:
        """Return nothing."""
        return None


@contextlib.asynccontextmanager
async def _serving() -> AsyncIterator[probes.Probes]:
    """Run probes on a free port."""
    server = probes.Probes("127.0.0.1", 0, Fine())
    await server.start()
    yield server
    await server.close()


async def _told(server: probes.Probes, raw: bytes) -> bytes:
    """Send something on a connection of its own; return what comes until the server ends it, b"" when it cuts it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(raw)
    said = b""
    with contextlib.suppress(ConnectionResetError):
        said = await asyncio.wait_for(reader.read(), 30)
    writer.close()
    return said


def _open_in(server: probes.Probes) -> int:
    assert server._protocols is not None
    return len(server._protocols.connections)


@LOOPS
def test_no_more_connections_than_the_limit_stay_open(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silent peers beyond the limit are cut, the oldest first, and a new probe has its answer."""
    monkeypatch.setattr(probes, "MAX_CONNECTIONS", 20)

    async def check() -> None:
        async with _serving() as server:
            silent = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(60)]
            assert (await _told(server, PROBE + b"\r\n")).startswith(b"HTTP/1.1 200")
            assert 0 < _open_in(server) <= 20 + 1
            for _, writer in silent:
                writer.close()

    run(check())


@LOOPS
def test_a_connection_ends_after_its_time(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever drips a header for ever is cut."""
    monkeypatch.setattr(probes, "CONNECTION_S", 0.0)

    async def check() -> None:
        async with _serving() as server:
            await _told(server, b"GET /metrics HTTP/1.1\r\nX: ")
            assert _open_in(server) == 0

    run(check())


@LOOPS
@pytest.mark.parametrize("head", [b"GET /", b"GET / HTTP/1.1\r\nX: ", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n"])
def test_a_request_without_an_end_is_cut_unread(run: Run, head: bytes) -> None:
    """Beyond `REQUEST_BYTES` nothing is parsed, answered or logged: the connection ends."""

    async def check() -> None:
        async with _serving() as server:
            assert await _told(server, head.ljust(probes.REQUEST_BYTES + 1, b"a")) == b""

    run(check())


@LOOPS
def test_a_request_with_many_headers_is_answered(run: Run) -> None:
    """What a proxy in front of the port may add stays below `REQUEST_BYTES`."""

    async def check() -> None:
        async with _serving() as server:
            added = b"X-Added: %s\r\n" % (b"a" * 1_000) * 15
            assert (await _told(server, PROBE + added + b"\r\n")).startswith(b"HTTP/1.1 200")

    run(check())
