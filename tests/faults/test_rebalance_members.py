"""Members of a group that have too little to do, are too slow, or lose their partitions for a moment."""

from pathlib import Path

import pytest

from tests.support.deployment import wait_for
from tests.support.kafka import KafkaBroker
from tests.support.stage import Stage, logged, wait_logged
from tests.support.stand import TASK, Simulate, Stand, tickets

REVOKED, ASSIGNED = '"event":"partitions_revoked"', '"event":"partitions_assigned"'
HEARTBEAT, REBALANCE_IN_PROGRESS = 12, 27
ASSIGNED_PARTITIONS = r"penstock_assigned_partitions\b"


@pytest.mark.fault("R3")
async def test_partitions_that_leave_and_come_back(quick: Stand, simulate: Simulate) -> None:
    """What ran is not done twice, late acks of the old generation count for nothing, and the commit goes on."""
    topic, model = await quick.create(), simulate(latency="const:4")  # the embedded broker's joins take two seconds
    tasks = {TASK: {"input": topic, "max_in_flight": 64}}
    settings = {"worker": {"revoke_wait_s": 0.2}, "model": {"max_in_flight": 16}, "kafka": {"session_timeout_s": 3}}
    with quick.worker(tasks, model.url, **settings) as worker:
        worker.wait_ready()
        await quick.put(topic, tickets(16))
        wait_for(lambda: model.counts()["in_flight"] == 16, 30, worker.tail)
        quick.broker.push_errors(HEARTBEAT, [REBALANCE_IN_PROGRESS])  # type: ignore[union-attr]
        wait_logged(worker, REVOKED)
        wait_logged(worker, ASSIGNED, times=2)
        worker.wait_finished(16)
        adopted = worker.metric("penstock_calls_adopted_total")
        assert adopted > 0
        assert worker.terminate()[0] == 0
    assert not (await quick.verdict(topic)).broken()
    assert await quick.committed(topic) == await quick.ends(topic)
    assert model.counts()["requests"] <= 16 + 16 - adopted


@pytest.mark.fault("R4")
async def test_a_call_that_hangs_for_longer_than_the_session(kafka: KafkaBroker, tmp_path: Path) -> None:
    """Its record ends at its own deadline, by the ladder; the group never notices, and the others pass it."""
    async with Stage(
        tmp_path,
        kafka,
        kafka={"session_timeout_s": 2},
        model={"timeout_s": 60, "max_attempts": 1},
        task={"deadline_s": 5},
    ) as stage:
        worker = stage.worker("a").wait_ready()
        stage.model.fail("hang")
        await stage.produce(1)
        wait_for(lambda: stage.model.counts()["in_flight"] == 1, 20, worker.tail)
        stage.model.ok()
        await stage.produce(50, first=1)
        await stage.wait_ended(50)
        assert worker.metric('penstock_records_total{.*"fallback".*') == 0, "it was to hang still"
        await stage.wait_committed(51, 30)
        assert logged(worker, REVOKED) == 0
        verdict = await stage.verdict()
        assert not verdict.broken()
        assert verdict.by_kind == {"enriched": 50, "fallback": 1}


@pytest.mark.fault("R8")
async def test_a_member_without_a_partition_is_ready_and_takes_over(kafka: KafkaBroker, tmp_path: Path) -> None:
    """More workers than partitions: the idle one is ready and owns nothing, until the other one leaves."""
    async with Stage(tmp_path, kafka, partitions=1) as stage:
        workers = [stage.worker(name).wait_ready() for name in ("a", "b")]
        wait_for(lambda: sorted(worker.series(ASSIGNED_PARTITIONS) for worker in workers) == [[0.0], [1.0]], 30)
        idle, busy = sorted(workers, key=lambda worker: worker.metric(ASSIGNED_PARTITIONS))
        await stage.produce(100)
        await stage.wait_committed(100)
        assert idle.get("/readyz")[0] == idle.get("/livez")[0] == 200
        assert idle.metric(r"penstock_records_total\b") == 0
        assert busy.terminate()[0] == 0
        await stage.produce(100, first=100)
        await stage.wait_committed(200)
        wait_for(lambda: idle.metric(r"penstock_records_total\b") == 100, 10)  # one rendering serves for a second
        assert not (await stage.verdict()).broken()
        assert idle.terminate()[0] == 0
