"""Commits: positions with their finished-past bitmaps, every 0.2 s and when partitions leave, one request at a time."""

import asyncio
from collections.abc import Callable, Iterable

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import (
    CommitFailedError,
    GroupAuthorizationFailedError,
    IllegalStateError,
    KafkaError,
    OffsetMetadataTooLargeError,
    TopicAuthorizationFailedError,
)

from workers import metrics
from workers.errors import EX_CONFIG, Exit
from workers.log import get_logger
from workers.stream.commit_metadata import encode, fingerprint
from workers.stream.ledger import Ledger

REFUSALS_MAX = 10
"""Refused in a row before the worker gives up: two processes with one `group_instance_id` evict each other for ever,
and no commit of theirs ever lands (kafka.md (c))."""

log = get_logger(__name__)

_Mark = tuple[int, int]


class Commits:
    """What was committed for each ledger, and the next request."""

    def __init__(self, consumer: AIOKafkaConsumer, cluster_id: str) -> None:
        self._consumer = consumer
        self._cluster_id = cluster_id
        self._lock = asyncio.Lock()
        self._marks: dict[Ledger, _Mark] = {}
        self._refused = 0
        self.committed: dict[TopicPartition, int] = {}
        """Last committed offset by partition, as read at the assignment and as written since."""

    def fingerprint(self, tp: TopicPartition) -> str:
        """Return what ties commit metadata to this partition of this cluster."""
        return fingerprint(self._cluster_id, tp.topic, tp.partition)

    def forget(self) -> None:
        """Forget the ledgers of a generation that ended."""
        self._marks.clear()
        self.committed.clear()

    async def run(self, interval_s: float, ledgers: Callable[[], Iterable[Ledger]]) -> None:
        """Commit what changed, for ever. A broker that is down blocks this task alone (kafka.md (e))."""
        while True:
            await asyncio.sleep(interval_s)
            await self.commit(ledgers())

    async def commit(self, ledgers: Iterable[Ledger]) -> None:
        """Commit the ledgers that changed since their last commit.

        Raises:
            Exit: the group may not be written, or commits are refused again and again.
        """
        async with self._lock:
            marks: dict[Ledger, _Mark] = {}
            offsets: dict[TopicPartition, tuple[int, str]] = {}
            for ledger in ledgers:
                mark = (ledger.next_offset, len(ledger.unfinished))  # the first only rises, the second falls between
                if ledger.closed or self._marks.get(ledger) == mark:
                    continue
                tp = TopicPartition(ledger.topic, ledger.partition)
                position = ledger.position
                marks[ledger] = mark
                offsets[tp] = (position, encode(position, ledger.finished_past(), self.fingerprint(tp)))
            if offsets and await self._written(offsets):
                self._marks.update(marks)
                self.committed.update((tp, offset) for tp, (offset, _) in offsets.items())

    async def _written(self, offsets: dict[TopicPartition, tuple[int, str]]) -> bool:
        try:
            await self._consumer.commit(offsets)
        except OffsetMetadataTooLargeError:
            metrics.COMMITS.labels("metadata_refused").inc()
            log.warning("commit_metadata_refused", hint="offset.metadata.max.bytes of the cluster is below 4096")
            await self._consumer.commit({tp: (offset, "") for tp, (offset, _) in offsets.items()})
        except (GroupAuthorizationFailedError, TopicAuthorizationFailedError) as exc:
            raise Exit(
                EX_CONFIG, f"commits are not allowed ({type(exc).__name__}): READ on the group and topics"
            ) from exc
        except (CommitFailedError, IllegalStateError) as exc:
            self._refusal(exc)
            return False
        except KafkaError as exc:
            metrics.COMMITS.labels("error").inc()
            log.warning("commit_failed", error=type(exc).__name__)
            return False
        self._refused = 0
        metrics.COMMITS.labels("ok").inc()
        return True

    def _refusal(self, exc: KafkaError) -> None:
        """A rebalance is under way, or we were evicted: what was done since may be done again by the next owner."""
        metrics.COMMITS.labels("refused").inc()
        self._refused += 1
        log.warning("commit_refused", error=type(exc).__name__, in_a_row=self._refused)
        if self._refused >= REFUSALS_MAX:
            raise Exit(
                EX_CONFIG,
                f"{self._refused} commits refused in a row: is kafka.group_instance_id unique for each replica?",
            ) from exc
