"""One connection: one request, one answer, and again."""

import asyncio
import select
from typing import cast

from workers.llm.lean.answer import Answer, AnswerReader, Broken, BrokeOff


class Lost(Broken):
    """The connection ended before a byte of the answer; `__cause__` is the system's error, if there was one."""


class Connection(asyncio.Protocol):
    """Belongs to one call from `ask` until its owner gives it back; any byte that nobody asked for ends it.

    `pause_writing` has no effect: what the socket does not take of a request waits in the transport. That is one body
    per connection, which the prompt holds in memory anyway.
    """

    __slots__ = ("_arrivals", "_loop", "_reader", "_transport", "_waiter", "ends_at_s", "idle_since_s")

    def __init__(self, body_max_bytes: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = AnswerReader(body_max_bytes)
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[Answer] | None = None
        self._arrivals = select.poll()
        self.ends_at_s = 0.0
        self.idle_since_s = 0.0

    @property
    def is_open(self) -> bool:
        """Whether it may be asked."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def is_quiet(self) -> bool:
        """Whether nothing waits in its socket: an answer too many, or the server's end, that the loop has not seen yet.

        Taken for the answer to the next request, it would be another record's, and only an id would tell.
        """
        return not self._arrivals.poll(0)

    def went_stale(self, lost: Lost) -> bool:
        """Return whether the server ended it as idle, while we asked (E3): it had answered before, and no byte came.

        Not after a reset, which a server that breaks down sends as well: that is a failure, and counted as one.
        """
        reset = isinstance(lost.__cause__, ConnectionResetError)
        return self._reader.answers > 0 and not self._reader.begun and not reset

    def ask(self, request: bytes) -> asyncio.Future[Answer]:
        """Send a request; the future ends in its answer.

        Raises (the future):
            Broken: no answer will come.
            What `fail` was called with.
        """
        if self._waiter is not None:
            raise RuntimeError("one request at a time")
        if self._transport is None or self._transport.is_closing():
            raise Lost
        self._waiter = waiter = self._loop.create_future()
        self._transport.write(request)
        return waiter

    def fail(self, exc: Exception) -> None:
        """End the running call with this, and the connection."""
        waiter = self._waiter
        self.abort()
        if waiter is not None and not waiter.done():
            waiter.set_exception(exc)

    def abort(self) -> None:
        """Close at once."""
        self._waiter = None
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    # -- what the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what writes."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._arrivals.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        """Read on; what comes while nobody asks belongs to nobody."""
        if self._waiter is None:
            self.abort()
            return
        try:
            answer = self._reader.feed(data)
        except Broken as exc:
            self.fail(exc)
            return
        if answer is not None:
            self._end(answer)

    def eof_received(self) -> None:
        """Take the server's end as that of the answer, where nothing else says how long it is."""
        if self._waiter is None:
            self.abort()
            return
        try:
            answer = self._reader.end()
        except BrokeOff as exc:
            self.fail(exc if self._reader.begun else Lost())
        else:
            self._end(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the waiting call. Without an error it was `eof_received` before, or our own doing."""
        lost = Lost()
        lost.__cause__ = exc
        self._transport = None
        self.fail(lost)

    def _end(self, answer: Answer) -> None:
        waiter, self._waiter = self._waiter, None
        # An answer to half a request (413): the other half must not be read as the next one.
        keeps = self._reader.keeps and self._transport is not None and not self._transport.get_write_buffer_size()
        if not keeps:
            self.abort()
        if waiter is not None and not waiter.done():
            waiter.set_result(answer)
