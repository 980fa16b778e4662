"""Attacks a port of 127.0.0.1 that serves probes, until killed: `python -m tests.support.probe_attack PORT`.

1,000 parallel scrapes over and over, headers that drip, peers that never read, requests without an end. The scrapes
come last, or chance says how many of the others get in before them; when they have begun, `READY` is printed.
"""

import asyncio
import contextlib
import resource
import socket
import sys

SCRAPES, SLOW, DEAF, HUGE = 1_000, 150, 150, 30
FIRST_S = 3.0
"""The slow ones alone, before the scrapes: time for 150 connections at the pace of the probes."""
READY = "all at once"
AGAIN_S = 0.2
"""An attacker who is cut comes back after this."""
FILES = 4_096
HEADS = (b"GET /", b"GET / HTTP/1.1\r\nX: ", b"POST /metrics HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n")


def _connected(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    sock.setblocking(False)  # noqa: FBT003 - the socket module's own signature
    with contextlib.suppress(BlockingIOError):
        sock.connect(("127.0.0.1", port))
    return sock


async def _drip(port: int) -> None:
    """Slowloris: a header that never ends."""
    while True:
        sock = _connected(port)
        try:
            await _send(sock, b"GET /metrics HTTP/1.1\r\nX: ")
            while True:
                await asyncio.sleep(0.5)
                await _send(sock, b"x")
        except OSError:
            await asyncio.sleep(AGAIN_S)
        finally:
            sock.close()


async def _ask_and_read_nothing(port: int) -> None:
    while True:
        sock = _connected(port)
        try:
            await _send(sock, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            await asyncio.sleep(3.0)
        except OSError:
            await asyncio.sleep(AGAIN_S)
        finally:
            sock.close()


async def _send_much(port: int, head: bytes) -> None:
    """A request line, header or body without an end."""
    while True:
        sock = _connected(port)
        try:
            await _send(sock, head)
            for _ in range(64):
                await _send(sock, b"a" * 65_536)
        except OSError:
            pass
        finally:
            sock.close()
        await asyncio.sleep(AGAIN_S)


async def _send(sock: socket.socket, raw: bytes) -> None:
    await asyncio.wait_for(asyncio.get_running_loop().sock_sendall(sock, raw), 5)


async def _scrape(port: int) -> None:
    while True:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            with contextlib.closing(writer):
                await asyncio.wait_for(reader.read(), 20)
        await asyncio.sleep(AGAIN_S)


async def attack(port: int) -> None:
    """Do everything at once."""
    async with asyncio.TaskGroup() as attackers:
        for _ in range(SLOW):
            attackers.create_task(_drip(port))
        for _ in range(DEAF):
            attackers.create_task(_ask_and_read_nothing(port))
        for number in range(HUGE):
            attackers.create_task(_send_much(port, HEADS[number % len(HEADS)]))
        await asyncio.sleep(FIRST_S)
        for _ in range(SCRAPES):
            attackers.create_task(_scrape(port))
        print(READY, flush=True)


if __name__ == "__main__":
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, FILES), most))
    asyncio.run(attack(int(sys.argv[1])))
