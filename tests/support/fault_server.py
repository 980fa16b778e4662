"""A model server that misbehaves on purpose: raw asyncio, one scripted answer per request, everything it saw kept.

    async with FaultServer(status(500), answer("hi")) as server:
        ... Client("m", settings(server.url)) ...
        assert len(server.requests) == 2

When the script is used up, `default` answers. Loopback only.
"""

import asyncio
import contextlib
import gzip
import json
import socket
import ssl
import struct
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

Step = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[bool]]
"""Answers one request on its connection; returns whether the connection stays open."""

_REASON = "Scripted"


@dataclass(slots=True)
class Seen:
    """One request as it came in."""

    path: str
    headers: dict[str, str]
    body: bytes
    at_s: float
    connection: int
    method: str = "POST"


def completion(text: str | None = "ok", finish_reason: str = "stop", **choice: object) -> dict[str, object]:
    """Return the body of a chat completion."""
    said = {"role": "assistant", "content": text, **choice}
    return {
        "object": "chat.completion",
        "model": "tiny",
        "choices": [{"index": 0, "message": said, "finish_reason": finish_reason}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 7},
    }


def http(status: int, body: bytes, *headers: str, kind: str = "application/json") -> bytes:
    """Return a whole HTTP answer."""
    lines = [f"HTTP/1.1 {status} {_REASON}", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def raw(sent: bytes, *, stay: bool = False) -> Step:
    """Send these bytes, then close unless `stay`."""

    async def step(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(sent)
        await writer.drain()
        return stay

    return step


def status(code: int, body: object = None, *headers: str) -> Step:
    """Answer with a status and a JSON body."""
    return raw(http(code, json.dumps({} if body is None else body).encode(), *headers), stay=True)


def answer(text: str | None = "ok", finish_reason: str = "stop", **choice: object) -> Step:
    """Answer with a completion."""
    return status(200, completion(text, finish_reason, **choice))


def page(html: bytes = b"<html>please log in</html>") -> Step:
    """Answer 200 with a page, as a proxy's login does."""
    return raw(http(200, html, kind="text/html"), stay=True)


def hang() -> Step:
    """Never answer."""

    async def step(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> bool:
        await reader.read()  # until the client gives up
        return False

    return step


def close() -> Step:
    """Close before the first byte of an answer (FIN)."""
    return raw(b"")


def reset(sent: bytes = b"") -> Step:
    """Send these bytes, then reset the connection (RST)."""

    async def step(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        if sent:
            writer.write(sent)
            await writer.drain()
            await asyncio.sleep(0.02)  # a reset right behind them would throw the bytes away
        sock: socket.socket = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False

    return step


def cut(*, chunked: bool = False, length: bool = True) -> Step:
    """Close in the middle of a body: with Content-Length, with chunks, or with neither (no HTTP client can tell)."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
    if chunked:
        return raw(head + b'Transfer-Encoding: chunked\r\n\r\n5\r\n{"a":\r\n')
    return raw(head + (b"Content-Length: 100\r\n" if length else b"Connection: close\r\n") + b'\r\n{"a":')


def bad_chunk() -> Step:
    """Send a chunk whose size is no number."""
    return raw(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{"a"\r\n')


def drip(pause_s: float = 0.02) -> Step:
    """Send one byte at a time, for ever: each resets a read timeout."""

    async def step(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(pause_s)

    return step


def flood(block_bytes: int = 1 << 16) -> Step:
    """Send a body that never ends, without saying how long it is."""

    async def step(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n")
        while True:
            writer.write(b" " * block_bytes)
            await writer.drain()

    return step


def heavy(size_bytes: int) -> Step:
    """Send a body of this size, and say so."""

    async def step(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {size_bytes}\r\n\r\n"
        writer.write(head.encode())
        for _ in range(size_bytes >> 16):
            writer.write(b" " * (1 << 16))
            await writer.drain()
        return False

    return step


def bomb(size_bytes: int = 20 << 20) -> Step:
    """Send zeros as a thousandth of their size in gzip, though nobody asked for it."""

    async def step(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        packed = gzip.compress(b"0" * size_bytes, 1)
        return await raw(http(200, packed, "Content-Encoding: gzip"), stay=True)(reader, writer)

    return step


def garbage() -> Step:
    """Answer with something that is no HTTP."""
    return raw(b"\x16\x03\x01 hello\r\n\r\n")


def long_header() -> Step:
    """Answer with a header line of 20,000 bytes; clients give up at 8,190."""
    return raw(b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 20_000 + b"\r\n\r\n")


def later(pause_s: Callable[[], float], then: Step) -> Step:
    """Answer after a pause."""

    async def step(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        await asyncio.sleep(pause_s())
        return await then(reader, writer)

    return step


def once(gate: asyncio.Event, then: Step) -> Step:
    """Wait for a gate, then answer."""

    async def step(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        await gate.wait()
        return await then(reader, writer)

    return step


@dataclass
class FaultServer:
    """Serves one step of the script per request, over all connections, in the order of arrival."""

    script: deque[Step]
    default: Step
    requests: list[Seen] = field(default_factory=list)
    running: int = 0
    most_running: int = 0
    url: str = ""

    def __init__(self, *script: Step, default: Step | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.script = deque(script)
        self.tls = tls
        self.default = default or answer()
        self.requests = []
        self.connections = 0
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self.up()
        self.url = f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"
        return self

    async def up(self) -> None:
        """Listen; again at the same port after `down`."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def down(self) -> None:
        """Refuse connections and end those that there are."""
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.down()

    @property
    def bodies(self) -> list[object]:
        """What was asked, decoded."""
        return [json.loads(seen.body) for seen in self.requests]

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._serve(reader, writer, self.connections)
        finally:
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int) -> None:
        stay = True
        while stay:
            self.requests.append(await _read(reader, connection))
            step = self.script.popleft() if self.script else self.default
            self.running += 1
            self.most_running = max(self.most_running, self.running)
            try:
                stay = await step(reader, writer)
            finally:
                self.running -= 1


async def _read(reader: asyncio.StreamReader, connection: int) -> Seen:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, path, _ = head[0].split(" ")
    pairs = (line.split(":", 1) for line in head[1:] if line)
    headers = {name.strip().lower(): value.strip() for name, value in pairs}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Seen(path, headers, body, asyncio.get_running_loop().time(), connection, method)
