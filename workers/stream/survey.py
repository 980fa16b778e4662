"""What the cluster lets this user see and do, asked without leaving anything behind: no member, no commit, no record.

The rights of a user come from the authorized-operations fields of KIP-430 (Kafka 2.3), where the broker fills them.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import BrokerResponseError, IncompatibleBrokerVersion, KafkaError, NoError, for_code
from aiokafka.protocol.transaction import InitProducerIdRequest

from workers.errors import EX_UNAVAILABLE, Exit
from workers.settings.model import Kafka
from workers.stream import clients
from workers.stream.rights_requests import DescribeGroup, DescribeTopics

READ, WRITE, DESCRIBE = 3, 4, 8
"""Bits of an authorized-operations field: the codes of org.apache.kafka.common.acl.AclOperation."""

_NOT_TOLD = -(1 << 31)
_GROUP = 0
_RETRIES = 20
_RETRY_S = 0.25

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicSeen:
    """One topic as Metadata tells. `error` is Kafka's name of a refusal, '' for none; `rights` None: not told."""

    partitions: int
    error: str
    rights: int | None

    def may(self, operation: int) -> bool | None:
        """Return whether this user may; None when the cluster does not tell."""
        return None if self.rights is None else bool(self.rights >> operation & 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSeen:
    """The group as its coordinator tells. `error`: Kafka's name of a refusal, or why nobody told; '' for none."""

    members: int = 0
    error: str = ""
    rights: int | None = None
    told: bool = True

    def may(self, operation: int) -> bool | None:
        """Return whether this user may; None when the cluster does not tell."""
        return None if self.rights is None else bool(self.rights >> operation & 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """`producer_error`: Kafka's name of the refusal of an idempotent producer, '' when one is let in."""

    cluster_id: str
    brokers: int
    topics: Mapping[str, TopicSeen]
    group: GroupSeen
    producer_error: str


async def survey(kafka: Kafka, names: Iterable[str], timeout_s: float) -> Survey:
    """Return what the cluster says of these topics, of the group and of producing.

    Raises:
        Exit: 69, no broker can be used, with the reason.
    """
    try:
        async with asyncio.timeout(timeout_s):
            return await _asked(kafka, sorted(set(names)), timeout_s)
    except (KafkaError, OSError) as exc:  # a TimeoutError is an OSError
        raise Exit(EX_UNAVAILABLE, await clients.no_broker(kafka, exc)) from exc


async def _asked(kafka: Kafka, names: list[str], timeout_s: float) -> Survey:
    client = AIOKafkaClient(**clients.client_options(kafka), request_timeout_ms=int(timeout_s * 1000))
    try:
        await client.bootstrap()
        cluster = await client.send(client.get_random_node(), DescribeTopics(names))
        return Survey(
            cluster_id=cluster.cluster_id or "",
            brokers=len(cluster.brokers),
            topics={topic["topic"]: _topic(topic) for topic in cluster.to_object()["topics"]},
            group=await _group(client, kafka.group_id),
            producer_error=await _producer_error(client),
        )
    finally:
        await client.close()


async def partition_counts(kafka: Kafka, names: Iterable[str]) -> dict[str, int]:
    """Return how many partitions these topics have, without those that are not there; creates none.

    Raises:
        KafkaError, OSError: no broker can be used.
    """
    client = AIOKafkaClient(**clients.client_options(kafka))
    try:
        await client.bootstrap()
        cluster = await client.send(client.get_random_node(), DescribeTopics(sorted(set(names))))
        topics = {topic["topic"]: _topic(topic) for topic in cluster.to_object()["topics"]}
        return {name: topic.partitions for name, topic in topics.items() if not topic.error}
    finally:
        await client.close()


def _topic(told: Mapping[str, Any]) -> TopicSeen:
    return TopicSeen(
        partitions=len(told["partitions"]),
        error=_name(told["error_code"]),
        rights=_rights(told.get("authorized_operations", _NOT_TOLD)),
    )


async def _group(client: AIOKafkaClient, group_id: str) -> GroupSeen:
    """Describe the group; one that does not exist is described as dead, and stays so."""

    async def describe() -> GroupSeen:
        node = await client.coordinator_lookup(_GROUP, group_id)
        answer = await client.send(node, DescribeGroup(group_id))
        [told] = answer.to_object()["groups"]
        _raise_for(told["error_code"])
        return GroupSeen(members=len(told["members"]), rights=_rights(told["authorized_operations"]))

    try:
        return await _retried(describe)
    except (NotImplementedError, IncompatibleBrokerVersion):  # before Kafka 2.3, and the embedded broker
        return GroupSeen(error="this broker does not tell", told=False)
    except KafkaError as exc:
        return GroupSeen(error=_name_of(exc), told=isinstance(exc, BrokerResponseError))


async def _producer_error(client: AIOKafkaClient) -> str:
    """Ask for a producer id, as every idempotent producer does: nothing is written by it."""

    async def ask() -> str:
        answer = await client.send(client.get_random_node(), InitProducerIdRequest(None, 60_000))
        _raise_for(answer.error_code)
        return ""

    try:
        return await _retried(ask)
    except KafkaError as exc:
        return _name_of(exc)


async def _retried(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask again while a coordinator is being found or made: on a new cluster that takes a second or two."""
    for _ in range(_RETRIES):
        try:
            return await ask()
        except KafkaError as exc:
            if not exc.retriable:
                raise
            await asyncio.sleep(_RETRY_S)
    return await ask()


def _raise_for(code: int) -> None:
    if (error := for_code(code)) is not NoError:
        raise error


def _name(code: int) -> str:
    return "" if code == 0 else str(for_code(code).message)


def _name_of(error: KafkaError) -> str:
    return str(getattr(error, "message", "") or type(error).__name__)


def _rights(told: int) -> int | None:
    return None if told == _NOT_TOLD else told
