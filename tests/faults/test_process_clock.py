"""A wall clock that jumps by an hour, forwards and back, under a worker in the middle of everything that has a time."""

import asyncio
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest

from tests.support.deployment import WorkerProcess, wait_for
from tests.support.kafka import ROOT
from tests.support.stand import TASK, Simulate, Stand, tickets
from tests.support.stepping_clock import step_clock
from tests.support.topics import read_all
from workers.demo.processes import SimulatedModel

HOUR_S = 3_600.0
DEADLINE_S = 4.0
"""What a busy machine may take for any other record than the hung ones."""
RESET_S = 0.5
SESSION_S = 60.0
BOUND_S = 90.0
"""Above every time that is set here, far below the steps."""
HUNG, REFUSED, ANSWERED = 1, 20, 40


@dataclass
class Deployment:
    """A worker whose wall clock is in `clock`, and how many records it was given."""

    stand: Stand
    topic: str
    worker: WorkerProcess
    model: SimulatedModel
    clock: Path
    written: int = 0

    async def put(self, count: int) -> None:
        """Write more records."""
        await self.stand.put(self.topic, tickets(count, start=self.written))
        self.written += count

    def count(self, outcome: str) -> float:
        """Records that ended so."""
        return self.worker.metric(f'penstock_records_total{{.*"{outcome}"')

    def wait_count(self, outcome: str, count: float) -> None:
        """Wait until so many have ended so."""
        wait_for(lambda: self.count(outcome) == count, BOUND_S, self.worker.tail)

    async def hang_over(self, step_s: float) -> None:
        """Step the clock while a call hangs: its record ends at its deadline, neither earlier nor later."""
        self.model.fail("hang")
        before, asked = self.count("fallback"), self.model.counts()["requests"]
        began_s = time.monotonic()  # before the call: the deadline is over later than this and `DEADLINE_S`
        await self.put(HUNG)
        wait_for(lambda: self.model.counts()["requests"] >= asked + HUNG, BOUND_S, self.worker.tail)
        step_clock(self.clock, step_s)
        self.wait_count("fallback", before + HUNG)
        assert time.monotonic() - began_s > 0.9 * DEADLINE_S, "the step ended a deadline"

    async def refuse_over(self, step_s: float) -> None:
        """Step the clock while the breaker is open: when its pause is over, the next record is let in and closes it."""
        self.model.fail("reset")
        before = {outcome: self.count(outcome) for outcome in ("fallback", "enriched")}
        opened = self.worker.metric("penstock_breaker_opened_total{")
        await self.put(REFUSED)
        wait_for(lambda: self.worker.metric("penstock_breaker_opened_total{") > opened, BOUND_S, self.worker.tail)
        step_clock(self.clock, step_s)
        self.wait_count("fallback", before["fallback"] + REFUSED)
        self.model.ok()
        await asyncio.sleep(1.5 * RESET_S)
        await self.put(1)  # the trial: without it all would leave down the ladder at once
        self.wait_count("enriched", before["enriched"] + 1)
        await self.put(ANSWERED)
        self.wait_count("enriched", before["enriched"] + 1 + ANSWERED)


@pytest.mark.fault("P5")
async def test_an_hour_forwards_or_back_changes_no_time_of_ours(
    quick: Stand, simulate: Simulate, tmp_path: Path
) -> None:
    """Deadlines, breaker, back-off, heartbeats and commits go on; the wall clock is only told, as it was."""
    clock = tmp_path / "clock"
    step_clock(clock, 0.0)
    topic, model = await quick.create(), simulate(latency="const:0.02")
    worker = quick.worker(
        {TASK: {"input": topic, "deadline_s": DEADLINE_S, "fallback_rate": "unlimited"}},
        model.url,
        model={"max_attempts": 2, "timeout_s": 60, "max_in_flight": 16, "breaker": {"reset_timeout_s": RESET_S}},
        kafka={"session_timeout_s": SESSION_S},
    )
    worker.program = ("env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "tests.support.stepping_clock", clock)
    with worker:
        on = Deployment(quick, topic, worker.wait_ready(), model, clock)
        await on.hang_over(HOUR_S)
        await on.refuse_over(-HOUR_S)
        await on.hang_over(-2 * HOUR_S)
        await on.refuse_over(HOUR_S)
        worker.wait_ready()
        worker.wait_finished(on.written)  # committed as well
        assert '"event":"partitions_revoked"' not in worker.log.read_text()
        assert worker.terminate()[0] == 0
    verdict = await quick.verdict(topic, settled=True)
    assert not (broken := verdict.broken()), broken
    assert verdict.by_kind == {"enriched": 2 * (1 + ANSWERED), "fallback": 2 * (HUNG + REFUSED)}
    await assert_labels_only(quick, topic)


async def assert_labels_only(stand: Stand, topic: str) -> None:
    """Outputs say the wall clock's time of their moment, stepped or not, and carry their input's timestamp.

    Where the clock went back the input's lies in the future, which brokers refuse: then it is the moment's own.
    """
    now, seen_h = datetime.now(UTC), set()
    inputs = {(one.partition, one.offset): one.timestamp for one in await read_all(stand.servers, topic)}
    for kind in ("enriched", "fallback"):
        for output in await stand.read(topic, kind):
            provenance = orjson.loads(output.value)["provenance"]
            _, partition, offset = provenance["source"].rsplit("/", 2)
            late_ms = output.timestamp - inputs[int(partition), int(offset)]
            off_h = round((datetime.fromisoformat(provenance["produced_at"]) - now) / timedelta(hours=1))
            seen_h.add(off_h)
            assert late_ms == 0 or (off_h < 0 and abs(late_ms) < 3 * HOUR_S * 1000)
    assert seen_h == {-2, -1, 1}, "the clock was not stepped"
