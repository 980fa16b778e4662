"""The stream side in memory: a consumer over scripted logs, a sink that keeps what it gets, and an intake over both.

Nothing here waits for time: a test assigns and revokes when it wants to, and each seam can be held with an event.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, OffsetOutOfRangeError

from tests.support.scripted_model import ScriptedModel
from tests.support.wire import make_task
from workers.records import Outgoing
from workers.settings.model import Kafka, Settings, Worker
from workers.settings.servers import ModelSettings
from workers.settings.slots import window_of
from workers.stream.assignment import Assignment
from workers.stream.commits import Commits
from workers.stream.feed import Feed
from workers.stream.intake import Intake
from workers.stream.lane import Lane
from workers.stream.ledger import Ledger
from workers.stream.offsets import Offsets
from workers.stream.window import Delivery, Window
from workers.task import Task

BOUND_S = 30.0
TOPIC = "in"
RETRY_TOPIC = "in.ticket_triage.retry"


@dataclass(frozen=True, slots=True)
class Fetched:
    """A record as the consumer gives it."""

    offset: int
    key: bytes | None = None
    value: bytes | None = b"{}"
    timestamp: int = 1_767_225_599_000
    headers: Sequence[tuple[str, bytes | None]] = ()


class MemorySink:
    """Keeps what is sent. While `gate` is cleared, sends run and do not end; `refusals` are raised one by one."""

    def __init__(self, *refusals: Exception) -> None:
        self.partitions: Mapping[str, int] = {}
        self.sent: list[Outgoing] = []
        self.refusals = deque(refusals)
        self.gate = asyncio.Event()
        self.gate.set()

    async def send(self, outgoing: Outgoing) -> None:
        """Confirm, or refuse as the script says."""
        await self.gate.wait()
        await asyncio.sleep(0)
        if self.refusals:
            raise self.refusals.popleft()
        self.sent.append(outgoing)

    def sources(self) -> list[str]:
        """Return the origin of each output, in the order of confirmation."""
        return [dict(one.headers)["__penstock.source"].decode() for one in self.sent]  # type: ignore[union-attr]


class LogConsumer:
    """A group's only member. Its position moves as records are given; offsets out of a log's range are an error.

    `fetch_gate` holds fetches from at least `held_from` partitions.
    """

    _coordinator = None
    """No group to leave."""

    def __init__(self) -> None:
        self.logs: dict[TopicPartition, list[Fetched]] = {}
        self.first: dict[TopicPartition, int] = {}
        self.end: dict[TopicPartition, int] = {}
        self.stored: dict[TopicPartition, tuple[int, str]] = {}
        self.positions: dict[TopicPartition, int] = {}
        self.errors: deque[Exception] = deque()
        self.fetches = 0
        self.held, self.held_from = 0, 1
        self.fetch_gate = asyncio.Event()
        self.fetch_gate.set()
        self.refuses = False
        self.stopped = False

    def write(self, tp: TopicPartition, *records: Fetched) -> None:
        """Append to a log."""
        self.logs.setdefault(tp, []).extend(records)
        self.first.setdefault(tp, records[0].offset if records else 0)
        self.end[tp] = max(self.end.get(tp, 0), records[-1].offset + 1 if records else 0)

    def assign(self, tps: Iterable[TopicPartition]) -> None:
        """Begin an assignment as aiokafka does: at the committed offsets, before any callback ran."""
        self.positions = {tp: self.stored.get(tp, (self.first.get(tp, 0), ""))[0] for tp in tps}

    async def getmany(
        self, *tps: TopicPartition, timeout_ms: int = 0, max_records: int = 1
    ) -> dict[TopicPartition, list[Fetched]]:
        """Give what is there; while `fetch_gate` is cleared nothing comes back."""
        self.fetches += 1
        if len(tps) >= self.held_from:
            self.held += 1
            await self.fetch_gate.wait()
            self.held -= 1
        if self.errors:
            raise self.errors.popleft()
        given: dict[TopicPartition, list[Fetched]] = {}
        for tp in tps:
            if tp not in self.positions:
                continue
            position = self.positions[tp]
            if not self.first.get(tp, 0) <= position <= self.end.get(tp, 0):
                raise OffsetOutOfRangeError({tp: position})
            found = [record for record in self.logs.get(tp, []) if record.offset >= position][:max_records]
            if found:
                given[tp] = found
            self.positions[tp] = found[-1].offset + 1 if found else max(position, self.end.get(tp, 0))
        if not given:
            await asyncio.sleep(min(timeout_ms / 1000, 0.005))
        return given

    def seek(self, tp: TopicPartition, offset: int) -> None:
        """Move the position."""
        if tp not in self.positions:
            raise IllegalStateError(f"{tp} is not assigned")
        self.positions[tp] = offset

    async def position(self, tp: TopicPartition) -> int:
        """Return where the next fetch begins."""
        if tp not in self.positions:
            raise IllegalStateError(f"{tp} is not assigned")
        return self.positions[tp]

    async def beginning_offsets(self, tps: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Return where the logs begin."""
        return {tp: self.first.get(tp, 0) for tp in tps}

    async def end_offsets(self, tps: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Return where the logs end."""
        return {tp: self.end.get(tp, 0) for tp in tps}

    def partitions_for_topic(self, topic: str) -> set[int]:
        """Return the partitions that have a log."""
        return {tp.partition for tp in self.logs if tp.topic == topic}

    async def commit(self, offsets: dict[TopicPartition, tuple[int, str]]) -> None:
        """Store offsets and metadata, unless it `refuses`."""
        await asyncio.sleep(0)
        if self.refuses:
            raise CommitFailedError
        self.stored.update(offsets)

    async def stop(self) -> None:
        """Leave."""
        self.stopped = True


class MemoryOffsets(Offsets):
    """Reads commits from the consumer instead of an admin client."""

    load_gate: asyncio.Event

    async def committed(self, assigned: list[TopicPartition]) -> dict[TopicPartition, tuple[int, str]]:
        """Return what is stored, once the gate is open."""
        await self.load_gate.wait()
        return {tp: self._consumer.stored.get(tp, (-1, "")) for tp in assigned}


class MemoryAssignment(Assignment):
    """An assignment over memory; `load_gate` holds up the reading of commits."""

    def __init__(self, settings: Settings, consumer: LogConsumer, feeds: Mapping[str, Feed], commits: Commits) -> None:
        super().__init__(settings, consumer, feeds, commits)
        self.load_gate = asyncio.Event()
        self.load_gate.set()
        self.offsets = offsets = MemoryOffsets(settings.kafka, consumer, commits)
        offsets.load_gate = self.load_gate


@dataclass
class Rig:
    """One task over one topic, in memory. `async with` runs the pump.

    `kafka`, `worker` and `task` are settings that differ, `compiled` what differs in the compiled task.
    """

    model: ScriptedModel = field(default_factory=ScriptedModel)
    sink: MemorySink = field(default_factory=MemorySink)
    kafka: dict[str, Any] = field(default_factory=dict)
    worker: dict[str, Any] = field(default_factory=dict)
    task: dict[str, Any] = field(default_factory=dict)
    compiled: dict[str, Any] = field(default_factory=dict)
    channel_max_batches: int = 0

    async def __aenter__(self) -> Self:
        settings = rig_settings(self.kafka, self.worker)
        self.lane_task = replace(memory_task(self.model, **self.task), **self.compiled)
        limits = self.lane_task.settings
        window = Window(max_in_flight=window_of(limits, {}), max_bytes=1 << 24, max_span=limits.max_span)
        self.window = window
        self.failures: list[Exception] = []
        self.lane = Lane(self.lane_task, window, self.sink, self.failures.append)
        self.consumer = LogConsumer()
        self.channel: asyncio.Queue[list[Delivery]] = asyncio.Queue(self.channel_max_batches)
        self.channel_gate = asyncio.Event()
        self.channel_gate.set()
        feed = Feed(self.lane, self.channel.put, self.channel.qsize)
        retries = dict.fromkeys(self.lane_task.retry_topics(), replace(feed, delay_s=limits.retry_delay_s))
        self.commits = Commits(self.consumer, "cluster")
        self.assignment = MemoryAssignment(settings, self.consumer, {TOPIC: feed, **retries}, self.commits)
        self.intake = Intake(self.consumer, self.assignment)
        self._tasks = [asyncio.create_task(self.intake.pump()), asyncio.create_task(self._agent())]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.assignment.stop()
        self.lane.abandon()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.assignment.failure.done():
            self.assignment.failure.exception()

    async def _agent(self) -> None:
        while True:
            batch = await self.channel.get()
            await self.channel_gate.wait()
            self.lane.start(batch)

    @property
    def pump(self) -> "asyncio.Task[None]":
        """The running pump."""
        return self._tasks[0]

    def write(self, partition: int, offsets: Iterable[int], key: bytes | None = None) -> None:
        """Append records to a partition's log."""
        self.consumer.write(TopicPartition(TOPIC, partition), *(Fetched(offset, key) for offset in offsets))

    async def assign(self, *partitions: int, retry: Iterable[int] = (), settle: bool = True) -> None:
        """Begin a generation with these partitions, `retry` of the retry topic; wait until it is ready."""
        tps = [TopicPartition(TOPIC, partition) for partition in partitions]
        tps += [TopicPartition(RETRY_TOPIC, partition) for partition in retry]
        self.consumer.assign(tps)
        await self.assignment.on_partitions_assigned(tps)
        if settle:
            await until(lambda: self.assignment.settled)

    async def revoke(self) -> None:
        """End the generation."""
        await self.assignment.on_partitions_revoked(list(self.consumer.positions))

    def ledger(self, partition: int) -> Ledger:
        """The ledger of a partition now."""
        return self.assignment.ledgers[TopicPartition(TOPIC, partition)]

    def position(self, partition: int) -> int:
        """What was committed for a partition, -1 for nothing."""
        return self.consumer.stored.get(TopicPartition(TOPIC, partition), (-1, ""))[0]

    async def commit(self) -> None:
        """Commit what changed."""
        await self.commits.commit(list(self.assignment.ledgers.values()))

    def offsets_done(self, partition: int = 0) -> list[int]:
        """The offsets of this partition whose output was confirmed, in that order."""
        parts = [source.split("/") for source in self.sink.sources()]
        return [int(offset) for _, number, offset in parts if int(number) == partition]


def memory_task(model: ScriptedModel, **settings: Any) -> Task:
    """Return a task over `TOPIC` whose prompt is the record's offset and whose answer is any text."""
    task = make_task(inputs=(TOPIC,), **settings)
    return replace(task, model=model, render=lambda **seen: str(seen["kafka_offset"]))


def rig_settings(kafka: dict[str, Any], worker: dict[str, Any]) -> Settings:
    """Return settings with what the intake reads of them."""
    return Settings.model_construct(
        kafka=Kafka.model_validate({"bootstrap_servers": "nowhere:1", "group_id": "g", **kafka}),
        worker=Worker.model_validate({"revoke_wait_s": 0.05, **worker}),
        models={"small": ModelSettings(model="m", url="http://nowhere")},
        tasks={},
    )


async def until(condition: Any) -> None:
    """Wait until the condition holds, however loaded the machine is."""
    async with asyncio.timeout(BOUND_S):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.001)
