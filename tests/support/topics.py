"""What a test writes to topics and reads back from them, on a real or an embedded broker, with plain aiokafka."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, for_code
from aiokafka.structs import ConsumerRecord, TopicPartition

READ_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class New:
    """A record to be produced. `partition` None: by the key, or any; `timestamp_ms` None: now."""

    key: bytes | None = None
    value: bytes | None = None
    headers: Sequence[tuple[str, bytes]] = ()
    partition: int | None = None
    timestamp_ms: int | None = None


def fresh_name(prefix: str) -> str:
    """Return a topic or group name that no other test uses: the brokers outlive a test."""
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


async def produce(bootstrap_servers: str, topic: str, records: Iterable[New]) -> None:
    """Write the records in this order and return when the broker has confirmed all of them."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap_servers, enable_idempotence=True, linger_ms=2)
    await producer.start()
    try:
        confirmations = [await _send(producer, topic, record) for record in records]
        await asyncio.wait_for(asyncio.gather(*confirmations), READ_S)
    finally:
        await producer.stop()


async def _send(producer: AIOKafkaProducer, topic: str, record: New) -> Any:
    if record.key is None and record.value is None:
        return await _send_keyless_tombstone(producer, topic, record)
    return await producer.send(
        topic,
        value=record.value,
        key=record.key,
        partition=record.partition,
        timestamp_ms=record.timestamp_ms,
        headers=list(record.headers),
    )


async def _send_keyless_tombstone(producer: AIOKafkaProducer, topic: str, record: New) -> Any:
    """`send` asserts that a record has a key or a value; a batch of one has no such rule."""
    batch = producer.create_batch()
    batch.append(key=None, value=None, timestamp=record.timestamp_ms, headers=list(record.headers))
    batch.close()
    return await producer.send_batch(batch, topic, partition=record.partition or 0)


async def read_all(bootstrap_servers: str, topic: str) -> list[ConsumerRecord]:
    """Return what the topic holds now, committed transactions only, each partition in the order of its offsets."""
    partitions = await _with_admin(bootstrap_servers, partial(_partitions, topics=[topic]))
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap_servers,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        fetch_max_wait_ms=100,
    )
    await consumer.start()
    try:
        return await asyncio.wait_for(_read_to_the_end(consumer, partitions), READ_S)
    finally:
        await consumer.stop()


async def _read_to_the_end(consumer: AIOKafkaConsumer, partitions: list[TopicPartition]) -> list[ConsumerRecord]:
    consumer.assign(partitions)
    await consumer.seek_to_beginning()
    ends = await consumer.end_offsets(partitions)
    found: dict[TopicPartition, list[ConsumerRecord]] = {partition: [] for partition in partitions}
    # Positions, not records, tell the end: a gap may be the last thing in a partition.
    while [each for each in partitions if await consumer.position(each) < ends[each]]:
        for partition, records in (await consumer.getmany(timeout_ms=200)).items():
            found[partition] += [record for record in records if record.offset < ends[partition]]
    return [record for partition in partitions for record in found[partition]]


async def ends(bootstrap_servers: str, topic: str) -> dict[int, int]:
    """Return the end offset of each partition, as a reader of committed transactions sees it."""
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=bootstrap_servers, enable_auto_commit=False, isolation_level="read_committed"
    )
    await consumer.start()
    try:
        found = await consumer.end_offsets(consumer.assignment())
    finally:
        await consumer.stop()
    return {at.partition: offset for at, offset in found.items()}


async def committed(bootstrap_servers: str, group: str, topics: Iterable[str]) -> dict[TopicPartition, tuple[int, str]]:
    """Return (next offset, metadata) of every partition for which the group has committed."""
    stored = await _with_admin(bootstrap_servers, partial(_group_offsets, group=group, topics=list(topics)))
    return {partition: (at.offset, at.metadata or "") for partition, at in stored.items() if at.offset >= 0}


async def members(bootstrap_servers: str, group: str) -> int:
    """Return how many members the group has now."""
    [answer] = await _with_admin(bootstrap_servers, lambda admin: admin.describe_consumer_groups([group]))
    return len(answer.groups[0][5])


async def _partitions(admin: AIOKafkaAdminClient, topics: list[str]) -> list[TopicPartition]:
    found = []
    for topic in await admin.describe_topics(topics):
        if topic["error_code"]:
            raise for_code(topic["error_code"])(topic["topic"])
        found += sorted(TopicPartition(topic["topic"], each["partition"]) for each in topic["partitions"])
    return found


async def _group_offsets(admin: AIOKafkaAdminClient, group: str, topics: list[str]) -> Any:
    return await admin.list_consumer_group_offsets(group, partitions=await _partitions(admin, topics))


async def _with_admin(bootstrap_servers: str, ask: Callable[[AIOKafkaAdminClient], Awaitable[Any]]) -> Any:
    """Ask, and ask again: the admin client does not wait for a coordinator or a leader that is still being made."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await admin.start()
    ends_at_s = time.monotonic() + READ_S
    try:
        while True:
            try:
                return await ask(admin)
            except KafkaError as error:
                if not error.retriable or time.monotonic() > ends_at_s:
                    raise
                await asyncio.sleep(0.1)
    finally:
        await admin.close()
