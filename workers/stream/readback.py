"""Topics as a bystander sees them: written record by record, read back whole, and how far a group has committed.

For the demo, and for whoever has to account for a run: nothing here is on the worker's own path.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import ConsumerRecord

from workers.clock import monotonic_s
from workers.errors import EX_UNAVAILABLE, Exit
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


async def read_topics(kafka: Kafka, partitions: Mapping[str, int]) -> dict[str, list[Record]]:
    """Return what these topics (name: partitions) hold now, each partition in the order of its offsets.

    Waits for as long as the broker takes.

    Raises:
        Exit: 69 when no broker answers within `startup_timeout_s`, or it refuses to tell.
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


async def lag_when_settled(kafka: Kafka, partitions: Mapping[str, int], *, timeout_s: float) -> int | None:
    """Return the lag of the group of `kafka` as the broker has it: as soon as it is 0, else after `timeout_s`.

    Lag is the number of offsets between what the group has committed and the ends of these topics; None: the broker
    did not tell.
    """
    every = _partitions(partitions)
    ends_at_s = monotonic_s() + timeout_s
    lag = None
    async with _consumer(kafka, group_id=kafka.group_id) as consumer:
        consumer.assign(every)  # by hand: it does not join the group
        while lag != 0 and monotonic_s() < ends_at_s:
            with contextlib.suppress(KafkaError):
                lag = await _lag(consumer, every)
            await asyncio.sleep(LAG_EVERY_S if lag else 0)
    return lag


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
    except KafkaError as exc:
        raise Exit(EX_UNAVAILABLE, f"the broker does not let us read: {type(exc).__name__}") from exc
    finally:
        await clients.quietly_closed(consumer, CLOSE_S)


def _partitions(partitions: Mapping[str, int]) -> list[TopicPartition]:
    return [TopicPartition(topic, number) for topic, count in partitions.items() for number in range(count)]


def _record(read: ConsumerRecord) -> Record:
    return Record(read.topic, read.partition, read.offset, read.timestamp, read.key, read.value, list(read.headers))
