"""What a generation starts from: committed offsets, what is finished past them, and what retention took away."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import GroupAuthorizationFailedError, KafkaError, TopicAuthorizationFailedError

from workers import metrics
from workers.errors import EX_CONFIG, Exit
from workers.log import get_logger
from workers.settings.model import Kafka
from workers.stream import clients
from workers.stream.commit_metadata import Ignored, decode
from workers.stream.commits import Commits
from workers.stream.ledger import Ledger

T = TypeVar("T")

log = get_logger(__name__)


class Offsets:
    """Reads what the group has committed. It asks until the cluster answers: without an answer nothing is safe."""

    def __init__(self, kafka: Kafka, consumer: AIOKafkaConsumer, commits: Commits) -> None:
        self._kafka = kafka
        self._consumer = consumer
        self._commits = commits

    async def ledgers_for(self, assigned: list[TopicPartition]) -> dict[TopicPartition, Ledger]:
        """Return a ledger for each partition: where to go on, and what is finished past that."""
        if not assigned:
            return {}
        found = await self.committed(assigned)
        beginnings = await self.beginnings(assigned)
        ledgers: dict[TopicPartition, Ledger] = {}
        for tp in assigned:
            offset, text = found.get(tp, (-1, ""))
            beginning = beginnings[tp]
            if offset < 0:  # a new group or a partition added later; `start: latest` was settled before joining
                ledgers[tp] = Ledger(tp.topic, tp.partition, beginning)
            elif offset < beginning:
                ledgers[tp] = Ledger(tp.topic, tp.partition, self.after_loss(tp, offset, beginning))
            else:
                self._commits.committed[tp] = offset
                ledgers[tp] = Ledger(tp.topic, tp.partition, offset, self._skip(tp, offset, text))
        return ledgers

    async def committed(self, assigned: list[TopicPartition]) -> dict[TopicPartition, tuple[int, str]]:
        """Read offsets and metadata; only the admin client gives the metadata."""

        async def ask() -> dict[TopicPartition, tuple[int, str]]:
            admin = await clients.open_admin(self._kafka)
            try:
                found = await admin.list_consumer_group_offsets(self._kafka.group_id, partitions=assigned)
            finally:
                await clients.quietly_closed(admin, 2.0)
            if not found.keys() >= set(assigned):
                # aiokafka hides an error of the whole answer (a coordinator that loads or moves): nothing found is not
                # no offset, and beginning anew would read the whole topic again.
                raise KafkaError("the coordinator did not answer for every partition")
            return {tp: (at.offset, at.metadata or "") for tp, at in found.items()}

        return await self._asked(ask)

    async def beginnings(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the first offset that each partition still has."""
        return await self._asked(lambda: self._consumer.beginning_offsets(partitions))

    async def _asked(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask the cluster until it answers: without an answer there is nothing safe to do but to wait."""
        while True:
            try:
                return await ask()
            except (TopicAuthorizationFailedError, GroupAuthorizationFailedError) as exc:
                raise Exit(EX_CONFIG, f"not allowed to read {exc}: grant READ on input topics and group") from exc
            except (KafkaError, OSError) as exc:
                log.warning("offsets_not_read", error=type(exc).__name__)
                await asyncio.sleep(0.5)

    def _skip(self, tp: TopicPartition, offset: int, text: str) -> set[int]:
        try:
            return decode(offset, text, self._commits.fingerprint(tp))
        except Ignored as exc:
            metrics.COMMIT_METADATA_IGNORED.labels(exc.reason).inc()
            log.warning("commit_metadata_ignored", topic=tp.topic, partition=tp.partition, reason=exc.reason)
            return set()

    def after_loss(self, tp: TopicPartition, wanted: int, beginning: int) -> int:
        """Return where to go on after records went before we read them: its beginning.

        Raises:
            Exit: `on_offset_reset: fail`; a person has to decide.
        """
        if wanted < beginning:
            lost = f"{tp.topic}/{tp.partition}: offsets {wanted} to {beginning - 1} are gone (retention)"
        else:
            lost = f"{tp.topic}/{tp.partition}: offset {wanted} is past the end (the log was cut, or the topic is new)"
        if self._kafka.on_offset_reset == "fail":
            raise Exit(EX_CONFIG, f"{lost}; set kafka.on_offset_reset: earliest to go on from {beginning}")
        metrics.OFFSETS_LOST.labels(tp.topic).inc(max(0, beginning - wanted))
        log.error("records_lost_to_retention", topic=tp.topic, partition=tp.partition, first=wanted, next=beginning)
        return beginning
