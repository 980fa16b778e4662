"""The awaiting part: what may change between the hand-over of a slot and the moment its task runs."""

import asyncio
import math

import pytest

from workers.errors import Busy, Misconfigured
from workers.llm.admission import Admission
from workers.llm.breaker import Breaker
from workers.llm.endpoint import Endpoint
from workers.records import Passage
from workers.settings.servers import Breaker as BreakerSettings


def endpoint_with(slots: int) -> Endpoint:
    """Return an endpoint with a closed breaker."""
    return Endpoint(0, "m", slots, Breaker(BreakerSettings(reset_timeout_s=0.05), lambda *_: None))


async def test_open_means_that_nobody_asks() -> None:
    """A slot that was handed over just before the breaker opened is not used."""
    endpoint = endpoint_with(2)
    admission = Admission([endpoint])
    first, second = admission.take(), admission.take()
    assert first is not None
    assert second is not None
    waiting = asyncio.create_task(admission.wait(Passage(5.0), 0.0))
    await asyncio.sleep(0)
    admission.settle(first, None)  # hands the slot over
    admission.settle(second, Misconfigured("401"))  # opens the breaker before the waiter runs
    with pytest.raises(Misconfigured):
        await waiting
    assert endpoint.in_use == 0
    admission.close()


async def test_the_timer_lets_in_after_a_cool_down_and_after_a_pause() -> None:
    """Nobody need come by: the end of a cool-down, and of a breaker's pause, wakes the line."""
    endpoint = endpoint_with(1)
    admission = Admission([endpoint])
    for error in (Busy("429", 0.05), Misconfigured("401")):
        grant = admission.take()
        assert grant is not None
        admission.settle(grant, error)
        async with asyncio.timeout(10):
            grant = await admission.wait(Passage(5.0), math.inf)
        admission.settle(grant, None)
    admission.close()
