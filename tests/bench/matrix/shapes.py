"""What is done to a worker while it works, by the workload's shape, and the figures that this gives."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.bench.matrix.contenders import Job
from tests.bench.matrix.endpoint import Endpoint
from tests.bench.matrix.proc import cpu_s, machine_busy_s
from tests.bench.matrix.progress import EVERY_S, Progress, StoppedError
from tests.bench.matrix.running import Running
from tests.bench.matrix.workloads import TIMEOUT_S, UNTIL, WARM_UP, Case
from tests.support.topics import committed

BACK = 0.95
BEFORE = 0.6
"""The share of the time from the first output to the fault over which the rate before is taken: its last part."""
NOTICE_S = 1.0
"""What a worker gets to see that its endpoint is away; while it hangs, the calls' timeout on top. Later calls are
those of a worker that goes on asking."""
QUIET_S = 4.0
"""Twice the longest call."""
JOIN_LIMIT_S, TOGETHER_S, APART_S = 60.0, 5.0, 5.0
AFTERMATH_S = 0.3
"""So long the broker may still append what a killed process had sent; no worker starts faster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A running cell."""

    worker: Running
    second: Running
    """Another one of the same group, not started."""
    progress: Progress
    broker_pid: int
    job: Job

    @property
    def case(self) -> Case:
        """What is measured."""
        return self.job.case

    @property
    def endpoint(self) -> Endpoint:
        """What the worker asks."""
        return self.job.endpoint

    async def commit_lag(self) -> int:
        """Return how many records are in the output and below no commit."""
        stored = await committed(self.job.bootstrap_servers, self.job.group, [self.job.topic_in])
        return self.progress.total - sum(offset for offset, _ in stored.values())

    async def until(self, share: float) -> None:
        """Wait until so many of the records are in the output."""
        await self.progress.until(int(self.case.records * share), self.case.limit_s, self.worker.alive)

    async def until_both_work(self) -> None:
        """Wait until there have been more calls at once than one worker makes.

        Raises:
            StoppedError: the second one does nothing.
        """
        ends_at_s = time.monotonic() + JOIN_LIMIT_S
        while self.endpoint.stats()["most_running"] <= self.case.slots:
            if time.monotonic() > ends_at_s:
                raise StoppedError(f"the second worker has done nothing within {JOIN_LIMIT_S:g} s")
            await asyncio.sleep(EVERY_S)

    async def until_quiet(self) -> None:
        """Wait for all records, and on until nothing more comes: what is done twice counts for no other record."""
        await self.until(1)
        seen, since_s = -1, time.monotonic()
        while time.monotonic() - since_s < QUIET_S:
            if self.progress.total != seen:
                seen, since_s = self.progress.total, time.monotonic()
            await asyncio.sleep(EVERY_S)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Clocks and counts at one moment."""

    at_s: float
    requests: int
    worker_s: float
    broker_s: float
    stub_s: float
    harness_s: float
    machine_s: float


def snapshot(scene: Scene) -> Snapshot:
    """Look at everything now."""
    return Snapshot(
        time.monotonic(),
        scene.endpoint.stats()["requests"],
        scene.worker.cpu_s(),
        cpu_s([scene.broker_pid]),
        cpu_s([scene.endpoint.pid]),
        cpu_s([os.getpid()]),
        machine_busy_s(),
    )


def between(first: Snapshot, last: Snapshot, progress: Progress, case: Case) -> dict[str, Any]:
    """Return the figures of a window. `others_cores`: what everything else on the machine used, the bench's noise."""
    took_s, done = last.at_s - first.at_s, progress.at(last.at_s) - progress.at(first.at_s)
    if done <= 0:
        raise StoppedError("too few records: all came at once")
    rate = progress.steady_rate(first.at_s, last.at_s)
    worker_s, broker_s = last.worker_s - first.worker_s, last.broker_s - first.broker_s
    stub_s, harness_s = last.stub_s - first.stub_s, last.harness_s - first.harness_s
    others_s = last.machine_s - first.machine_s - worker_s - broker_s - stub_s - harness_s
    return {
        "window_s": round(took_s, 2),
        "records_per_s": round(rate, 1),
        "of_ideal": round(rate / case.ideal_per_s, 4) if case.ideal_per_s else None,
        "cpu_us_per_record": round(worker_s / done * 1e6, 1),
        "records_per_core_s": round(done / worker_s) if worker_s else None,
        "broker_us_per_record": round(broker_s / done * 1e6, 1),
        "stub_us_per_call": round(stub_s / max(1, last.requests - first.requests) * 1e6, 1),
        "others_cores": round(max(0.0, others_s) / took_s, 2),
    }


async def steady(scene: Scene) -> dict[str, Any]:
    """Measure between the warm-up and the last records."""
    await scene.until(WARM_UP)
    first = snapshot(scene)
    await scene.until(UNTIL)
    last = snapshot(scene)
    lag = {"commit_lag": await scene.commit_lag()} if scene.case.workload == "W2" else {}
    await scene.until(1)
    return between(first, last, scene.progress, scene.case) | lag


async def outage(scene: Scene) -> dict[str, Any]:
    """Let the endpoint fail for a while in the middle."""
    case, progress = scene.case, scene.progress
    await scene.until(case.fault_at)
    began_s = time.monotonic()
    scene.endpoint.fail(case.fault, case.fault_s)
    notice_s = NOTICE_S + (TIMEOUT_S if case.fault == "hang" else 0.0)
    await asyncio.sleep(notice_s)
    early = scene.endpoint.stats()["refused"]
    await asyncio.sleep(case.fault_s - notice_s)
    ended_s, refused = time.monotonic(), scene.endpoint.stats()["refused"]
    left = case.records - progress.total
    await scene.until(1)
    worked_s = began_s - (progress.reached_s(1) or began_s)
    rate = progress.rate(began_s - case.waves_s(BEFORE * worked_s), began_s)
    back_s = progress.back_s(ended_s, BACK * rate, case.waves_s(1.0))
    return {
        "fault_at_s": round(began_s - progress.at_s[0], 1),
        "rate_before": round(rate),
        "calls_in_outage": refused,
        "calls_after_notice": refused - early,
        "left_at_the_end": left,
        "back_s": None if back_s is None else round(back_s, 2),
    }


async def kill(scene: Scene) -> dict[str, Any]:
    """Kill -9 in the middle, and start it again at once."""
    await scene.until(scene.case.fault_at)
    killed_s = time.monotonic()
    scene.worker.kill()
    scene.worker.start()
    await scene.until_quiet()
    silence_s = scene.progress.silence_s(killed_s + AFTERMATH_S)
    return {"silence_s": None if silence_s is None else round(silence_s + AFTERMATH_S, 2)}


async def join(scene: Scene) -> dict[str, Any]:
    """Let a second worker join, and leave when it has worked for a while; both with dynamic membership.

    How long a partition waits for its turn while nobody comes or goes, is a part of every silence: told beside them.
    """
    progress = scene.progress
    await scene.until(scene.case.fault_at)
    joined_s = time.monotonic()
    scene.second.start()
    await scene.until_both_work()
    await asyncio.sleep(TOGETHER_S)
    left_s = time.monotonic()
    await asyncio.to_thread(scene.second.stop)
    await asyncio.sleep(APART_S)
    if progress.total >= scene.case.records:
        raise StoppedError("too few records: all were done before the second worker had left for long")
    await scene.until_quiet()
    began_s = progress.reached_s(1) or joined_s
    return {
        "usual_silence_s": round(progress.longest_silence_s(began_s, joined_s - 1), 2),
        "join_silence_s": round(progress.longest_silence_s(joined_s - 1, left_s - 1), 2),
        "leave_silence_s": round(progress.longest_silence_s(left_s - 1, left_s + APART_S), 2),
    }


async def observed(scene: Scene) -> dict[str, Any]:
    """Run the case's shape; a worker that stops, or leaves records out, still has figures: what it did until then."""
    try:
        return await SHAPES[scene.case.shape](scene)
    except StoppedError as exc:
        return {"failed": str(exc)}


SHAPES: Mapping[str, Callable[[Scene], Awaitable[dict[str, Any]]]] = {
    "steady": steady,
    "outage": outage,
    "kill": kill,
    "join": join,
}
