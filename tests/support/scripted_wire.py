"""A lean connection without a socket: a test feeds it, and sees what it writes."""

import asyncio
import socket

from workers.llm.lean.connection import Connection

_QUIET = socket.socket(type=socket.SOCK_DGRAM)
"""Nothing ever comes here."""


class Wire(asyncio.Transport):
    """What a connection writes to; `unsent` is how much of it the socket has not taken."""

    def __init__(self) -> None:
        super().__init__({"socket": _QUIET})
        self.written: list[bytes] = []
        self.aborted = 0
        self.unsent = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep it."""
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        """Whether it was aborted."""
        return self.aborted > 0

    def abort(self) -> None:
        """Count it."""
        self.aborted += 1

    def get_write_buffer_size(self) -> int:
        """As the test says."""
        return self.unsent


async def made() -> tuple[Connection, Wire]:
    """Return a connection that is made, and its wire."""
    connection, wire = Connection(1_000), Wire()
    connection.connection_made(wire)
    return connection, wire
