"""A crash in the middle: the commit's metadata says what is finished past it, so that hardly a call is paid twice."""

import asyncio

import pytest

from tests.support.deployment import wait_for
from tests.support.stand import TASK, Simulate, Stand, tickets
from tests.support.topics import committed

IN_FLIGHT = 64
SLOTS = 32
COMMIT_INTERVAL_S = 0.2
SLOW_TAIL = "heavy:0.02:3:0.05"
MAX_RATE_PER_S = SLOTS / 0.02
"""While no slot is taken by a slow call."""
LONG_S = 150.0


async def committed_past(stand: Stand, topic: str) -> bool:
    """Return whether commits say of every partition that something past them is finished."""
    found = await committed(stand.servers, stand.group, [topic])
    return [offset for offset, metadata in found.values() if metadata] == [0] * 4


@pytest.mark.fault("P2", "O9")
async def test_after_kill_9_finished_records_are_not_done_again(real: Stand, simulate: Simulate) -> None:
    """What was finished past the commit point is skipped; repeated is at most what was in flight or not committed."""
    topic, model = await real.create(), simulate(latency=SLOW_TAIL)
    model.fail("hang")
    await real.put(topic, [one for number in range(4) for one in tickets(1, start=number, partition=number)])
    tasks = {TASK: {"input": topic, "max_in_flight": IN_FLIGHT, "deadline_s": LONG_S}}
    more = {
        "model": {"max_in_flight": SLOTS, "timeout_s": LONG_S},
        "kafka": {"group_instance_id": "only", "commit_interval_s": COMMIT_INTERVAL_S},
    }
    with real.worker(tasks, model.url, **more) as worker:
        wait_for(lambda: model.counts()["in_flight"] == 4, 60, worker.tail)
        model.ok()  # and the first record of each partition is never answered: no commit passes it
        await real.put(topic, tickets(996, start=4))
        wait_for(lambda: worker.metric(r"penstock_records_total\b") >= 400, 60)
        async with asyncio.timeout(60):
            while not await committed_past(real, topic):  # noqa: ASYNC110 - a broker sets no event
                await asyncio.sleep(0.1)
        worker.kill()
    with real.worker(tasks, model.url, **more) as worker:
        wait_for(lambda: worker.lag() == 0, 90, lambda: f"lag {worker.lag()}")
        assert worker.metric("penstock_records_skipped_total") > 0
        assert worker.terminate()[0] == 0
    found = await real.verdict(topic)
    assert not found.lost
    assert found.repeats <= IN_FLIGHT + MAX_RATE_PER_S * COMMIT_INTERVAL_S
    assert not found.out_of_order
    assert await real.committed(topic) == await real.ends(topic)
    asked_twice = sum(count > 1 for count in model.texts().values())
    assert asked_twice <= IN_FLIGHT + MAX_RATE_PER_S * COMMIT_INTERVAL_S
