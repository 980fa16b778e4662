"""E24: a server that is slow but alive. Its P99 is ten times what it was, and some calls outlast `timeout_s`."""

import asyncio
import itertools
import random

import pytest

from tests.support import fault_server as http
from tests.support.fault_server import FaultServer
from tests.support.llm_settings import ask, client_for
from workers.errors import NoAnswer, TimedOut
from workers.llm import Client
from workers.records import Reply
from workers.retry_budget import RESERVE, SHARE

pytestmark = pytest.mark.usefixtures("http_client")

USUAL_S, TAIL_S, TIMEOUT_S = 0.02, 1.6, 1.0
SLOTS, COUNT = 16, 300
BREAKER = {"failure_ratio": 0.7, "min_calls": 4 * SLOTS}
"""Calls enough for a verdict about the server: once this process stands still, all slots' calls time out together."""


def slow(share: float, seed: int = 24) -> http.Step:
    """Answer late, a share of the calls so late that nobody waits any more."""
    chance = random.Random(seed)
    return http.later(lambda: TAIL_S if chance.random() < share else USUAL_S, http.answer())


async def ends_of(client: Client, count: int) -> list[Reply | NoAnswer]:
    """Ask so often, `SLOTS` records at a time and a few more; return what came of each."""
    numbers, ends = itertools.count(), list[Reply | NoAnswer]()

    async def records() -> None:
        while next(numbers) < count:
            try:
                ends.append(await ask(client))
            except NoAnswer as error:
                ends.append(error)

    await asyncio.wait_for(asyncio.gather(*(records() for _ in range(2 * SLOTS))), 120)
    return ends


@pytest.mark.fault("E24")
@pytest.mark.parametrize("share", [0.05, 0.3])
async def test_e24_slow_but_alive_loses_nothing_and_brings_no_storm(share: float) -> None:
    """Every record ends; calls stay within 1.1 per record and the reserve, the breaker closed, the slots whole.

    A twentieth of the calls times out: all but a few are answered at the second attempt. Three tenths: a tenth is tried
    again, the others go down the ladder: more attempts would only make the server slower.
    """
    async with FaultServer(default=slow(share)) as server:
        times = {"timeout_s": TIMEOUT_S, "connect_timeout_s": TIMEOUT_S}
        client = client_for(server.url, slots=SLOTS, **times, breaker=BREAKER)
        await client.start()
        ends = await ends_of(client, COUNT)
        endpoint = client._endpoints[0]
        assert endpoint.breaker.closed
        assert endpoint.limit == SLOTS  # nobody refused anything: slots are given back only for 429 and 503
        assert endpoint.in_use == 0
        await client.close()
    failed = [end for end in ends if isinstance(end, NoAnswer)]
    assert len(ends) == COUNT
    assert all(isinstance(end, TimedOut) for end in failed)
    retries = len(server.requests) - COUNT
    print(f"{share:.0%} slow: {retries} retries, {len(failed)} down the ladder of {COUNT}")
    assert 0 < retries <= SHARE * COUNT + RESERVE
    assert len(failed) < SHARE * COUNT if share < SHARE else failed
