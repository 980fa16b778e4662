"""SIGTERM: whatever the worker is at, it ends in bounded time, and what it committed is true."""

import asyncio
import signal
from functools import partial
from pathlib import Path

import pytest

from tests.support.deployment import WorkerProcess, configuration, wait_for
from tests.support.kafka import KafkaBroker
from tests.support.stage import Stage, logged, wait_logged

STOP_S = 5.0
"""What a stop takes beside the drain at most (I9)."""
MARGIN_S = 15.0
"""What a busy machine may add. What must not be waited for takes longer in each test."""
LONG_S = 60.0

PATIENT = {"timeout_s": 60, "max_attempts": 1}


@pytest.mark.fault("P1")
async def test_an_idle_worker_stops_at_once_with_0(kafka: KafkaBroker, tmp_path: Path) -> None:
    """Nothing to drain: exit code 0, and the group is left, so that another one need not wait for a session."""
    async with Stage(tmp_path, kafka, kafka={"session_timeout_s": 2 * LONG_S}, worker={"drain_s": LONG_S}) as stage:
        first = stage.worker("a").wait_ready()
        code, took_s = first.terminate()
        assert (code, logged(first, '"event":"stopped"')) == (0, 1)
        assert took_s < MARGIN_S
        stage.worker("b").wait_ready(LONG_S)


@pytest.mark.fault("P1")
async def test_a_loaded_worker_finishes_what_runs_and_commits_exactly_that(kafka: KafkaBroker, tmp_path: Path) -> None:
    """500 calls are running: they end, all that was written is committed, nothing else is, and nothing is repeated."""
    async with Stage(
        tmp_path,
        kafka,
        latency="heavy:0.3:2:0.2",
        model=PATIENT | {"max_in_flight": 500},
        task={"max_in_flight": 2_000, "deadline_s": LONG_S},
        worker={"drain_s": LONG_S},
    ) as stage:
        enough = asyncio.Event()
        feeding = asyncio.create_task(stage.feed(enough, keys=3_000, ahead=1_500))  # until after its end
        worker = stage.worker("a")
        await asyncio.to_thread(wait_for, partial(busy, stage), 90, worker.tail)
        code, took_s = await asyncio.to_thread(worker.terminate, 2 * LONG_S)
        enough.set()
        count = await feeding
        assert code == 0, worker.tail()
        assert took_s < LONG_S, "calls of 2 s do not take all of the drain"
        await stage.assert_commits_tell_the_truth(exact=True)
        await stage.produce(100, first=count)
        stage.worker("b")
        await stage.wait_committed(count + 100)
        assert not (await stage.verdict()).broken()
        assert stage.model.counts()["requests"] == count + 100


def busy(stage: Stage) -> bool:
    """Whether nearly all of 500 slots are in use, and have been for a while."""
    counts = stage.model.counts()
    return counts["in_flight"] >= 480 and counts["answered"] >= 1_000


@pytest.mark.fault("P1")
async def test_a_hung_call_cannot_hold_the_stop(kafka: KafkaBroker, tmp_path: Path) -> None:
    """A call that never ends gets drain_s; its record stays unacked, those behind it are not done again."""
    drain_s = 3.0
    async with Stage(
        tmp_path, kafka, model=PATIENT, task={"deadline_s": 60}, worker={"drain_s": drain_s}, partitions=1
    ) as stage:
        await stage.produce(20)
        worker = stage.worker("a").wait_ready()
        await stage.wait_ended(20)
        stage.model.fail("hang")
        await stage.produce(1, first=20)
        wait_for(lambda: stage.model.counts()["in_flight"] == 1, 60, worker.tail)
        stage.model.ok()
        await stage.produce(30, first=21)
        await stage.wait_ended(50)

        code, took_s = worker.terminate()
        assert code == 0, worker.tail()
        assert drain_s <= took_s < drain_s + STOP_S + MARGIN_S
        assert (await stage.committed())[0][0] == 20
        await stage.assert_commits_tell_the_truth(exact=True)

        asked = stage.model.counts()["requests"]
        stage.worker("b")
        await stage.wait_ended(51)
        assert not (await stage.verdict()).broken()
        assert stage.model.counts()["requests"] == asked + 1


@pytest.mark.fault("P1")
async def test_held_records_are_not_waited_for(kafka: KafkaBroker, tmp_path: Path) -> None:
    """Under hold everything only waits for the model: the stop takes none of drain_s, and nothing is lost by it."""
    async with Stage(
        tmp_path, kafka, worker={"drain_s": LONG_S}, task={"when_unavailable": "hold"}, model={"max_attempts": 1}
    ) as stage:
        await stage.produce(50)
        stage.model.fail("503")
        worker = stage.worker("a").wait_ready()
        wait_for(lambda: worker.metric("penstock_breaker_state.*") > 0, 60, worker.tail)
        code, took_s = worker.terminate(2 * LONG_S)
        assert code == 0, worker.tail()
        assert took_s < STOP_S + MARGIN_S
        assert await stage.ended() == []
        stage.model.ok()
        stage.worker("b")
        await stage.wait_ended(50)
        assert not (await stage.verdict()).broken()


@pytest.mark.fault("P1")
def test_a_worker_that_has_not_joined_yet_stops(tmp_path: Path) -> None:
    """No broker answers, and the start would try for two minutes: SIGTERM ends it at once with 0."""
    config = configuration(
        tmp_path / "config",
        bootstrap_servers="127.0.0.1:9",
        group_id="g",
        url="http://127.0.0.1:9",
        tasks={"t": {"input": "in"}},
    )
    with WorkerProcess(config, tmp_path / "log") as worker:
        wait_logged(worker, "broker_unreachable")
        code, took_s = worker.terminate()
    assert code == 0, worker.tail()
    assert took_s < MARGIN_S


@pytest.mark.fault("P1")
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_it_at_once(kafka: KafkaBroker, tmp_path: Path, second: signal.Signals) -> None:
    """Whoever does not want to wait for the drain says so again; the exit code tells that it was cut short."""
    async with Stage(tmp_path, kafka, model=PATIENT, task={"deadline_s": 60}, worker={"drain_s": LONG_S}) as stage:
        stage.model.fail("hang")
        await stage.produce(1)
        worker = stage.worker("a")
        wait_for(lambda: stage.model.counts()["in_flight"] == 1, 60, worker.tail)
        worker.running.send_signal(signal.SIGTERM)
        wait_logged(worker, '"event":"draining"')
        worker.running.send_signal(second)
        assert worker.running.wait(MARGIN_S) == 128 + signal.SIGTERM


@pytest.mark.fault("P1")
async def test_a_dead_broker_cannot_hold_the_stop(own_kafka: KafkaBroker, tmp_path: Path) -> None:
    """Sends and commits cannot end: the stop takes the drain and its own bounds; what was not committed comes again."""
    drain_s = 3.0
    async with Stage(tmp_path, own_kafka, worker={"drain_s": drain_s}, latency="const:0.2") as stage:
        await stage.produce(3_000, keys=1_000)
        worker = stage.worker("a")
        await stage.wait_ended(300)
        own_kafka.kill()
        wait_for(lambda: stage.model.counts()["in_flight"] == 0, 60, worker.tail)
        code, took_s = worker.terminate(90)
        assert code == 0, worker.tail()
        assert took_s < drain_s + STOP_S + MARGIN_S
        own_kafka.start()
        stage.worker("b")
        await stage.wait_committed(3_000)
        verdict = await stage.verdict()
        assert not verdict.lost
        assert not verdict.out_of_order


@pytest.mark.fault("P1")
async def test_a_rebalance_that_waits_for_a_dead_member_cannot_hold_the_stop(
    kafka: KafkaBroker, tmp_path: Path
) -> None:
    """The join takes as long as the dead one's session: who stays in it and who has just come stop all the same."""
    async with Stage(tmp_path, kafka, kafka={"session_timeout_s": 2 * LONG_S}) as stage:
        first = stage.worker("a").wait_ready()
        second = stage.worker("b").wait_ready()
        wait_logged(first, '"event":"partitions_assigned"', times=2)
        second.kill()
        third = stage.worker("c")
        wait_logged(first, '"event":"partitions_revoked"', times=2)
        for worker in (first, third):
            code, took_s = worker.terminate(2 * LONG_S)
            assert code == 0, worker.tail()
            assert took_s < STOP_S + MARGIN_S
