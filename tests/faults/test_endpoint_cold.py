"""E27: a server that unloaded its model while it was idle: the first call takes longer than any other."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.support import fault_server as http
from tests.support.fault_server import FaultServer
from tests.support.llm_settings import ask, client_for, passage, until
from workers.errors import ConnectFailed, NoAnswer, Stale
from workers.llm import Client
from workers.records import Passage

pytestmark = pytest.mark.usefixtures("http_client")

LOAD_S, TIMEOUT_S, SLOTS = 3.0, 1.5, 24
COLD = {"timeout_s": TIMEOUT_S, "connect_timeout_s": TIMEOUT_S, "breaker": {"min_calls": 20, "reset_timeout_s": 0.2}}


class ColdServer(FaultServer):
    """Loads its model when it is asked, for `load_s`; who asks meanwhile waits with the first."""

    def __init__(self) -> None:
        super().__init__(default=http.later(self.loading_s, http.answer()))
        self.load_s = LOAD_S
        self.loaded_at_s = math.inf

    def loading_s(self) -> float:
        """Return how long a call that comes now has to wait for the model."""
        self.loaded_at_s = min(self.loaded_at_s, time.monotonic() + self.load_s)
        return max(0.0, self.loaded_at_s - time.monotonic())


Cold = Callable[..., Coroutine[Any, Any, tuple[ColdServer, Client]]]


@pytest.fixture
async def cold() -> AsyncIterator[Cold]:
    """Start a client that was idle, before a server that has unloaded its model."""
    async with AsyncExitStack() as stack:

        async def start(**changes: Any) -> tuple[ColdServer, Client]:
            server = await stack.enter_async_context(ColdServer())
            client = client_for(server.url, slots=SLOTS, **{**COLD, **changes})
            await client.start()
            stack.push_async_callback(client.close)
            idle(client)
            return server, client

        yield start


def idle(client: Client) -> None:
    """Let two minutes have passed since the last call."""
    for endpoint in client._endpoints:
        endpoint.last_used_s = time.monotonic() - 120


async def ask_all(client: Client, count: int, wait_s: float = 0.0) -> list[object]:
    """Ask so often at once; return what came of each."""
    return await asyncio.gather(*(ask(client, wait_s=wait_s) for _ in range(count)), return_exceptions=True)


@pytest.mark.fault("E27")
async def test_e27_after_idle_time_one_token_is_asked_for_before_all_others(cold: Cold) -> None:
    """With `warm_up_s`: the records wait, none times out, the breaker stays closed; once, not for every record."""
    server, client = await cold(warm_up_s=20)
    ends = await ask_all(client, 2 * SLOTS)
    assert not [end for end in ends if isinstance(end, BaseException)]
    assert [body["max_tokens"] for body in server.bodies].count(1) == 1  # type: ignore[index]
    assert server.bodies[0]["max_tokens"] == 1  # type: ignore[index]
    assert server.requests[1].at_s - server.requests[0].at_s >= 0.9 * LOAD_S
    assert len(server.requests) == 2 * SLOTS + 1
    assert client._endpoints[0].breaker.epoch == 0


@pytest.mark.fault("E27")
async def test_e27_without_it_a_cold_start_is_an_outage_like_any_other(cold: Cold) -> None:
    """All first calls time out at once and open the breaker: what holds is answered when the model is loaded."""
    server, client = await cold()
    server.load_s = 600.0  # whatever holds up this process, no first call is answered
    ends = await ask_all(client, SLOTS)
    assert all(isinstance(end, NoAnswer) for end in ends)
    assert client._endpoints[0].breaker.epoch > 0
    server.loaded_at_s = time.monotonic() + LOAD_S - TIMEOUT_S
    assert not [end for end in await ask_all(client, SLOTS, math.inf) if isinstance(end, BaseException)]
    assert client._endpoints[0].breaker.closed
    assert min(body["max_tokens"] for body in server.bodies) > 1  # type: ignore[index]


@pytest.mark.fault("E27")
async def test_a_dead_server_is_not_waited_for(cold: Cold) -> None:
    """After idle time as at any other: who is refused learns it at once, whatever `warm_up_s`."""
    server, client = await cold(warm_up_s=100, max_attempts=1)
    await server.down()
    with pytest.raises(ConnectFailed):
        await ask(client)
    assert not client._endpoints[0].waking
    await server.up()


async def test_another_endpoint_answers_meanwhile(cold: Cold) -> None:
    """One that is awake takes the records; a failed call does not wait for the one that wakes."""
    server, _ = await cold()
    async with FaultServer() as awake:
        client = client_for(server.url, awake.url, slots=SLOTS, **COLD, warm_up_s=20)
        await client.start()
        client._endpoints[0].last_used_s = time.monotonic() - 120
        assert not [end for end in await ask_all(client, 20) if isinstance(end, BaseException)]
        await until(lambda: server.requests)
        assert (len(server.requests), len(awake.requests)) == (1, 20)
        assert not client._admission.line.another_works({client._endpoints[1]}, time.monotonic())
        await client.close()


async def test_waiting_for_a_cold_server_ends_with_the_record_and_with_the_client(cold: Cold) -> None:
    """`max_age_s` and cancellation count; the deadline does not run; closing ends the warm-up."""
    server, client = await cold(warm_up_s=60)
    server.default = http.hang()
    way = passage()
    waits = asyncio.create_task(ask(client, way))
    await until(lambda: server.running)
    with pytest.raises(Stale):
        await ask(client, Passage(10.0, stale_at_s=time.monotonic() + 0.1))
    assert way.ends_at_s is None
    waits.cancel()
    await asyncio.gather(waits, return_exceptions=True)
    async with asyncio.timeout(20):
        await client.close()
    await until(lambda: not server.running)
    assert len(server.requests) == 1


async def test_who_is_in_use_or_was_never_used_is_not_woken(cold: Cold) -> None:
    """A minute without a call is idle; a call that takes a minute is not."""
    server, client = await cold(warm_up_s=20)
    endpoint = client._endpoints[0]
    endpoint.last_used_s = math.inf
    assert not endpoint.sleeps(time.monotonic(), 60)
    idle(client)
    assert endpoint.sleeps(time.monotonic(), 60)
    grant = endpoint.enter(time.monotonic() - 100)
    assert not endpoint.sleeps(time.monotonic(), 60)
    endpoint.settle(grant, None, time.monotonic())
    assert not endpoint.sleeps(time.monotonic(), 60)
    assert server.requests == []
