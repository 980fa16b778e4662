"""Commits: positions with their finished-past bitmaps, every 0.2 s and when partitions leave, one request at a time."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import (
    CommitFailedError,
    GroupAuthorizationFailedError,
    IllegalStateError,
    KafkaError,
    OffsetMetadataTooLargeError,
    TopicAuthorizationFailedError,
    UnknownMemberIdError,
)

from workers import metrics
from workers.clock import monotonic_s
from workers.errors import EX_CONFIG, Exit
from workers.log import get_logger
from workers.stream.commit_metadata import MAX_CHARS, encode, fingerprint
from workers.stream.ledger import Ledger

EVICTIONS_MAX, EVICTIONS_WINDOW_S = 6, 20.0
"""So many generations in so short a time from which the group threw this member out: the worker gives up. Two processes
with one `group_instance_id` evict each other for ever, and hardly a commit lands (kafka.md (c)). A member that is only
slow loses its place once a session, which brokers do not let be below 6 s."""

log = get_logger(__name__)

_Mark = tuple[int, int]


class Commits:
    """What was committed for each ledger, and the next request."""

    def __init__(self, consumer: AIOKafkaConsumer, cluster_id: str) -> None:
        self._consumer = consumer
        self._cluster_id = cluster_id
        self._lock = asyncio.Lock()
        self._request: asyncio.Future[None] | None = None
        self._marks: dict[Ledger, _Mark] = {}
        self._max_chars = MAX_CHARS
        self._evicted = False
        self._evictions_at_s: deque[float] = deque(maxlen=EVICTIONS_MAX)
        self.committed: dict[TopicPartition, int] = {}
        """Last committed offset by partition, as read at the assignment and as written since."""

    def fingerprint(self, tp: TopicPartition) -> str:
        """Return what ties commit metadata to this partition of this cluster."""
        return fingerprint(self._cluster_id, tp.topic, tp.partition)

    def forget(self) -> None:
        """Forget the ledgers of a generation that ended, once they are closed; give up a request that still runs.

        aiokafka sends a commit again until it is answered, each time under the generation of that moment: left alone it
        would write old offsets over new ones after the next assignment, or, its topic deleted, hold up every later
        commit for ever.
        """
        if self._request is not None:
            self._request.cancel()
        self._marks.clear()
        self.committed.clear()
        self._evicted = False

    async def run(self, interval_s: float, ledgers: Callable[[], Iterable[Ledger]]) -> None:
        """Commit what changed, for ever. A broker that is down blocks this task alone (kafka.md (e))."""
        while True:
            await asyncio.sleep(interval_s)
            await self.commit(ledgers())

    async def commit(self, ledgers: Iterable[Ledger]) -> None:
        """Commit the ledgers that changed since their last commit.

        Raises:
            Exit: the group may not be written, or throws this member out again and again.
        """
        async with self._lock:
            marks: dict[Ledger, _Mark] = {}
            offsets: dict[TopicPartition, tuple[int, str]] = {}
            for ledger in ledgers:
                mark = (ledger.next_offset, len(ledger.unfinished))  # the first only rises, the second falls between
                if ledger.closed or self._marks.get(ledger) == mark:
                    continue
                tp = TopicPartition(ledger.topic, ledger.partition)
                position, past = ledger.position, ledger.finished_past()
                marks[ledger] = mark
                offsets[tp] = (position, encode(position, past, self.fingerprint(tp), self._max_chars))
            if offsets and await self._written(offsets):
                for ledger, mark in marks.items():
                    if not ledger.closed:  # else `forget` came first
                        tp = TopicPartition(ledger.topic, ledger.partition)
                        self._marks[ledger], self.committed[tp] = mark, offsets[tp][0]

    async def _written(self, offsets: dict[TopicPartition, tuple[int, str]]) -> bool:
        """Return whether the broker took them; else what changed is committed with the next request."""
        request = self._request = asyncio.ensure_future(self._consumer.commit(offsets))
        try:
            await asyncio.wait({request})
            if request.cancelled():  # by `forget`
                return False
            request.result()
        except OffsetMetadataTooLargeError:
            metrics.COMMITS.labels("metadata_refused").inc()
            self._max_chars = max(len(text) for _, text in offsets.values()) // 2
            log.warning("commit_metadata_refused", hint="offset.metadata.max.bytes", next_max_chars=self._max_chars)
            return False
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
        finally:
            request.cancel()
            self._request = None
        metrics.COMMITS.labels("ok").inc()
        return True

    def _refusal(self, exc: KafkaError) -> None:
        """A rebalance is under way, or we were evicted: what was done since may be done again by the next owner.

        Refusals in a row would tell nothing: between two evictions a commit of either twin may land.
        """
        metrics.COMMITS.labels("refused").inc()
        log.warning("commit_refused", error=type(exc).__name__, cause=type(exc.__cause__).__name__)
        if self._evicted or not isinstance(exc.__cause__, UnknownMemberIdError):
            return
        self._evicted = True
        self._evictions_at_s.append(monotonic_s())
        over_s = self._evictions_at_s[-1] - self._evictions_at_s[0]
        if len(self._evictions_at_s) == EVICTIONS_MAX and over_s < EVICTIONS_WINDOW_S:
            raise Exit(
                EX_CONFIG,
                f"the group threw this member out {EVICTIONS_MAX} times in {over_s:.0f} s:"
                " is kafka.group_instance_id unique for each replica?",
            ) from exc
