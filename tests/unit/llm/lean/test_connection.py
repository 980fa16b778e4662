"""One connection on a scripted wire: who gets an answer, and when the connection ends."""

import asyncio

import pytest

from tests.support.scripted_wire import made
from workers.llm.lean.answer import Answer, BrokeOff, NotHttp, Surplus, TooLarge
from workers.llm.lean.connection import Lost

TWO = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
UNTIL_END = b"HTTP/1.1 200 OK\r\n\r\n{"


async def test_a_request_is_written_at_once_and_its_answer_read_in_pieces() -> None:
    """One write; the connection stays, and is asked again."""
    connection, wire = await made()
    for number in (1, 2):
        future = connection.ask(b"request")
        for at in range(len(TWO)):
            assert not future.done()
            connection.data_received(TWO[at : at + 1])
        status, headers, body = future.result()
        assert (status, headers.get("Content-Length"), body) == (200, "2", b"{}")
        assert wire.written == [b"request"] * number
        assert connection.is_open


@pytest.mark.parametrize("unasked", [b"\r\n", b"H", TWO])
@pytest.mark.parametrize("answered", [False, True])
async def test_i14_bytes_that_nobody_asked_for_end_the_connection(unasked: bytes, *, answered: bool) -> None:
    """They can never be the answer to a later request: nothing can be asked there any more."""
    connection, wire = await made()
    if answered:
        connection.ask(b"request")
        connection.data_received(TWO)
        assert connection.is_open
    connection.data_received(unasked)
    assert (connection.is_open, wire.aborted) == (False, 1)
    with pytest.raises(Lost):
        connection.ask(b"request")


async def test_i14_two_answers_to_one_request() -> None:
    """Of a new connection the first is right; of an older one nobody can tell."""
    connection, _ = await made()
    future = connection.ask(b"request")
    connection.data_received(TWO + TWO)
    assert future.result()[2] == b"{}"
    assert not connection.is_open
    connection, _ = await made()
    connection.ask(b"request")
    connection.data_received(TWO)
    future = connection.ask(b"request")
    connection.data_received(TWO + TWO)
    assert type(future.exception()) is Surplus
    assert not connection.is_open


async def test_an_answer_to_half_a_request_is_read_and_ends_the_connection() -> None:
    """413 comes early: the rest of the body would be read as the next request."""
    connection, wire = await made()
    future = connection.ask(b"request")
    wire.unsent = 100_000
    connection.data_received(b"HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n")
    assert future.result()[0] == 413
    assert not connection.is_open


@pytest.mark.parametrize(
    ("came", "error"),
    [
        (b"", Lost),
        (b"HTTP/1.1 2", BrokeOff),
        (TWO[:-1], BrokeOff),
        (b"junk\r\n\r\n", NotHttp),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + b" " * 1_500, TooLarge),
    ],
)
async def test_an_end_without_an_answer(came: bytes, error: type[Exception]) -> None:
    """The call is told, with the class of what happened, and the connection is gone."""
    connection, wire = await made()
    future = connection.ask(b"request")
    if came:
        connection.data_received(came)
    connection.eof_received()
    assert type(future.exception()) is error
    assert (connection.is_open, wire.aborted) == (False, 1)
    connection.connection_lost(None)


async def test_the_end_completes_an_answer_that_nothing_else_ends() -> None:
    """Half-close: what came is the answer."""
    connection, _ = await made()
    future = connection.ask(b"request")
    connection.data_received(UNTIL_END)
    connection.eof_received()
    assert future.result()[2] == b"{"
    assert not connection.is_open


async def test_a_reset_is_no_end_of_an_answer() -> None:
    """The system's error is kept as the cause."""
    connection, _ = await made()
    future = connection.ask(b"request")
    connection.data_received(UNTIL_END)
    reset = ConnectionResetError(104, "reset")
    connection.connection_lost(reset)
    error = future.exception()
    assert isinstance(error, Lost)
    assert error.__cause__ is reset
    assert not connection.went_stale(error)


async def test_only_a_connection_that_answered_before_goes_stale() -> None:
    """And only before a byte of the next answer, and not by a reset: a server that breaks down sends that, too."""
    fresh, _ = await made()
    future = fresh.ask(b"request")
    fresh.eof_received()
    assert not fresh.went_stale(lost(future))
    for began, error, stale in (
        (b"", BrokenPipeError(), True),
        (b"", None, True),
        (b"", ConnectionResetError(), False),
        (b"H", BrokenPipeError(), False),
    ):
        used, _ = await made()
        used.ask(b"request")
        used.data_received(TWO)
        future = used.ask(b"request")
        if began:
            used.data_received(began)
        used.connection_lost(error)
        assert used.went_stale(lost(future)) is stale


def lost(future: asyncio.Future[Answer]) -> Lost:
    """Return what the call ended in."""
    error = future.exception()
    assert isinstance(error, Lost)
    return error


async def test_an_idle_connection_that_the_server_ends_is_not_asked() -> None:
    """Nobody waits, nobody is told."""
    connection, wire = await made()
    connection.eof_received()
    assert (connection.is_open, wire.aborted) == (False, 1)


async def test_a_cancelled_call_is_not_answered() -> None:
    """What comes for it is dropped, and the connection ended by whoever cancelled."""
    connection, _ = await made()
    future = connection.ask(b"request")
    future.cancel()
    connection.data_received(TWO)
    connection.abort()
    assert not connection.is_open


async def test_a_failed_call_ends_its_connection() -> None:
    """As a timeout does; a late answer finds nobody."""
    connection, wire = await made()
    future = connection.ask(b"request")
    connection.fail(TimeoutError())
    assert isinstance(future.exception(), TimeoutError)
    assert wire.aborted == 1
    connection.data_received(TWO)
    connection.connection_lost(None)


async def test_one_request_at_a_time() -> None:
    """A second one is a mistake of ours, not a pipeline."""
    connection, wire = await made()
    future = connection.ask(b"request")
    with pytest.raises(RuntimeError):
        connection.ask(b"another")
    assert wire.written == [b"request"]
    future.cancel()
