"""The two runs: what is done to the workers of a stage, and the figures that its flow of output shows."""

import asyncio
import contextlib
import random
import statistics
import time
from bisect import bisect_right
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from tests.bench.kills import FIRST, KILLS, LAST, QUIET_S, RESUME_S, owned
from tests.bench.peers.stage import PeerStage
from tests.support.deployment import WorkerProcess
from tests.support.flow import EVERY_S, Flow
from tests.support.topics import ends as input_ends

RECORDS = {"kills": 20_000, "outage": 8_000}
OUTAGE_S, RATE_OVER_S, BACK = 10.0, 4.0, 0.95
AFTERMATH_S = 0.5
"""So long the broker may still append what a killed process had sent; none of these workers starts faster."""

Workers = dict[str, WorkerProcess]


class Pace:
    """How many outputs there were, by time."""

    def __init__(self) -> None:
        self._at_s: list[float] = []
        self._totals: list[int] = []

    def note(self, total: int) -> None:
        """Remember the number of now."""
        self._at_s.append(time.monotonic())
        self._totals.append(total)

    def total(self, at_s: float) -> int:
        """Return how many there were at that time."""
        index = bisect_right(self._at_s, at_s)
        return self._totals[index - 1] if index else 0

    def rate(self, from_s: float, until_s: float) -> float:
        """Outputs per second between the two."""
        return (self.total(until_s) - self.total(from_s)) / (until_s - from_s)

    def back_s(self, since_s: float, rate: float) -> float | None:
        """Seconds from `since_s` to the beginning of the first second that has this rate, None if there is none."""
        starts = (at_s for at_s in self._at_s if since_s <= at_s <= self._at_s[-1] - 1)
        found = next((at_s for at_s in starts if self.rate(at_s, at_s + 1) >= rate), None)
        return None if found is None else found - since_s


@contextlib.asynccontextmanager
async def pace_of(flow: Flow) -> AsyncIterator[Pace]:
    """Watch how the outputs grow while the block runs."""
    pace = Pace()

    async def watch() -> None:
        while True:
            pace.note(flow.total)
            await asyncio.sleep(EVERY_S)

    watching = asyncio.create_task(watch())
    try:
        yield pace
    finally:
        watching.cancel()


async def kills(stage: PeerStage, workers: Workers, flow: Flow, seed: int) -> dict[str, Any]:
    """Five kill -9 at the moments of tests/bench/kills.py.

    `silence_s`: until any of the killed worker's partitions had output again, that is until somebody worked on them.
    `all_again_s`: until each had that was not finished; a worker that takes one partition after the other needs long.
    """
    chance = random.Random(seed)
    width = (LAST - FIRST) / KILLS
    shares = [FIRST + width * (fifth + chance.random()) for fifth in range(KILLS)]
    killed = []
    for share in shares:
        await flow.until_total(share * RECORDS["kills"], 120)
        killed.append(await kill(stage, workers, chance.choice("ab"), flow))
        await asyncio.sleep(QUIET_S)
    await flow.until_total(RECORDS["kills"], 240)
    again_s = [returns_s(flow, killed_at_s, theirs) for killed_at_s, theirs in killed]
    return {
        "silence_s": spread([min(found) for found in again_s]),
        "all_again_s": spread([max(found) for found in again_s]),
        "partitions": [len(theirs) for _, theirs in killed],
    }


async def kill(stage: PeerStage, workers: Workers, name: str, flow: Flow) -> tuple[float, set[int]]:
    """Kill a worker, start it again, wait for output of its partitions; return the moment, and those not finished.

    One that has nothing left to do is spared, and another takes its place.
    """
    stored = await stage.committed()
    ends = await input_ends(stage.broker.bootstrap_servers, stage.topic)
    unfinished = {number for number, end in ends.items() if stored.get(number, (0, ""))[0] < end}
    left = {each: numbers & unfinished for each, numbers in (await owned(stage)).items() if numbers & unfinished}
    assert left, "nobody had anything left to do"
    name = name if name in left else min(left)
    killed_at_s = time.monotonic()
    workers[name].kill()
    workers[name] = stage.worker(name)
    await flow.until(lambda: bool(returns_s(flow, killed_at_s, left[name])), RESUME_S)
    return killed_at_s, left[name]


def returns_s(flow: Flow, killed_at_s: float, partitions: set[int]) -> list[float]:
    """Return for each partition that has grown since the kill the seconds until it did."""
    grown = [[at_s for at_s in flow.grew_at_s[number] if at_s > killed_at_s + AFTERMATH_S] for number in partitions]
    return [moments[0] - killed_at_s for moments in grown if moments]


def spread(values: list[float]) -> list[float]:
    """Return median, least and greatest."""
    return [round(each, 2) for each in (statistics.median(values), min(values), max(values))]


async def outage(stage: PeerStage, workers: Workers, flow: Flow, seed: int) -> dict[str, Any]:  # noqa: ARG001 - as kills
    """The endpoint answers 503 for ten seconds when half of the records are done."""
    records = RECORDS["outage"]
    async with pace_of(flow) as pace:
        await flow.until_total(records / 2, 120)
        began_s = time.monotonic()
        rate = pace.rate(began_s - RATE_OVER_S, began_s)
        stage.model.fail("503", OUTAGE_S)
        await asyncio.sleep(OUTAGE_S)
        ended_s = time.monotonic()
        left = records - flow.total
        with contextlib.suppress(AssertionError):
            await flow.until_total(records, 90)
        await asyncio.sleep(1)
    back_s = pace.back_s(ended_s, BACK * rate)
    return {
        "rate_before": round(rate),
        "left_at_the_end": left,
        "back_s": None if back_s is None else round(back_s, 2),
    }


RUNS: dict[str, Callable[[PeerStage, Workers, Flow, int], Awaitable[dict[str, Any]]]] = {
    "kills": kills,
    "outage": outage,
}
