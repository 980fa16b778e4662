"""The group's commits, seen from outside the worker every 50 ms or so: what the oracle holds against the outputs."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from topics.spec import KINDS, KINDS_WITH_RETRY, Kind, output_names
from workers.audit import Sample

EVERY_S = 0.05
LOOK_S = 3.0
"""A broker that is frozen does not answer: the look is given up, and the next one has clients of its own."""
OPEN_S = 20.0
"""What those clients get to find the broker, the topics and the group's coordinator: a dozen requests."""
NOW_S = 60.0
STOP_S = 60.0


class CommitSampler:
    """Takes samples in a thread of its own, so that a test which blocks its loop does not blind it.

    A look asks for the commits first and for the outputs' ends then: a record that those commits call finished must be
    below these ends. While no broker answers there are no samples. One whose commits are those of the last one says
    nothing new and is not kept, unless it has a label.
    """

    def __init__(self, servers: str, group: str, topic: str, task: str, *, defers: bool = False) -> None:
        self._servers = servers
        self._group = group
        self._topic = topic
        self._outputs = output_names(topic, task, kinds=KINDS_WITH_RETRY if defers else KINDS)
        self._samples: list[Sample] = []
        self.looks = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="commit sampler", daemon=True)
        self._stopped = asyncio.Event()
        self._lock = asyncio.Lock()
        self._eyes: _Eyes | None = None

    @property
    def samples(self) -> list[Sample]:
        """What was seen so far, in order."""
        return list(self._samples)

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    async def now(self, label: str = "now") -> bool:
        """Take a sample at this moment; return False when no broker answers in time."""
        return await asyncio.wrap_future(self._ask(self._look_again(label)))

    def now_blocking(self, label: str = "now") -> bool:
        """As `now`, for a test that does not await."""
        return self._ask(self._look_again(label)).result(NOW_S + OPEN_S + LOOK_S)

    async def stop(self) -> None:
        """End the thread."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopped.set)
            await asyncio.to_thread(self._thread.join, STOP_S)
            assert not self._thread.is_alive(), "the commit sampler hangs"

    def _ask(self, work: Coroutine[Any, Any, bool]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._watch())
        finally:
            self._loop.close()

    async def _watch(self) -> None:
        while not self._stopped.is_set():
            await self._look()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), EVERY_S)
        async with self._lock:
            await self._close()

    async def _look_again(self, label: str) -> bool:
        ends_at_s = self._loop.time() + NOW_S
        while not await self._look(label):
            if self._loop.time() > ends_at_s or self._stopped.is_set():
                return False
            await asyncio.sleep(EVERY_S)
        return True

    async def _look(self, label: str = "") -> bool:
        async with self._lock:
            try:
                if self._eyes is None:
                    async with asyncio.timeout(OPEN_S):
                        self._eyes = await _Eyes.opened(self._servers, self._group, self._topic, self._outputs)
                async with asyncio.timeout(LOOK_S):
                    sample = await self._eyes.look(label)
            except (KafkaError, OSError, AssertionError):  # TimeoutError is an OSError; aiokafka asserts on bad answers
                await self._close()
                return False
        self.looks += 1
        if label or not self._samples or self._samples[-1].committed != sample.committed:
            self._samples.append(sample)
        return True

    async def _close(self) -> None:
        eyes, self._eyes = self._eyes, None
        if eyes is not None:
            await eyes.close()


class _Eyes:
    """Clients of the sampler's own, and what they ask."""

    def __init__(self, servers: str, group: str) -> None:
        self._group = group
        self._admin = AIOKafkaAdminClient(bootstrap_servers=servers, request_timeout_ms=int(LOOK_S * 1000))
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=servers, enable_auto_commit=False, request_timeout_ms=int(LOOK_S * 1000)
        )
        self._coordinator: int | None = None
        self._inputs: list[TopicPartition] = []
        self._outputs: dict[TopicPartition, tuple[Kind, int]] = {}

    @classmethod
    async def opened(cls, servers: str, group: str, topic: str, outputs: dict[Kind, str]) -> "_Eyes":
        eyes = cls(servers, group)
        try:
            await eyes._open(topic, outputs)
        except BaseException:
            await eyes.close()
            raise
        return eyes

    async def _open(self, topic: str, outputs: dict[Kind, str]) -> None:
        await self._admin.start()
        await self._consumer.start()
        counts = {
            told["topic"]: len(told["partitions"])
            for told in await self._admin.describe_topics([topic, *outputs.values()])
            if not told["error_code"]
        }
        self._inputs = [TopicPartition(topic, number) for number in range(counts.get(topic, 0))]
        self._outputs = {
            TopicPartition(outputs[kind], number): (kind, number)
            for kind in outputs
            for number in range(counts.get(outputs[kind], 0))
        }
        if not self._inputs:
            raise KafkaError(f"{topic} is not there yet")
        self._coordinator = await self._admin.find_coordinator(self._group)

    async def look(self, label: str) -> Sample:
        stored = await self._admin.list_consumer_group_offsets(self._group, self._coordinator, self._inputs)
        if len(stored) < len(self._inputs):  # aiokafka hides an error of the whole answer
            raise KafkaError("the coordinator did not answer")
        ends = await self._consumer.end_offsets(list(self._outputs))
        return Sample(
            committed={tp.partition: (at.offset, at.metadata or "") for tp, at in stored.items() if at.offset >= 0},
            ends={self._outputs[tp]: end for tp, end in ends.items()},
            label=label,
        )

    async def close(self) -> None:
        for client in (self._admin.close, self._consumer.stop):
            with contextlib.suppress(KafkaError, OSError):
                await asyncio.wait_for(client(), LOOK_S)


@contextlib.asynccontextmanager
async def sampling(
    servers: str, group: str, topic: str, task: str, *, defers: bool = False
) -> AsyncIterator[CommitSampler]:
    """Sample while the block runs, from before it until after it."""
    sampler = CommitSampler(servers, group, topic, task, defers=defers)
    sampler.start()
    try:
        assert await sampler.now("begin"), "no broker to sample"
        yield sampler
        await sampler.now("end")
    finally:
        await sampler.stop()
