"""An event loop that stands still for longer than a session: heartbeats stop with it, and the group goes on without."""

import time
from pathlib import Path

import orjson
import pytest

from tests.support.blocking_rules import blocker
from tests.support.commit_sampler import sampling
from tests.support.deployment import PENSTOCK, WorkerProcess, wait_for
from tests.support.kafka import ROOT, KafkaBroker
from tests.support.stage import TASK, Stage, logged, wait_logged
from tests.support.topics import New, produce

ASSIGNED = '"event":"partitions_assigned"'
ALL = '"event":"partitions_assigned","count":4'
BLOCK_MAX_S = 120.0
"""The test ends the block, once the other one has taken over; this is for a test that fails."""
SLOTS = 16
RULE = {"rules": {"python": "tests.support.blocking_rules:blocks_once"}}
HOUR_S = 3_600


@pytest.mark.fault("R5", "P4")
async def test_a_loop_that_blocks_for_longer_than_a_session(kafka: KafkaBroker, tmp_path: Path) -> None:
    """The block is alarmed with its stack; the others take over; awake, it drops what it had, rejoins and works on."""
    task = {"max_age_s": HOUR_S, "ladder": [RULE, {"skip": {}}]}
    program = ("env", f"PYTHONPATH={ROOT}", PENSTOCK)
    marker, release = tmp_path / "marker", tmp_path / "release"
    async with (
        Stage(tmp_path, kafka, program=program, model={"max_in_flight": SLOTS}, task=task) as stage,
        sampling(kafka.bootstrap_servers, stage.group, stage.topic, TASK) as sampler,
    ):
        workers = [stage.worker(name).wait_ready() for name in ("a", "b")]
        wait_for(lambda: sum(worker.metric("penstock_assigned_partitions") == 2 for worker in workers) == 2, 60)
        await stage.produce(1_500, keys=200)
        await stage.wait_ended(200)
        had_all = {worker.log: logged(worker, ALL) for worker in workers}
        await block(stage, marker, release)
        wait_for(lambda: blocker(marker), 60)
        blocked, other = sorted(workers, key=lambda worker: worker.running.pid != blocker(marker))
        joined = logged(blocked, ASSIGNED)
        # Both while it is blocked: nothing but the file, which is not there yet, ends that.
        wait_for(lambda: alarmed(blocked), 60, blocked.tail)
        wait_for(lambda: logged(other, ALL) > had_all[other.log], 60, other.tail)
        release.touch()
        wait_logged(blocked, ASSIGNED, times=joined + 1)
        wait_for(lambda: blocked.metric("penstock_event_loop_lag_seconds") > 0, 60, blocked.tail)
        await stage.wait_committed(1_501)
        verdict = await stage.verdict(samples=sampler.samples)
        assert not (broken := verdict.broken(crashed=True)), broken
        assert verdict.repeats <= SLOTS + 320, "more than was in flight and one second's worth"
        for worker in workers:
            assert worker.terminate()[0] == 0, worker.tail()


def alarmed(worker: WorkerProcess) -> bool:
    """Whether the worker's log says that the loop is blocked, and where; a starved one says it of other places."""
    return any(line["stack"][-1].endswith(" blocks_once") for line in worker.log_lines("event loop is blocked"))


async def block(stage: Stage, marker: Path, release: Path) -> None:
    """Write a record that is too old for the model: the first rung answers it, and blocks one worker, once."""
    value = {"number": -1, "block": str(marker), "until": str(release), "for_s": BLOCK_MAX_S}
    old_ms = int((time.time() - 2 * HOUR_S) * 1000)
    record = New(key=b"slow", value=orjson.dumps(value), timestamp_ms=old_ms)
    await produce(stage.broker.bootstrap_servers, stage.topic, [record])
