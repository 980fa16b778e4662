"""E26: a proxy gives a request the answer of another one. Its id tells, where the server sends it back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import orjson
import pytest

from tests.support import fault_server as http
from tests.support.fault_server import FaultServer
from tests.support.llm_settings import ASK, ask, client_for, passage, prompt_for
from workers.errors import BreakerOpen, MixedUp
from workers.llm import Client
from workers.llm.request_id import HEADER, RequestIds, is_anothers
from workers.llm.transport import target

pytestmark = pytest.mark.usefixtures("http_client")

COUNT = 40


class MixingServer(FaultServer):
    """Echoes the ticket and the id of a request; `mixes` numbers of requests get those of the one that came before."""

    def __init__(self, *mixes: int) -> None:
        super().__init__(default=self.echo)
        self.mixes = mixes

    async def echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer with what was asked, or with what another asked."""
        number = len(self.requests) - 1
        seen = self.requests[number - 1 if number in self.mixes else number]
        text = orjson.loads(seen.body)["messages"][1]["content"]
        return await http.status(200, http.completion(text), f"{HEADER}: {seen.headers[HEADER.lower()]}")(
            reader, writer
        )


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """Closes what a test opened."""
    async with AsyncExitStack() as stack:
        yield stack


async def started(stack: AsyncExitStack, *urls: str, **changes: object) -> Client:
    """Return a started client."""
    client = client_for(*urls, **changes)
    await client.start()
    stack.push_async_callback(client.close)
    return client


@pytest.mark.fault("E26")
async def test_e26_nobody_gets_the_answer_of_another(stack: AsyncExitStack) -> None:
    """Of the first answers one in five is another's: every record ends with its own."""
    server = await stack.enter_async_context(MixingServer(*range(3, COUNT, 5)))
    client = await started(stack, server.url, max_attempts=9, breaker={"min_calls": 1000})
    frame = client.frame(ASK)
    replies = await asyncio.wait_for(
        asyncio.gather(
            *(client.complete(prompt_for(frame, f'"ticket {n}"'), passage(), wait_s=0.0) for n in range(COUNT))
        ),
        30,
    )
    assert [reply.text for reply in replies] == [f"ticket {n}" for n in range(COUNT)]
    assert len(server.requests) > COUNT
    ids = [seen.headers["x-request-id"] for seen in server.requests]
    assert len(set(ids)) == len(ids)


@pytest.mark.fault("E26")
async def test_e26_a_mix_up_blames_the_endpoint(stack: AsyncExitStack) -> None:
    """It counts for the breaker, and names the endpoint."""
    server = await stack.enter_async_context(MixingServer(*range(1, 100)))
    client = await started(stack, server.url, max_attempts=1, breaker={"min_calls": 2, "reset_timeout_s": 60})
    await ask(client)
    with pytest.raises(MixedUp, match="another request") as raised:
        await ask(client)
    assert (raised.value.reason, raised.value.endpoint) == ("mixed_up", server.url)
    with pytest.raises(BreakerOpen):
        await ask(client)
    assert server.connections == 1


@pytest.mark.fault("E26")
async def test_e26_the_check_can_be_left_out(stack: AsyncExitStack) -> None:
    """For a cache that repeats old headers: then no id is sent either."""
    server = await stack.enter_async_context(FaultServer(default=http.status(200, http.completion(), _old())))
    client = await started(stack, server.url, request_id=False)
    assert (await ask(client)).text == "ok"
    assert HEADER.lower() not in server.requests[0].headers


def _old() -> str:
    return f"{HEADER}: {RequestIds().new()}"


@pytest.mark.parametrize(
    ("said", "mixed"),
    [
        ({}, False),
        ({HEADER: "req_0123456789abcdef0123456789abcdef"}, False),
        ({HEADER: "x" * len(RequestIds().new())}, False),
        ({HEADER: "penstock-short"}, False),
        ({HEADER: RequestIds().new()}, True),
        ({HEADER: RequestIds().new(), "Age": "3"}, False),
    ],
)
def test_only_an_id_of_ours_is_proof(said: dict[str, str], *, mixed: bool) -> None:
    """Servers put ids of their own under the same name; caches repeat old ones, and have an age."""
    ids = RequestIds()
    assert is_anothers(ids.new(), said) is mixed
    mine = ids.new()
    assert not is_anothers(mine, {HEADER: mine})
    assert is_anothers(ids.new(), {HEADER: mine})


async def test_the_second_connection_has_the_same_id_and_all_the_headers(stack: AsyncExitStack) -> None:
    """A retry on a fresh connection is the same request; user and password of the URL still go with it."""
    server = await stack.enter_async_context(FaultServer(http.answer(), http.close()))
    client = await started(stack, server.url.replace("//", "//me:canary@"))
    await ask(client)
    await ask(client)
    first, *again = [seen.headers["x-request-id"] for seen in server.requests]
    assert len(again) == 2
    assert len(set(again)) == 1
    assert first not in again
    assert all(seen.headers["authorization"].startswith("Basic ") for seen in server.requests)
    assert target(server.url, "/").headers is None
