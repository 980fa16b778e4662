"""kill -9 in the middle of the work: nothing is lost, keys keep their order, and hardly a call is paid for twice."""

import time
from pathlib import Path

import pytest

from tests.support.flow import flow_of
from tests.support.kafka import KafkaBroker
from tests.support.stage import TASK, Stage

RECORDS, PARTITIONS, SLOTS = 20_000, 12, 128
COMMIT_INTERVAL_S = 0.2
WORK_S = 150.0


@pytest.mark.fault("P2")
async def test_two_workers_are_killed_in_turn(kafka: KafkaBroker, tmp_path: Path) -> None:
    """Lost 0, out of order 0; done twice: at most what ran in the killed one, and a few commit intervals' worth."""
    async with Stage(
        tmp_path,
        kafka,
        partitions=PARTITIONS,
        static=True,
        latency="heavy:0.02:1:0.1",
        model={"max_in_flight": SLOTS},
    ) as stage:
        await stage.produce(RECORDS, keys=1_000)
        workers = {name: stage.worker(name) for name in ("a", "b")}
        async with flow_of(kafka.bootstrap_servers, f"{stage.topic}.{TASK}.enriched", PARTITIONS) as flow:
            for share, name in ((0.3, "a"), (0.6, "b")):
                await flow.until_total(share * RECORDS, WORK_S)
                workers[name].kill()
                workers[name] = stage.worker(name)
            began_s = time.monotonic()
            await flow.until_total(0.9 * RECORDS, WORK_S)
            rate_per_s = 0.3 * RECORDS / (time.monotonic() - began_s)
            await stage.wait_committed(RECORDS)
        verdict = await stage.verdict()
        assert verdict.inputs == RECORDS
        assert not verdict.lost
        assert not verdict.out_of_order
        twice = 2 * (SLOTS + 2 * COMMIT_INTERVAL_S * rate_per_s)
        assert verdict.repeats <= twice
        assert stage.model.counts()["requests"] - RECORDS <= twice + 2 * SLOTS, "calls that died with their worker"
