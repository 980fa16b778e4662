"""Any bytes from a model's server: an answer that another reader reads as well, or an end; never the next call's."""

import asyncio
import io
from http.client import HTTPException, HTTPResponse
from typing import cast

from tests.support.scripted_wire import made
from workers.llm.lean.answer import Answer, Broken
from workers.llm.lean.connection import Connection

_LOOP = asyncio.new_event_loop()
_NEXT = b'HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n"next"'
_INTERIM = b"HTTP/1.1 1"
_WITHOUT_BODY = (204, 304)


def one_input(raw: bytes) -> None:
    """Answer with `raw` on a new connection and on one that answered before, whole and cut into pieces."""
    _LOOP.run_until_complete(_every_way(raw))


async def _every_way(raw: bytes) -> None:
    for used in (False, True):
        ends = [await _end(raw, piece_bytes, used=used) for piece_bytes in (max(1, len(raw)), 1, 2, 7)]
        assert all(_alike(ends[0], end) for end in ends), ends
        if isinstance(ends[0], tuple):
            _as_another_reads_it(raw, ends[0])


async def _end(raw: bytes, piece_bytes: int, *, used: bool) -> Answer | Exception:
    """Return what a call ends in, when these bytes and then the end of the connection come."""
    connection, _ = await made()
    if used:
        await _is_asked_again(connection)
    future = connection.ask(b"request")
    for at in range(0, len(raw), piece_bytes):
        connection.data_received(raw[at : at + piece_bytes])
    if not future.done() and connection.is_open:
        connection.eof_received()
    assert future.done(), "hangs"
    if (error := future.exception()) is not None:
        assert isinstance(error, Broken), error
        assert not connection.is_open, "leaks"
        return error
    if connection.is_open:
        await _is_asked_again(connection)
    return future.result()


async def _is_asked_again(connection: Connection) -> None:
    """A connection that stays open gives the next call its own answer."""
    future = connection.ask(b"request")
    connection.data_received(_NEXT)
    assert future.result()[2] == b'"next"', future.result()


def _alike(one: Answer | Exception, other: Answer | Exception) -> bool:
    """However the bytes are cut; but an answer too many, in one piece with ours, makes ours doubtful."""
    if isinstance(one, tuple) and isinstance(other, tuple):
        return (one[0], dict(one[1]), one[2]) == (other[0], dict(other[1]), other[2])
    return type(one) is type(other) or "Surplus" in {type(one).__name__, type(other).__name__}


def _as_another_reads_it(raw: bytes, answer: Answer) -> None:
    """The standard library, which is less strict, finds the same status and body.

    It skips no 1xx but 100, and reads chunks after 304.
    """
    if _INTERIM in raw or answer[0] in _WITHOUT_BODY:
        return
    response = HTTPResponse(cast("object", _Socket(raw.lstrip(b"\r\n"))))  # type: ignore[arg-type]
    try:
        response.begin()
        said = response.status, response.read()
    except (HTTPException, ValueError):
        return
    assert said == (answer[0], answer[2]), (said, answer)


class _Socket:
    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self._raw)
