"""Topics as the cluster has them, and making those that are missing. For `penstock topics` and `dry-run`."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import IncompatibleBrokerVersion, for_code

from topics.spec import TopicSpec
from workers.clock import monotonic_s
from workers.errors import EX_CONFIG, Exit
from workers.settings.model import Kafka
from workers.stream import clients
from workers.stream.survey import partition_counts

TOPIC_ALREADY_EXISTS = 36  # Kafka protocol guide, error codes
_CREATE_TIMEOUT_MS = 15_000
SEEN_WITHIN_S = 10.0
"""Bounded, for a topic that this user may create and not DESCRIBE is never seen."""
SEEN_EVERY_S = 0.05
_READ_CONFIGS = {"max.message.bytes": None, "cleanup.policy": None, "retention.ms": None}


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicState:
    """One topic as it is; what the cluster does not tell (no DESCRIBE_CONFIGS right) is None.

    `retention_s` below 0 is for ever.
    """

    partitions: int
    max_message_bytes: int | None = None
    cleanup_policy: str | None = None
    retention_s: float | None = None


async def describe(kafka: Kafka, names: Iterable[str]) -> dict[str, TopicState]:
    """Return the topics that exist and that we may DESCRIBE.

    Raises:
        Exit: 69 when no broker answers within `startup_timeout_s`.
    """
    wanted = sorted(set(names))

    async def look() -> dict[str, TopicState]:
        admin = await clients.open_admin(kafka)
        try:
            counts = await partition_counts(kafka, wanted)
            configs = await _configs(admin, sorted(counts))
        finally:
            await clients.quietly_closed(admin, 2.0)
        return {name: _state(count, configs.get(name, {})) for name, count in counts.items()}

    return await clients.until_reachable(kafka, look)


def _state(partitions: int, configs: Mapping[str, str]) -> TopicState:
    limit, retention_ms = configs.get("max.message.bytes"), configs.get("retention.ms")
    return TopicState(
        partitions=partitions,
        max_message_bytes=int(limit) if limit else None,
        cleanup_policy=configs.get("cleanup.policy"),
        retention_s=int(retention_ms) / 1000 if retention_ms else None,
    )


async def _configs(admin: AIOKafkaAdminClient, names: list[str]) -> dict[str, dict[str, str]]:
    """Return the settings in force by topic; a topic whose settings we may not read is left out."""
    if not names:
        return {}
    resources = [ConfigResource(ConfigResourceType.TOPIC, name, _READ_CONFIGS) for name in names]
    found: dict[str, dict[str, str]] = {}
    try:
        responses = await admin.describe_configs(resources)
    except (IncompatibleBrokerVersion, NotImplementedError):  # the embedded broker
        return {}
    for response in responses:
        for error_code, _, _, name, entries, *_ in response.resources:
            if not error_code:
                found[name] = {entry[0]: entry[1] for entry in entries if entry[1] is not None}
    return found


async def create(kafka: Kafka, specs: Iterable[TopicSpec], replication_factor: int) -> None:
    """Create topics and return when they are there; one that exists by now is fine.

    Raises:
        Exit: 78 when the cluster refuses one (rights, replication factor, name), 69 when no broker answers.
    """
    default = replication_factor == -1  # aiokafka insists on an assignment then: an empty one leaves it to the broker
    topics = [
        NewTopic(spec.name, spec.partitions, replication_factor, {} if default else None, spec.configs())
        for spec in specs
    ]

    async def make() -> list[str]:
        admin = await clients.open_admin(kafka)
        try:
            response = await admin.create_topics(topics, timeout_ms=_CREATE_TIMEOUT_MS)
        finally:
            await clients.quietly_closed(admin, 2.0)
        return [
            f"{name}: {for_code(code).__name__} {' '.join(str(text) for text in said if text)}".strip()
            for name, code, *said in response.topic_errors
            if code not in (0, TOPIC_ALREADY_EXISTS)
        ]

    if refused := await clients.until_reachable(kafka, make):
        raise Exit(EX_CONFIG, "not created: " + "; ".join(refused))
    await clients.until_reachable(kafka, partial(_seen, kafka, {topic.name for topic in topics}))


async def _seen(kafka: Kafka, names: set[str]) -> None:
    """Wait until the cluster knows the topics: a controller answers before the brokers have heard of them."""
    ends_at_s = monotonic_s() + SEEN_WITHIN_S
    while True:
        if not names - (await partition_counts(kafka, names)).keys() or monotonic_s() >= ends_at_s:
            return
        await asyncio.sleep(SEEN_EVERY_S)
