"""How a worker's outputs and memory grow, seen from outside: by the ends of its output topics, ten times a second."""

import asyncio
import contextlib
import statistics
import time
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition

from tests.bench.matrix.workloads import PARTITIONS

EVERY_S = 0.1
EDGE = 0.2
"""The share of a window that its beginning and its end are each spread over: calls of one length come back in waves,
and a window that cuts a wave at one end alone is wrong by as much, 64 of 1,750 records."""
SHIFTS = 50
STILL_S = 75.0
"""Longer than the longest session timeout of a client that was killed (60 s): who has no output for so long is done."""


class StoppedError(Exception):
    """The worker has ended, or stands still; the text says which."""


@dataclass(slots=True)
class Progress:
    """Totals over time. `at_s` is monotonic."""

    at_s: list[float] = field(default_factory=list)
    totals: list[int] = field(default_factory=list)
    memory_mib: list[float] = field(default_factory=list)
    partitions: list[tuple[int, ...]] = field(default_factory=list)
    """Each partition's end, for each look."""

    @property
    def total(self) -> int:
        """Outputs so far."""
        return self.totals[-1] if self.totals else 0

    def at(self, moment_s: float) -> float:
        """Return how many outputs there were at a moment, on the straight line between the looks around it."""
        index = bisect_right(self.at_s, moment_s)
        if index in {0, len(self.at_s)}:
            return float(self.totals[index - 1]) if index else 0.0
        (before_s, after_s), (before, after) = self.at_s[index - 1 : index + 1], self.totals[index - 1 : index + 1]
        return before + (after - before) * (moment_s - before_s) / (after_s - before_s)

    def rate(self, from_s: float, until_s: float) -> float:
        """Outputs per second between the two."""
        return (self.at(until_s) - self.at(from_s)) / (until_s - from_s)

    def steady_rate(self, from_s: float, until_s: float) -> float:
        """Outputs per second between the two: the mean of windows as long that begin up to `EDGE / 2` around it."""
        edge_s = EDGE * (until_s - from_s)
        shifts_s = [edge_s * (number / SHIFTS - 0.5) for number in range(SHIFTS + 1)]
        return statistics.mean(self.rate(from_s + shift_s, until_s + shift_s) for shift_s in shifts_s)

    def back_s(self, since_s: float, rate: float, over_s: float = 1.0) -> float | None:
        """Seconds from `since_s` to the beginning of the first window with this rate; None if there is none."""
        starts = (at_s for at_s in self.at_s if at_s >= since_s)
        return next((at_s - since_s for at_s in starts if self.rate(at_s, at_s + over_s) >= rate), None)

    def silence_s(self, since_s: float) -> float | None:
        """Seconds from `since_s` until the total grows; None if it does not."""
        before = self.at(since_s)
        return next(
            (
                at_s - since_s
                for at_s, total in zip(self.at_s, self.totals, strict=True)
                if at_s > since_s and total > before
            ),
            None,
        )

    def longest_silence_s(self, from_s: float, until_s: float) -> float:
        """Return the longest time in which a partition that grows before and after did not grow."""
        longest_s = 0.0
        for column in zip(*self.partitions, strict=True):
            grew = [
                later_s
                for (later_s, later), earlier in zip(zip(self.at_s[1:], column[1:], strict=True), column, strict=False)
                if later > earlier
            ]
            gaps = [later - earlier for earlier, later in pairwise(grew) if from_s <= earlier < until_s]
            longest_s = max([longest_s, *gaps])
        return longest_s

    def reached_s(self, total: int) -> float | None:
        """Return when so many outputs were seen, None if they never were."""
        return next((at_s for at_s, each in zip(self.at_s, self.totals, strict=True) if each >= total), None)

    def slope_mib(self, first: int, last: int) -> float | None:
        """Return how many MiB more each 100,000 records between two totals took: least squares; None if too few."""
        pairs = [
            (total / 100_000, mib)
            for total, mib in zip(self.totals, self.memory_mib, strict=True)
            if first <= total <= last
        ]
        if len({total for total, _ in pairs}) < 2:
            return None
        return statistics.linear_regression(*zip(*pairs, strict=True)).slope

    def thinned(self, values: Sequence[float], points: int = 80) -> list[list[float]]:
        """Return at most so many pairs of seconds since the beginning and a value, for a plot."""
        step = max(1, len(values) // points)
        return [[round(self.at_s[at] - self.at_s[0], 1), round(values[at], 1)] for at in range(0, len(values), step)]

    async def until(self, total: int, limit_s: float, alive: Callable[[], bool]) -> None:
        """Wait for so many outputs.

        Raises:
            StoppedError: the worker has ended, or the time is over.
        """
        ends_at_s, seen, grew_at_s = time.monotonic() + limit_s, -1, time.monotonic()
        while self.total < total:
            now_s = time.monotonic()
            seen, grew_at_s = self.total, grew_at_s if seen == self.total else now_s
            if not alive():
                raise StoppedError(f"ended by itself at {seen} of {total}")
            if now_s > ends_at_s or now_s - grew_at_s > STILL_S:
                raise StoppedError(
                    f"stood at {seen} of {total}" if now_s <= ends_at_s else f"{seen} of {total} in time"
                )
            await asyncio.sleep(EVERY_S / 4)


@contextlib.asynccontextmanager
async def watching(
    bootstrap_servers: str, topics: list[str], memory_mib: Callable[[], float]
) -> AsyncIterator[Progress]:
    """Note totals and memory while the block runs.

    Nothing is assigned: the broker answers a connection's requests one after the other, so that behind a fetch that
    waits for records, 0.5 s, the ends would come late.
    """
    progress = Progress()
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap_servers, enable_auto_commit=False)
    await consumer.start()
    partitions = [TopicPartition(topic, number) for topic in topics for number in range(PARTITIONS)]

    async def watch() -> None:
        while True:
            found = await consumer.end_offsets(partitions)
            progress.at_s.append(time.monotonic())
            progress.totals.append(sum(found.values()))
            progress.partitions.append(tuple(found[each] for each in partitions))
            progress.memory_mib.append(memory_mib())
            await asyncio.sleep(EVERY_S)

    task = asyncio.create_task(watch())
    try:
        yield progress
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await consumer.stop()
