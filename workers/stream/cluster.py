"""What the worker must know of the cluster before it joins: topics, their limits, and where a group begins."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import CommitFailedError, GroupCoordinatorNotAvailableError, KafkaError, for_code

from workers.errors import EX_CONFIG, Exit
from workers.log import get_logger
from workers.settings.model import Kafka
from workers.stream import clients
from workers.stream.survey import partition_counts

DEFAULT_MAX_MESSAGE_BYTES = 1_048_588
"""Kafka's default `max.message.bytes`, for a cluster that does not tell (no DESCRIBE_CONFIGS, the embedded broker)."""

SETTLE_S = 10.0
"""aiokafka asks a coordinator that is away without end; after this long, `startup_timeout_s` has a say."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Cluster:
    """Partitions by topic, and `max.message.bytes` of the outputs."""

    cluster_id: str
    partitions: dict[str, int]
    max_bytes: dict[str, int]


async def look_at(kafka: Kafka, inputs: Iterable[str], outputs: Iterable[str]) -> Cluster:
    """Return what the cluster says of these topics.

    Raises:
        Exit: 78 when a topic is missing, with its name and what to do; 69 when no broker answers in time.
    """
    written = sorted(set(outputs))
    names = sorted({*inputs, *written})

    async def look() -> Cluster:
        admin = await clients.open_admin(kafka)
        try:
            partitions = await partition_counts(kafka, names)
            cluster = await admin.describe_cluster()
            limits = await _max_message_bytes(admin, written)
        finally:
            await clients.quietly_closed(admin, 2.0)
        return Cluster(cluster.get("cluster_id") or "", partitions, limits)

    found = await clients.until_reachable(kafka, look)
    if missing := [name for name in names if not found.partitions.get(name)]:
        raise Exit(
            EX_CONFIG,
            f"no such topic: {', '.join(missing)}; create it, or run `penstock topics create CONFIG`"
            " (also shown for a topic that this user may not DESCRIBE)",
        )
    return found


async def _max_message_bytes(admin: AIOKafkaAdminClient, names: list[str]) -> dict[str, int]:
    """Read the topics' own limits; a cluster that does not tell is taken at Kafka's default."""
    limits = dict.fromkeys(names, DEFAULT_MAX_MESSAGE_BYTES)
    try:
        responses = await admin.describe_configs(
            [ConfigResource(ConfigResourceType.TOPIC, name, {"max.message.bytes": None}) for name in names]
        )
    except (KafkaError, OSError) as exc:
        log.info("topic_limits_unknown", error=type(exc).__name__, assumed_bytes=DEFAULT_MAX_MESSAGE_BYTES)
        return limits
    for response in responses:
        for resource in response.resources:
            error_code, _, _, name, entries = resource[:5]
            if error_code:
                error = for_code(error_code).__name__
                log.warning("topic_limits_unknown", topic=name, error=error, assumed_bytes=limits[name])
                continue
            for value in _values(entries, "max.message.bytes"):
                limits[name] = int(value)
    return limits


def _values(entries: Iterable[Any], name: str) -> list[str]:
    return [entry[1] for entry in entries if entry[0] == name and entry[1]]


async def settle_start(kafka: Kafka, inputs: Iterable[str], partitions: dict[str, int]) -> None:
    """Give a group that has no offset in a topic its `start: latest`, before anyone joins.

    After joining it would be a guess: a partition without an offset may belong to a new group, or may have been added
    later and then begins at its beginning. A group with members refuses this commit, and has begun already.
    """
    if kafka.start != "latest":
        return

    async def settle() -> None:
        consumer = _observer(kafka)
        try:
            async with asyncio.timeout(SETTLE_S):
                await consumer.start()
                for topic in inputs:
                    await _begin_at_the_end(consumer, [TopicPartition(topic, n) for n in range(partitions[topic])])
        except TimeoutError as exc:
            raise GroupCoordinatorNotAvailableError("no answer to what the group has committed") from exc
        finally:
            await clients.quietly_closed(consumer, 5.0)

    try:
        await clients.until_reachable(kafka, settle)
    except CommitFailedError:
        log.info("start_not_settled", reason="the group has members, so it has begun")


async def answers(kafka: Kafka, inputs: Iterable[str], partitions: dict[str, int]) -> None:
    """Ask a fresh client what the worker's own asks all the time: where partitions end, and what the group committed.

    Not bounded: aiokafka asks a coordinator that is away without end.

    Raises:
        KafkaError: the cluster cannot be reached or does not answer; retryable.
    """
    every = [TopicPartition(topic, number) for topic in inputs for number in range(partitions[topic])]
    consumer = _observer(kafka)
    try:
        await consumer.start()
        consumer.assign(every)
        await consumer.end_offsets(every)
        await consumer.committed(every[0])
    finally:
        await clients.quietly_closed(consumer, 5.0)


def _observer(kafka: Kafka) -> AIOKafkaConsumer:
    """Return a consumer, not started, that sees and writes the group's offsets and never joins it."""
    return AIOKafkaConsumer(
        **clients.client_options(kafka), group_id=kafka.group_id, enable_auto_commit=False, auto_offset_reset="none"
    )


async def _begin_at_the_end(consumer: AIOKafkaConsumer, every: list[TopicPartition]) -> None:
    """Commit the ends of a topic in which the group has no offset, in one request."""
    consumer.assign(every)
    for tp in every:
        if await consumer.committed(tp) is not None:
            return
    await consumer.commit(await consumer.end_offsets(every))
    log.info("group_begins_at_latest", topic=every[0].topic, partitions=len(every))
