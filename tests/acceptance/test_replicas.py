"""Replicas of one group: they come, go, freeze and die, and every record still ends once, in the order of its key."""

import asyncio
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.commit_sampler import sampling
from tests.support.deployment import DEFAULT, WorkerProcess, wait_for
from tests.support.fault_server import FaultServer, answer, once
from tests.support.flow import flow_of
from tests.support.kafka import KafkaBroker
from tests.support.stage import TASK, Stage, logged, wait_logged

REVOKED = '"event":"partitions_revoked"'


def assigned_counts(worker: WorkerProcess) -> list[int]:
    """The numbers of partitions that a worker got, one per assignment."""
    return [line["count"] for line in worker.log_lines("partitions_assigned")]


def at_work(worker: WorkerProcess) -> bool:
    """Whether a worker has finished some hundred records."""
    return worker.metric(r"penstock_records_total\b") >= 200


@pytest.mark.fault("R1")
async def test_replicas_join_and_leave_under_load(kafka: KafkaBroker, tmp_path: Path) -> None:
    """Three rebalances while records flow: none lost, none repeated, all replicas worked, keys kept their order."""
    async with Stage(tmp_path, kafka, partitions=8, model={"max_in_flight": 32}) as stage:
        enough = asyncio.Event()
        feeding = asyncio.create_task(stage.feed(enough, keys=500))
        workers = []
        for name in ("a", "b", "c"):
            workers.append(worker := stage.worker(name))
            await asyncio.to_thread(wait_for, partial(at_work, worker), 90, worker.tail)
        first, second, _ = workers
        code, _ = await asyncio.to_thread(second.terminate)
        assert code == 0, second.tail()
        enough.set()
        count = await feeding
        await stage.produce(500, keys=500, first=count)  # for all partitions, those that it had as well
        await stage.wait_committed(count + 500)
        assert logged(first, REVOKED) >= 3, "it was to be two joins and one leave"
        assert not (await stage.verdict()).broken()


@pytest.mark.fault("R7")
async def test_a_static_replica_that_comes_back_disturbs_nobody(kafka: KafkaBroker, tmp_path: Path) -> None:
    """With an id of its own a killed replica gets its partitions back: no rebalance, nothing lost, order kept."""
    session_s = 40.0  # a start takes long on a busy machine
    session: dict[str, Any] = {"kafka": {"session_timeout_s": session_s}}
    async with Stage(tmp_path, kafka, partitions=8, static=True, model={"max_in_flight": 16}, **session) as stage:
        output = f"{stage.topic}.{TASK}.enriched"
        async with flow_of(kafka.bootstrap_servers, output, 8) as flow:
            first, second = stage.worker("a").wait_ready(), stage.worker("b").wait_ready()
            wait_for(lambda: assigned_counts(first)[-1:] == assigned_counts(second)[-1:] == [4], 60, first.tail)
            rebalances = logged(second, REVOKED)
            await stage.produce(6_000, keys=500)
            await flow.until_total(1_000, 60)
            killed_at_s = time.monotonic()
            first.kill()
            again = stage.worker("a")
            await stage.produce(1_000, keys=500, first=6_000)  # so that every partition has something to go on with
            await flow.until(lambda: flow.resumed_s(killed_at_s, range(8)) is not None, 2 * session_s)
            await stage.wait_committed(7_000)
        assert logged(second, REVOKED) == rebalances
        assert (flow.resumed_s(killed_at_s, range(8)) or 0) < session_s, "as long as a session: it was a rebalance"
        assert assigned_counts(again)[-1] == 4
        verdict = await stage.verdict()
        assert not verdict.lost
        assert not verdict.out_of_order
        assert verdict.repeats <= 16 + 320, "more than was in flight and one second's worth"


@pytest.mark.fault("R4")
async def test_a_call_longer_than_the_session_keeps_its_partition(kafka: KafkaBroker, tmp_path: Path) -> None:
    """Heartbeats do not depend on the model: a call of 8 s in a session of 6 s means no rebalance, no second one."""
    async with Stage(
        tmp_path, kafka, latency="const:8", model={"timeout_s": 20}, task={"deadline_s": 30}, partitions=2
    ) as stage:
        await stage.produce(20, keys=20)
        worker = stage.worker("a")
        await stage.wait_ended(20)
        assert logged(worker, REVOKED) == 0
        assert stage.model.counts()["requests"] == 20
        assert not (await stage.verdict()).broken()


@pytest.mark.fault("R6", "P6")
async def test_a_frozen_replica_that_wakes_up_commits_nothing_late(kafka: KafkaBroker, tmp_path: Path) -> None:
    """A zombie's partitions are done by the other one; awake, it may write duplicates, but moves no commit back."""
    async with (
        Stage(tmp_path, kafka, partitions=4, latency="const:0.1", model={"max_in_flight": 16}) as stage,
        sampling(kafka.bootstrap_servers, stage.group, stage.topic, TASK) as sampler,
    ):
        zombie, other = stage.worker("a").wait_ready(), stage.worker("b").wait_ready()
        wait_for(lambda: assigned_counts(zombie)[-1:] == assigned_counts(other)[-1:] == [2], 60, zombie.tail)
        times = len(assigned_counts(zombie))
        enough = asyncio.Event()
        feeding = asyncio.create_task(stage.feed(enough, keys=500, ahead=1_000))  # so that it is frozen at work
        await stage.wait_committed(300)
        zombie.running.send_signal(signal.SIGSTOP)
        await asyncio.to_thread(wait_for, lambda: assigned_counts(other)[-1] == 4, 60, other.tail)
        enough.set()
        count = await feeding
        await asyncio.sleep(2)  # the survivor shall get ahead of what the zombie remembers
        before = await stage.committed()
        zombie.running.send_signal(signal.SIGCONT)
        ends_at_s = time.monotonic() + 60
        while len(assigned_counts(zombie)) == times:  # until it is a member again
            assert time.monotonic() < ends_at_s, zombie.tail()
            after = await stage.committed()
            back = {number for number, (offset, _) in after.items() if offset < before.get(number, (0, ""))[0]}
            assert not back, f"partitions {back} went back from {before} to {after}"
            before = after
            await asyncio.sleep(0.1)
        wait_for(lambda: assigned_counts(zombie)[-1] == 2, 60, zombie.tail)
        wait_logged(zombie, '"event":"commit_refused"')  # its generation is over
        await stage.wait_committed(count)
        verdict = await stage.verdict(samples=sampler.samples)
        assert not (broken := verdict.broken(crashed=True)), broken
        assert verdict.repeats <= 16 + 320, "more than was in flight and one second's worth"


async def test_two_replicas_with_one_instance_id_do_not_fight_for_ever(kafka: KafkaBroker, tmp_path: Path) -> None:
    """They evict each other, and hardly a commit lands: one gives up with 78 and names the setting; nothing is lost."""
    async with Stage(tmp_path, kafka, static=True, latency="const:0.02") as stage:
        await stage.produce(200)
        twins = [stage.worker(name, instance="same") for name in ("a", "b")]
        fed, ends_at_s = 200, time.monotonic() + 60
        while all(twin.running.poll() is None for twin in twins):
            assert time.monotonic() < ends_at_s, twins[0].tail() + "\n" + twins[1].tail()
            await stage.produce(50, first=fed)
            fed += 50
            await asyncio.sleep(0.5)
        gone, other = sorted(twins, key=lambda twin: twin.running.poll() is None)
        assert gone.running.wait(1) == 78, gone.tail()
        assert logged(gone, "is kafka.group_instance_id unique for each replica?") >= 1, gone.tail()
        other.terminate()  # the last eviction may have been one too many for it as well
        stage.worker("c", instance="same")
        await stage.wait_ended(fed)
        verdict = await stage.verdict()
        assert not verdict.lost
        assert not verdict.out_of_order


@pytest.mark.fault("R3")
async def test_a_running_call_is_taken_over_when_its_partition_comes_back(kafka: KafkaBroker, tmp_path: Path) -> None:
    """A rebalance need not pay twice for slow calls: those of partitions that stay are adopted."""
    answered = asyncio.Event()
    async with (
        FaultServer(default=once(answered, answer(orjson.dumps(DEFAULT).decode()))) as server,
        Stage(
            tmp_path,
            kafka,
            partitions=4,
            model={"url": server.url, "timeout_s": 120},
            task={"deadline_s": 150},
            worker={"revoke_wait_s": 0.5, "drain_s": 8},
        ) as stage,
    ):
        await stage.produce(40, keys=40)
        first = stage.worker("a")
        await asyncio.to_thread(wait_for, lambda: server.running == 40, 60, first.tail)
        second = stage.worker("b")
        await asyncio.to_thread(wait_for, lambda: assigned_counts(first)[-1:] == [2], 60, first.tail)
        await asyncio.to_thread(wait_for, lambda: first.metric("penstock_calls_adopted_total") > 0, 60, first.tail)
        answered.set()  # not before: an answer that comes while the second one starts leaves nothing to adopt
        await stage.wait_ended(40)
        adopted = await asyncio.to_thread(first.metric, "penstock_calls_adopted_total")
        verdict = await stage.verdict()
        assert not verdict.broken()
        assert len(server.requests) <= 80 - adopted
        assert (await asyncio.to_thread(second.terminate))[0] == 0
