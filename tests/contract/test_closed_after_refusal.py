"""A server that closes the connection behind a refusal without saying so, as vLLM 0.22 does behind each 400."""

import asyncio

import pytest

from tests.support import fault_server as http
from tests.support.llm_settings import ASK, Serve, Start, ask, passage, prompt_for
from workers.errors import Declined, NoAnswer
from workers.llm import Client

pytestmark = pytest.mark.fault("E3", "E17")

TOLD = http.http(400, b'{"error": {"message": "no"}}')
HEAD, BODY = TOLD[: TOLD.index(b"\r\n\r\n") + 4], TOLD[TOLD.index(b"\r\n\r\n") + 4 :]


def in_two(pause_s: float) -> http.Step:
    """Send head and body one after the other, and close."""

    async def step(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        await http.raw(HEAD)(reader, writer)
        await asyncio.sleep(pause_s)
        return await http.raw(BODY)(reader, writer)

    return step


def at_the_next(sent: bytes) -> http.Step:
    """Answer, and break the connection off when the next request comes: a close that the client could not have seen."""

    async def step(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        await http.raw(sent, stay=True)(reader, writer)
        await reader.read(1)
        return await http.reset()(reader, writer)

    return step


async def refused(client: Client, error: type[NoAnswer]) -> None:
    """Ask once; the server refuses."""
    way = passage()
    with pytest.raises(error):
        await ask(client, way)
    assert way.attempts == 1


@pytest.mark.parametrize(
    "refusal", [http.raw(TOLD), in_two(0.02), at_the_next(TOLD)], ids=["at once", "in two", "late"]
)
async def test_the_next_record_is_answered(serve: Serve, start: Start, refusal: http.Step) -> None:
    """Its request goes to a new connection: one attempt, and nobody is blamed."""
    server = await serve(http.answer(), refusal, http.answer(), refusal)
    client = await start(server.url, breaker={"min_calls": 1})
    for _ in range(2):
        assert (await ask(client)).attempts == 1
        await refused(client, Declined)
    assert (await ask(client)).attempts == 1
    assert client._endpoints[0].breaker.closed
    assert [seen.connection for seen in server.requests] == [1, 1, 2, 2, 3]


async def test_who_waits_for_the_slot_gets_a_new_connection_too(serve: Serve, start: Start) -> None:
    """The waiter is woken by the refusal itself, before anything else of the server could be heard."""
    server = await serve(at_the_next(TOLD), at_the_next(TOLD))
    client = await start(server.url, slots=1, breaker={"min_calls": 1})
    calls = (client.complete(prompt_for(client.frame(ASK)), passage(), wait_s=5) for _ in range(3))
    told = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(one).__name__ for one in told] == ["Declined", "Declined", "Reply"]
    assert client._endpoints[0].breaker.closed


@pytest.mark.parametrize(("status", "connections"), [(200, 1), (302, 1), (400, 2), (404, 2), (429, 2), (500, 2)])
async def test_only_a_refusal_is_the_last(serve: Serve, start: Start, status: int, connections: int) -> None:
    """Behind any other answer, a completion or not, the connection is asked again."""
    server = await serve(http.status(status, {}, "Retry-After: 0"))
    client = await start(server.url, breaker={"min_calls": 100})
    with pytest.raises(NoAnswer):
        await client.probe(ASK)
    await client.probe(ASK)
    assert server.connections == connections
