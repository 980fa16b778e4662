"""Topics as a bystander sees them: written record by record, read back whole, and how far a group has committed.

For the demo, and for whoever has to account for a run: nothing here is on the worker's own path.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.structs import ConsumerRecord

from workers.records import Outgoing, Record
from workers.settings.model import Kafka
from workers.stream import clients

CLOSE_S = 5.0
MAX_BATCH_BYTES = 16_384  # aiokafka's default


class Writer:
    """Writes records without waiting for each; made by `writer`."""

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self._producer = producer
        self._confirmations: list[asyncio.Future[Any]] = []

    async def send(self, outgoing: Outgoing) -> None:
        """Hand the record over. It needs a key or a value (aiokafka refuses a tombstone without key).

        Raises:
            KafkaError: it was not taken.
        """
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
        """Return when the broker has confirmed every record so far; it waits as long as that takes.

        Raises:
            KafkaError: the broker refused one.
        """
        waited, self._confirmations = self._confirmations, []
        await asyncio.gather(*waited)


@asynccontextmanager
async def writer(kafka: Kafka) -> AsyncIterator[Writer]:
    """Open a `Writer`; on leaving, what is not confirmed yet gets 5 s.

    Raises:
        Exit: 69 when no broker answers within `startup_timeout_s`.
    """
    producer = clients.producer(kafka, max_batch_size_bytes=MAX_BATCH_BYTES)
    try:
        await clients.until_reachable(kafka, producer.start)
        yield Writer(producer)
    finally:
        await clients.quietly_closed(producer, CLOSE_S)


async def read_topics(kafka: Kafka, partitions: Mapping[str, int]) -> dict[str, list[Record]]:
    """Return what these topics (name: partitions) hold now, each partition in the order of its offsets.

    Waits for as long as the broker takes.
    """
    every = _partitions(partitions)
    async with _consumer(kafka) as consumer:
        consumer.assign(every)
        await consumer.seek_to_beginning()
        ends = await consumer.end_offsets(every)
        found: dict[TopicPartition, list[ConsumerRecord]] = {at: [] for at in every}
        # Positions, not records, tell the end: a gap may be the last thing in a partition.
        while [at for at in every if await consumer.position(at) < ends[at]]:
            for at, records in (await consumer.getmany(timeout_ms=200)).items():
                found[at] += [record for record in records if record.offset < ends[at]]
    read: dict[str, list[Record]] = {topic: [] for topic in partitions}
    for at in every:
        read[at.topic] += map(_record, found[at])
    return read


@asynccontextmanager
async def lag_reader(kafka: Kafka, partitions: Mapping[str, int]) -> AsyncIterator["LagReader"]:
    """Open a `LagReader` for the group of `kafka`; it does not join the group."""
    async with _consumer(kafka, group_id=kafka.group_id) as consumer:
        every = _partitions(partitions)
        consumer.assign(every)
        yield LagReader(consumer, every)


class LagReader:
    """Asks the broker how far a group is; made by `lag_reader`."""

    def __init__(self, consumer: AIOKafkaConsumer, partitions: list[TopicPartition]) -> None:
        self._consumer = consumer
        self._partitions = partitions

    async def records(self) -> int:
        """Return how many offsets lie between what the group has committed and the ends of its topics.

        Raises:
            KafkaError: the broker does not tell; retryable.
        """
        ends = await self._consumer.end_offsets(self._partitions)
        return sum([ends[at] - (await self._consumer.committed(at) or 0) for at in self._partitions])


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
    finally:
        await clients.quietly_closed(consumer, CLOSE_S)


def _partitions(partitions: Mapping[str, int]) -> list[TopicPartition]:
    return [TopicPartition(topic, number) for topic, count in partitions.items() for number in range(count)]


def _record(read: ConsumerRecord) -> Record:
    return Record(read.topic, read.partition, read.offset, read.timestamp, read.key, read.value, list(read.headers))
