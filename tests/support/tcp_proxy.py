"""A TCP proxy on loopback that makes a link slow, narrow, dead or broken while a test goes on."""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

CHUNK_BYTES = 16_384
QUEUED_CHUNKS = 16
"""Chunks of one connection and direction that are on their way: 256 KiB."""
STEER_S = 10.0

_NO_LINGER = struct.pack("ii", 1, 0)
"""A socket that is closed with this sends RST instead of FIN."""


@dataclass
class _Direction:
    """One direction of the link, shared by all connections."""

    free_at_s: float = 0.0
    passed_bytes: int = 0


class TcpProxy:
    """A link from `port` to `upstream_port`, both on 127.0.0.1. It has a thread and a loop of its own.

    Tests steer it from any thread, and from inside a running loop; what they call has happened when it returns.

    `latency_s` is added to each direction, `bytes_per_s` is what all connections share in each direction (None: no
    limit); both, and `upstream_port`, may be set at any time. An upstream that refuses shows as a reset connection.
    """

    def __init__(self, upstream_port: int = 0, *, latency_s: float = 0.0, bytes_per_s: float | None = None) -> None:
        self.upstream_port = upstream_port
        self.latency_s = latency_s
        self.bytes_per_s = bytes_per_s
        self.accepted = 0
        """Connections so far."""
        self.port = 0
        """Where clients connect; known and held from the constructor on."""
        self._up, self._down = _Direction(), _Direction()
        self._connections: set[asyncio.Task[None]] = set()
        self._listening = socket.socket()
        self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listening.bind(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._healed = asyncio.Event()
        self._healed.set()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"tcp-proxy-{self.port}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._accept, sock=self._listening), self._loop
        ).result(STEER_S)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(STEER_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(STEER_S)
        self._loop.close()

    @property
    def address(self) -> str:
        """host:port of the client's side."""
        return f"127.0.0.1:{self.port}"

    @property
    def open_connections(self) -> int:
        """Connections that neither side has ended, as far as the proxy knows."""
        return len(self._connections)

    @property
    def up_bytes(self) -> int:
        """What was delivered to the upstream so far."""
        return self._up.passed_bytes

    @property
    def down_bytes(self) -> int:
        """What was delivered to clients so far."""
        return self._down.passed_bytes

    def cut(self) -> None:
        """Lose the link: connections stay open, new ones are accepted, and nothing passes in either direction.

        What was sent meanwhile, an end of stream too, arrives after `heal`, as TCP does it.
        """
        self._steer(self._healed.clear)

    def heal(self) -> None:
        """Let everything pass again."""
        self._steer(self._healed.set)

    def reset(self) -> None:
        """Break all connections with RST on both sides; new ones work."""
        self._steer(self._reset)

    def _steer(self, action: Callable[[], None]) -> None:
        """Run in the proxy's loop, and wait until it has run."""
        done = threading.Event()

        def act() -> None:
            action()
            done.set()

        self._loop.call_soon_threadsafe(act)
        assert done.wait(STEER_S), "the proxy's loop does not run"

    def _reset(self) -> None:
        for task in self._connections:
            task.cancel()

    async def _close(self) -> None:
        self._server.close()
        self._reset()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end."""
        self.accepted += 1
        task = asyncio.current_task()
        assert task
        self._connections.add(task)
        ends = [writer]
        end = _abort  # when one side breaks, so does the other
        try:
            await self._healed.wait()
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.upstream_port)
            ends.append(up_writer)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._carry(reader, up_writer, self._up))
                both.create_task(self._carry(up_reader, writer, self._down))
            end = asyncio.StreamWriter.close
        except* OSError:
            pass
        finally:
            self._connections.discard(task)
            for each in ends:
                end(each)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: _Direction) -> None:
        """Carry one direction of one connection to its end of stream, and pass that on as well."""
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(QUEUED_CHUNKS)
        reading = asyncio.ensure_future(self._take(reader, queue, direction))
        try:
            while True:
                due_s, chunk = await queue.get()
                await asyncio.sleep(max(0.0, due_s - self._loop.time()))
                await self._healed.wait()
                if not chunk:
                    break
                writer.write(chunk)
                direction.passed_bytes += len(chunk)
                await writer.drain()
            writer.write_eof()
            await reading
        finally:
            reading.cancel()

    async def _take(
        self, reader: asyncio.StreamReader, queue: "asyncio.Queue[tuple[float, bytes]]", direction: _Direction
    ) -> None:
        """Read, and say of each chunk when it is due on the other side; an empty one is the end, also of a break."""
        chunk = b"-"
        while chunk:
            try:
                chunk = await reader.read(CHUNK_BYTES)
            except OSError:
                chunk = b""
            now_s = self._loop.time()
            if self.bytes_per_s:
                direction.free_at_s = max(now_s, direction.free_at_s) + len(chunk) / self.bytes_per_s
                now_s = direction.free_at_s
            await queue.put((now_s + self.latency_s, chunk))


def _abort(writer: asyncio.StreamWriter) -> None:
    """Close with RST; what was not yet sent is lost."""
    raw = writer.get_extra_info("socket")
    if raw is not None and raw.fileno() >= 0:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    writer.transport.abort()
