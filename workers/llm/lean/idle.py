"""Connections to one server between two calls: the freshest is asked next, the others grow old and are closed."""

from collections import deque

from workers.llm.lean.connection import Connection
from workers.llm.transport import KEEP_ALIVE_S


class Idle:
    """In the order in which they became idle, so that the oldest is always at the left."""

    def __init__(self) -> None:
        self._connections: deque[Connection] = deque()

    def __len__(self) -> int:
        return len(self._connections)

    def take(self, now_s: float) -> Connection | None:
        """Return one that is open, quiet and not too old."""
        self.expire(now_s)
        while self._connections:
            connection = self._connections.pop()
            if connection.is_open:
                if connection.is_quiet:
                    return connection
                connection.abort()
        return None

    def give(self, connection: Connection, now_s: float) -> None:
        """Keep one whose answer was read."""
        connection.idle_since_s = now_s
        self._connections.append(connection)

    def expire(self, now_s: float) -> float:
        """Close what is too old; return when the next will be, infinity without any."""
        while self._connections:
            due_s = self._connections[0].idle_since_s + KEEP_ALIVE_S
            if due_s > now_s:
                return due_s
            self._connections.popleft().abort()
        return float("inf")

    def close(self) -> None:
        """Close all."""
        while self._connections:
            self._connections.pop().abort()
