"""How output flows, partition by partition, as the broker's end offsets show it: how long was it silent?"""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Callable, Collection

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

EVERY_S = 0.05


class Flow:
    """The moments (monotonic, seconds) at which each output partition grew, as seen every 50 ms."""

    def __init__(self, partitions: int) -> None:
        self.ends = dict.fromkeys(range(partitions), 0)
        self.grew_at_s: dict[int, list[float]] = {number: [] for number in range(partitions)}

    @property
    def total(self) -> int:
        """Outputs so far."""
        return sum(self.ends.values())

    def resumed_s(self, since_s: float, partitions: Collection[int]) -> float | None:
        """Seconds from `since_s` until all of these have grown again, None while one has not.

        The first 0.1 s do not count: the broker may still be appending what a killed producer sent.
        """
        firsts = []
        for number in partitions:
            later = [at_s for at_s in self.grew_at_s[number] if at_s > since_s + 2 * EVERY_S]
            if not later:
                return None
            firsts.append(later[0])
        return max(firsts, default=since_s) - since_s

    def silence_s(self, since_s: float, until_s: float, partitions: Collection[int]) -> float:
        """The longest time in which none of these grew."""
        moments = sorted(at_s for number in partitions for at_s in self.grew_at_s[number] if since_s <= at_s <= until_s)
        edges = [since_s, *moments, until_s]
        return max(later - earlier for earlier, later in itertools.pairwise(edges))

    def note(self, ends: dict[int, int]) -> None:
        """Compare with the last look."""
        now_s = time.monotonic()
        for number, end in ends.items():
            if end > self.ends[number]:
                self.ends[number] = end
                self.grew_at_s[number].append(now_s)

    async def until(self, condition: Callable[[], bool], timeout_s: float) -> None:
        """Wait until the condition holds."""
        ends_at_s = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < ends_at_s, f"not within {timeout_s:g} s; {self.total} outputs"
            await asyncio.sleep(EVERY_S)

    async def until_total(self, count: float, timeout_s: float) -> None:
        """Wait for so many outputs."""
        await self.until(lambda: self.total >= count, timeout_s)


@contextlib.asynccontextmanager
async def flow_of(bootstrap_servers: str, topic: str, partitions: int) -> AsyncIterator[Flow]:
    """Watch a topic while the block runs. Nothing in the block may hold the loop for long."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap_servers, enable_auto_commit=False)
    await consumer.start()
    flow = Flow(partitions)
    watching = asyncio.create_task(_watch(consumer, topic, flow))
    try:
        yield flow
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        await consumer.stop()


async def _watch(consumer: AIOKafkaConsumer, topic: str, flow: Flow) -> None:
    every = [TopicPartition(topic, number) for number in flow.ends]
    while True:
        with contextlib.suppress(KafkaError):
            ends = await consumer.end_offsets(every)
            flow.note({tp.partition: end for tp, end in ends.items()})
        await asyncio.sleep(EVERY_S)
