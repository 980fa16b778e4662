"""Topics as a bystander sees them: written record by record, read back whole, and how far a group has committed.

For the demo and the audit, and for whoever has to account for a run: nothing here is on the worker's own path.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import GroupCoordinatorNotAvailableError, KafkaError
from aiokafka.structs import ConsumerRecord

from workers.clock import monotonic_s
from workers.errors import EX_CONFIG, EX_UNAVAILABLE, Exit
from workers.records import Outgoing, Record
from workers.settings.model import Kafka
from workers.stream import clients

CLOSE_S = 5.0
LAG_EVERY_S = 0.2
MAX_BATCH_BYTES = 16_384  # aiokafka's default


class Writer:
    """Writes records without waiting for each; made by `writer`, which translates what goes wrong."""

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self._producer = producer
        self._confirmations: list[asyncio.Future[Any]] = []

    async def send(self, outgoing: Outgoing) -> None:
        """Hand the record over. It needs a key or a value (aiokafka refuses a tombstone without key)."""
        self._confirmations.append(
            await self._producer.send(
                outgoing.topic,
                outgoing.value,
                key=outgoing.key,
                partition=outgoing.partition,
                headers=outgoing.headers,
                timestamp_ms=outgoing.timestamp_ms,
            )
        )

    async def confirmed(self) -> None:
        """Return when the broker has confirmed every record so far; it waits as long as that takes."""
        waited, self._confirmations = self._confirmations, []
        await asyncio.gather(*waited)


@asynccontextmanager
async def writer(kafka: Kafka) -> AsyncIterator[Writer]:
    """Open a `Writer`; on leaving, what is not confirmed yet gets 5 s.

    Raises:
        Exit: 69 when no broker answers within `startup_timeout_s`, or it refuses a record.
    """
    producer = clients.producer(kafka, max_batch_size_bytes=MAX_BATCH_BYTES)
    try:
        await clients.until_reachable(kafka, producer.start)
        yield Writer(producer)
    except KafkaError as exc:
        raise Exit(EX_UNAVAILABLE, f"the broker did not take what was written to it: {type(exc).__name__}") from exc
    finally:
        await clients.quietly_closed(producer, CLOSE_S)


class Reader:
    """Reads topics without a group, committed transactions only; made by `reader`, which translates what goes wrong."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer

    async def begins(self, topic: str, partitions: int) -> dict[int, int]:
        """Return the first offset that each partition still has."""
        found = await self._consumer.beginning_offsets(_partitions({topic: partitions}))
        return {at.partition: offset for at, offset in found.items()}

    async def ends(self, topic: str, partitions: int) -> dict[int, int]:
        """Return where each partition ends now."""
        found = await self._consumer.end_offsets(_partitions({topic: partitions}))
        return {at.partition: offset for at, offset in found.items()}

    async def each(self, topic: str, ends: Mapping[int, int], take: Callable[[Record], None]) -> None:
        """Hand over every record below these ends, each partition in the order of its offsets, as it is read.

        Waits for as long as the broker takes.
        """
        left = {TopicPartition(topic, number): end for number, end in ends.items()}
        self._consumer.assign([*left])
        await self._consumer.seek_to_beginning()
        while left:
            for at, records in (await self._consumer.getmany(timeout_ms=200)).items():
                for record in records:
                    if record.offset < ends[at.partition]:
                        take(_record(record))
            # Positions, not records, tell the end: a gap may be the last thing in a partition.
            for at in [at for at, end in left.items() if await self._consumer.position(at) >= end]:
                del left[at]
                self._consumer.pause(at)


@asynccontextmanager
async def reader(kafka: Kafka) -> AsyncIterator[Reader]:
    """Open a `Reader`.

    Raises:
        Exit: 69 when no broker answers within `startup_timeout_s`, or it refuses to tell; 78 when a right is missing.
    """
    async with _consumer(kafka) as consumer:
        yield Reader(consumer)


async def read_topics(kafka: Kafka, partitions: Mapping[str, int]) -> dict[str, list[Record]]:
    """Return what these topics (name: partitions) hold now, each partition in the order of its offsets.

    Waits for as long as the broker takes.

    Raises:
        Exit: as `reader`.
    """
    read: dict[str, list[Record]] = {topic: [] for topic in partitions}
    async with reader(kafka) as of:
        for topic, count in partitions.items():
            await of.each(topic, await of.ends(topic, count), read[topic].append)
            read[topic].sort(key=lambda record: record.partition)
    return read


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """What a group has committed: offset and metadata by partition, those without a commit left out."""

    cluster_id: str
    offsets: Mapping[int, tuple[int, str]]


async def committed(kafka: Kafka, topic: str, partitions: int) -> Committed:
    """Return what the group of `kafka` has committed for a topic, as the broker has it now.

    Raises:
        Exit: 69 when no broker answers within `startup_timeout_s`, 78 when a right is missing.
    """
    every = _partitions({topic: partitions})

    async def ask() -> Committed:
        admin = await clients.open_admin(kafka)
        try:
            cluster = await admin.describe_cluster()
            found = await admin.list_consumer_group_offsets(kafka.group_id, partitions=every)
        finally:
            await clients.quietly_closed(admin, CLOSE_S)
        if not found.keys() >= set(every):  # aiokafka hides an error of the whole answer
            raise GroupCoordinatorNotAvailableError
        told = {at.partition: (one.offset, one.metadata or "") for at, one in found.items() if one.offset >= 0}
        return Committed(cluster_id=cluster.get("cluster_id") or "", offsets=told)

    try:
        return await clients.until_reachable(kafka, ask)
    except KafkaError as exc:
        raise Exit(EX_UNAVAILABLE, f"the broker does not tell what was committed: {type(exc).__name__}") from exc


async def lag_when_settled(kafka: Kafka, partitions: Mapping[str, int], *, timeout_s: float) -> int | None:
    """Return the lag of the group of `kafka` as the broker has it: as soon as it is 0, else after `timeout_s`.

    Lag is the number of offsets between what the group has committed and the ends of these topics; None: the broker
    did not tell. It is asked once at least, however long it took to reach it.
    """
    every = _partitions(partitions)
    lag = None
    async with _consumer(kafka, group_id=kafka.group_id) as consumer:
        consumer.assign(every)  # by hand: it does not join the group
        ends_at_s = monotonic_s() + timeout_s
        while True:
            with contextlib.suppress(KafkaError):
                lag = await _lag(consumer, every)
            if lag == 0 or monotonic_s() >= ends_at_s:
                return lag
            await asyncio.sleep(LAG_EVERY_S)


async def _lag(consumer: AIOKafkaConsumer, every: list[TopicPartition]) -> int:
    ends = await consumer.end_offsets(every)
    return sum([ends[at] - (await consumer.committed(at) or 0) for at in every])


@asynccontextmanager
async def _consumer(kafka: Kafka, group_id: str | None = None) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(
        **clients.client_options(kafka),
        group_id=group_id,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        fetch_max_wait_ms=100,
    )
    try:
        await clients.until_reachable(kafka, consumer.start)
        yield consumer
    except clients.REFUSED_RIGHTS as exc:
        raise Exit(EX_CONFIG, f"this user may not read {exc}: grant READ") from exc
    except KafkaError as exc:
        raise Exit(EX_UNAVAILABLE, f"the broker does not let us read: {type(exc).__name__}") from exc
    finally:
        await clients.quietly_closed(consumer, CLOSE_S)


def _partitions(partitions: Mapping[str, int]) -> list[TopicPartition]:
    return [TopicPartition(topic, number) for topic, count in partitions.items() for number in range(count)]


def _record(read: ConsumerRecord) -> Record:
    return Record(read.topic, read.partition, read.offset, read.timestamp, read.key, read.value, list(read.headers))
