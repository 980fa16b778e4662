"""Members of a group that have too little to do, are too slow, or lose their partitions for a moment."""

from pathlib import Path

import pytest

from tests.support.deployment import wait_for
from tests.support.kafka import KafkaBroker
from tests.support.stage import Stage, logged, wait_logged
from tests.support.stand import TASK, Simulate, Stand, tickets
from tests.support.tcp_proxy import TcpProxy
from tests.support.topics import fresh_name
from topics.spec import output_names

REVOKED, ASSIGNED = '"event":"partitions_revoked"', '"event":"partitions_assigned"'
HEARTBEAT, REBALANCE_IN_PROGRESS = 12, 27
ASSIGNED_PARTITIONS = r"penstock_assigned_partitions\b"
ADOPTED = "penstock_calls_adopted_total"
CALLS = 16
SESSION_S, LONG_SESSION_S = 6, 30
"""A member that a busy machine keeps from its heartbeats loses its place; where it must not, the session is long."""
WAIT_S = 90.0


@pytest.mark.fault("R3")
async def test_partitions_that_leave_and_come_back(quick: Stand, simulate: Simulate) -> None:
    """What ran is not done twice, late acks of the old generation count for nothing, and the commit goes on."""
    topic, model = await quick.create(), simulate(latency="const:0.05")
    tasks = {TASK: {"input": topic, "max_in_flight": 64, "deadline_s": 300}}
    settings = {"worker": {"revoke_wait_s": 0.2}, "kafka": {"session_timeout_s": 3}}
    calls = {"max_in_flight": CALLS, "timeout_s": 120}
    with (
        TcpProxy(int(model.url.rsplit(":", 1)[1])) as link,
        quick.worker(tasks, f"http://{link.address}", model=calls, **settings) as worker,
    ):
        worker.wait_ready()
        link.cut()  # no call ends until what ran has been taken over
        await quick.put(topic, tickets(CALLS))
        wait_for(lambda: worker.metric("penstock_model_calls_running") == CALLS, WAIT_S, worker.tail)
        quick.broker.push_errors(HEARTBEAT, [REBALANCE_IN_PROGRESS])  # type: ignore[union-attr]
        wait_logged(worker, REVOKED)
        wait_logged(worker, ASSIGNED, times=2)
        wait_for(lambda: worker.metric(ADOPTED) >= CALLS, WAIT_S, worker.tail)
        link.heal()
        worker.wait_finished(CALLS)
        adopted, returns = worker.metric(ADOPTED), logged(worker, ASSIGNED) - 1
        assert worker.terminate()[0] == 0
    assert not (await quick.verdict(topic)).broken()
    assert await quick.committed(topic) == await quick.ends(topic)
    assert model.counts()["requests"] <= CALLS + returns * CALLS - adopted


@pytest.mark.fault("R4")
async def test_a_call_that_hangs_for_longer_than_the_session(real: Stand, simulate: Simulate) -> None:
    """Its record ends at its own deadline, by the ladder; the group never notices, and the others pass it."""
    topic, model = fresh_name("in"), simulate(latency="const:0.05")
    await real.broker.create_topics({topic: 4})
    written_when = {"message.timestamp.type": "LogAppendTime"}
    await real.broker.create_topics(dict.fromkeys(output_names(topic, TASK).values(), 4), written_when)
    settings = {"kafka": {"session_timeout_s": SESSION_S}, "model": {"timeout_s": 60, "max_attempts": 1}}
    with real.worker({TASK: {"input": topic, "deadline_s": SESSION_S + 4}}, model.url, **settings) as worker:
        worker.wait_ready()
        model.fail("hang")
        await real.put(topic, tickets(1))
        wait_for(lambda: model.counts()["in_flight"] == 1, WAIT_S, worker.tail)
        model.ok()
        await real.put(topic, tickets(50, start=1))
        worker.wait_finished(51)
        assert logged(worker, REVOKED) == 0
        assert worker.terminate()[0] == 0
    verdict = await real.verdict(topic, settled=True)
    assert not verdict.broken()
    assert verdict.by_kind == {"enriched": 50, "fallback": 1}
    [last] = await real.read(topic, "fallback")
    assert all(record.timestamp < last.timestamp for record in await real.read(topic, "enriched"))


@pytest.mark.fault("R8")
async def test_a_member_without_a_partition_is_ready_and_takes_over(kafka: KafkaBroker, tmp_path: Path) -> None:
    """More workers than partitions: the idle one is ready and owns nothing, until the other one leaves."""
    async with Stage(tmp_path, kafka, partitions=1, kafka={"session_timeout_s": LONG_SESSION_S}) as stage:
        workers = [stage.worker(name).wait_ready() for name in ("a", "b")]
        wait_for(lambda: sorted(worker.series(ASSIGNED_PARTITIONS) for worker in workers) == [[0.0], [1.0]], WAIT_S)
        idle, busy = sorted(workers, key=lambda worker: worker.metric(ASSIGNED_PARTITIONS))
        await stage.produce(100)
        await stage.wait_committed(100)
        assert idle.get("/readyz")[0] == idle.get("/livez")[0] == 200
        assert idle.metric(r"penstock_records_total\b") == 0
        assert busy.terminate()[0] == 0
        await stage.produce(100, first=100)
        await stage.wait_committed(200)
        wait_for(lambda: idle.metric(r"penstock_records_total\b") == 100, WAIT_S)
        assert not (await stage.verdict()).broken()
        assert idle.terminate()[0] == 0
