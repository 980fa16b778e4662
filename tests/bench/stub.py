"""A cheap OpenAI-compatible endpoint: `python -m tests.bench.stub PORT LATENCY_S [SLOW_S SLOW_SHARE [KIB_S]]`.

One asyncio.Protocol, no HTTP library: it must never be what is measured. `GET /stats` gives its counts as JSON. It
answers every request with the same completion and stops by itself after ten minutes. KIB_S: more latency per KiB of a
request.
"""

import asyncio
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import orjson
import uvloop

LIFETIME_S = 600.0
ANSWER = orjson.dumps({"category": "other", "urgency": "normal", "summary": "benchmark answer"}).decode()
COMPLETION = orjson.dumps(
    {
        "id": "bench",
        "object": "chat.completion",
        "model": "bench-stub",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": ANSWER}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 200, "completion_tokens": 20, "total_tokens": 220},
    }
)


def _response(body: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


COMPLETED = _response(COMPLETION)


class Counts:
    """What the endpoint saw."""

    requests = 0
    connections = 0
    running = 0
    most_running = 0


class Endpoint(asyncio.Protocol):
    """One keep-alive connection."""

    latency_s = 0.0
    slow_s = 0.0
    slow_share = 0.0
    kib_s = 0.0

    def __init__(self) -> None:
        self.buffer = b""
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count it."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        Counts.connections += 1

    def data_received(self, data: bytes) -> None:
        """Answer each whole request."""
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.buffer) < end + 4 + length:
                return
            self.buffer = self.buffer[end + 4 + length :]
            if head.startswith(b"get"):
                self.write(
                    _response(orjson.dumps({name: getattr(Counts, name) for name in vars(Counts) if name[0] != "_"}))
                )
            else:
                self.answer(length)

    def answer(self, length_bytes: int) -> None:
        """Answer now, or when the latency has passed."""
        Counts.requests += 1
        wait_s = self.slow_s if self.slow_share and random.random() < self.slow_share else self.latency_s
        wait_s += self.kib_s * length_bytes / 1024
        if not wait_s:
            self.write(COMPLETED)
            return
        Counts.running += 1
        Counts.most_running = max(Counts.most_running, Counts.running)
        asyncio.get_running_loop().call_later(wait_s, self.late)

    def late(self) -> None:
        """Send an answer whose latency has passed."""
        Counts.running -= 1
        self.write(COMPLETED)

    def write(self, answer: bytes) -> None:
        """Send, unless the client has gone."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(answer)


@contextmanager
def serving(*seconds: float) -> Iterator[int]:
    """Run the stub as a process of its own, with the arguments of `main` behind the port; give its port."""
    command = [sys.executable, "-m", "tests.bench.stub", "0", *map(str, seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait(10)


async def main(port: int, latency_s: float, slow_s: float = 0.0, slow_share: float = 0.0, kib_s: float = 0.0) -> None:
    """Serve until the lifetime ends."""
    Endpoint.kib_s = kib_s
    Endpoint.latency_s, Endpoint.slow_s, Endpoint.slow_share = latency_s, slow_s, slow_share
    server = await asyncio.get_running_loop().create_server(Endpoint, "127.0.0.1", port, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.sleep(LIFETIME_S)


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), *map(float, sys.argv[2:])))
