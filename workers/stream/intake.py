"""The intake: the group's consumer, its assignments and revocations, and the pump that feeds the lanes."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import (
    CorruptRecordException,
    IllegalStateError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
)
from aiokafka.structs import ConsumerRecord

from workers import metrics
from workers.clock import monotonic_s
from workers.errors import EX_CONFIG, EX_SOFTWARE, Exit
from workers.log import get_logger
from workers.records import Record
from workers.settings.model import Settings
from workers.stream import clients
from workers.stream.commit_metadata import Ignored, decode
from workers.stream.commits import Commits
from workers.stream.lane import Lane
from workers.stream.ledger import Ledger
from workers.stream.window import Delivery

FETCH_MAX_RECORDS = 100
"""Records of one partition per turn: bounds how far a window overshoots, and how long one partition has the loop."""

IDLE_WAIT_S = 0.1
FULL_WAIT_S = 0.02
GAP_CHECK_S = 0.3
REVOKE_COMMIT_S = 5.0

log = get_logger(__name__)

T = TypeVar("T")
Put = Callable[[list[Delivery]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Feed:
    """Where the records of one input topic go: its lane, and the channel in front of it."""

    lane: Lane
    put: Put
    depth: Callable[[], int]
    """Batches on the channel."""


class Intake(ConsumerRebalanceListener):
    """Reads in turn from each partition that has room, and knows which generation a record belongs to.

    aiokafka does not await `on_partitions_assigned` before it delivers (kafka.md (c)): the gate stays shut until the
    ledgers of the new generation stand, and a batch fetched in an older epoch is thrown away.
    """

    def __init__(
        self, settings: Settings, consumer: AIOKafkaConsumer, feeds: Mapping[str, Feed], commits: Commits
    ) -> None:
        self._settings = settings
        self._consumer = consumer
        self.feeds = feeds
        self._lanes = list(dict.fromkeys(feed.lane for feed in feeds.values()))
        self.commits = commits
        self._gate = asyncio.Event()
        self._epoch = 0
        self._loading: asyncio.Task[None] | None = None
        self._orphans: dict[tuple[str, int, int], tuple[Lane, Delivery]] = {}
        self._turn = 0
        self._gaps_checked_at_s = 0.0
        self._stopping = False
        self.ledgers: dict[TopicPartition, Ledger] = {}
        self.failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Fails with what must end the process."""
        self.delivered_at_s = monotonic_s()
        self.joined = False

    @property
    def settled(self) -> bool:
        """Whether the last rebalance is over (also with no partition)."""
        return self.joined and self._gate.is_set()

    # ------------------------------------------------------------------ rebalances

    async def on_partitions_revoked(self, revoked: list[TopicPartition]) -> None:
        """Finish what is busy for a bounded time, commit, and let go. Heartbeats go on meanwhile."""
        self._gate.clear()
        self._epoch += 1
        if self._loading is not None:
            self._loading.cancel()
        began_s = monotonic_s()
        leaving = set(self.ledgers.values())
        left = await self.settle(self._settings.worker.revoke_wait_s)
        if revoked:
            await self._last_commit()
        for ledger in leaving:
            ledger.closed = True
        self.ledgers = {}
        self.commits.forget()
        if revoked:
            log.info("partitions_revoked", count=len(revoked), took_s=round(monotonic_s() - began_s, 2), orphans=left)

    async def settle(self, timeout_s: float) -> int:
        """Drop what waits and let what is busy finish, at most `timeout_s`. What then still runs becomes an orphan."""
        leaving = set(self.ledgers.values())
        for lane in self._lanes:
            lane.drop_waiting(leaving)
        running = await asyncio.gather(*(lane.settle(leaving, timeout_s) for lane in self._lanes))
        for lane, deliveries in zip(self._lanes, running, strict=True):
            for delivery in deliveries:
                record = delivery.record
                self._orphans[record.topic, record.partition, record.offset] = (lane, delivery)
        return sum(map(len, running))

    async def _last_commit(self) -> None:
        """Commit before the partitions go; a broker that does not answer must not hold the rebalance."""
        committing = asyncio.ensure_future(self.commits.commit(list(self.ledgers.values())))
        done, _ = await asyncio.wait({committing}, timeout=REVOKE_COMMIT_S)
        if not done:
            log.warning("commit_left_behind", after_s=REVOKE_COMMIT_S)
        elif isinstance(error := committing.exception(), Exception):
            self._fail(error)

    async def on_partitions_assigned(self, assigned: list[TopicPartition]) -> None:
        """Start loading the ledgers; heartbeats wait for this callback, so it does not."""
        self._loading = asyncio.create_task(self._load(list(assigned), self._epoch))

    async def _load(self, assigned: list[TopicPartition], epoch: int) -> None:
        try:
            ledgers = await self._ledgers_for(assigned)
        except Exception as error:  # noqa: BLE001 - whatever it is, without ledgers nothing may be delivered
            self._fail(error)
            return
        if epoch != self._epoch:
            return
        self.ledgers = ledgers
        for at, (_, orphan) in list(self._orphans.items()):
            if TopicPartition(at[0], at[1]) not in ledgers:
                self._drop_orphan(at, orphan)
        self.joined = True
        self._gate.set()
        log.info("partitions_assigned", count=len(assigned), skip=sum(len(ledger.skip) for ledger in ledgers.values()))

    async def _ledgers_for(self, assigned: list[TopicPartition]) -> dict[TopicPartition, Ledger]:
        """Return a ledger for each partition, the consumer's position set to its base."""
        if not assigned:
            return {}
        found = await self._committed(assigned)
        beginnings = await self._asked(lambda: self._consumer.beginning_offsets(assigned))
        ledgers: dict[TopicPartition, Ledger] = {}
        for tp in assigned:
            offset, text = found.get(tp, (-1, ""))
            beginning = beginnings[tp]
            if offset < 0:  # a new group or a partition added later; `start: latest` was settled before joining
                ledgers[tp] = Ledger(tp.topic, tp.partition, beginning)
            elif offset < beginning:
                ledgers[tp] = Ledger(tp.topic, tp.partition, self._after_loss(tp, offset, beginning))
            else:
                self.commits.committed[tp] = offset
                ledgers[tp] = Ledger(tp.topic, tp.partition, offset, self._skip(tp, offset, text))
            self._consumer.seek(tp, ledgers[tp].next_offset)
        return ledgers

    async def _committed(self, assigned: list[TopicPartition]) -> dict[TopicPartition, tuple[int, str]]:
        """Read offsets and metadata; only the admin client gives the metadata."""

        async def ask() -> dict[TopicPartition, tuple[int, str]]:
            admin = await clients.open_admin(self._settings.kafka)
            try:
                found = await admin.list_consumer_group_offsets(self._settings.kafka.group_id, partitions=assigned)
            finally:
                await clients.quietly_closed(admin, 2.0)
            return {tp: (at.offset, at.metadata or "") for tp, at in found.items()}

        return await self._asked(ask)

    async def _asked(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask the cluster until it answers: without an answer there is nothing safe to do but to wait."""
        while True:
            try:
                return await ask()
            except TopicAuthorizationFailedError as exc:
                raise Exit(EX_CONFIG, f"not allowed to read {exc}: grant READ on the input topics") from exc
            except (KafkaError, OSError) as exc:
                log.warning("offsets_not_read", error=type(exc).__name__)
                await asyncio.sleep(0.5)

    def _skip(self, tp: TopicPartition, offset: int, text: str) -> set[int]:
        try:
            return decode(offset, text, self.commits.fingerprint(tp))
        except Ignored as exc:
            metrics.COMMIT_METADATA_IGNORED.labels(exc.reason).inc()
            log.warning("commit_metadata_ignored", topic=tp.topic, partition=tp.partition, reason=exc.reason)
            return set()

    def _after_loss(self, tp: TopicPartition, wanted: int, beginning: int) -> int:
        """Return where to go on after retention removed records before we read them.

        Raises:
            Exit: `on_offset_reset: fail`; a person has to decide.
        """
        lost = f"{tp.topic}/{tp.partition}: offsets {wanted} to {beginning - 1} are gone (retention, or a new topic)"
        if self._settings.kafka.on_offset_reset == "fail":
            raise Exit(EX_CONFIG, f"{lost}; set kafka.on_offset_reset: earliest to go on from {beginning}")
        metrics.OFFSETS_LOST.labels(tp.topic).inc(max(0, beginning - wanted))
        log.error("records_lost_to_retention", topic=tp.topic, partition=tp.partition, first=wanted, next=beginning)
        return beginning

    # ------------------------------------------------------------------ the pump

    async def pump(self) -> None:
        """Feed the lanes until `stop`."""
        while not self._stopping:
            await self._gate.wait()
            epoch = self._epoch
            try:
                await self._pass_gaps(epoch)
                if not await self._round(epoch):
                    await self._wait(epoch)
            except IllegalStateError:  # revoked between our look and the fetch
                await asyncio.sleep(0)
            except OffsetOutOfRangeError as exc:
                await self._reset(exc)
            except NoOffsetForPartitionError:
                pass  # aiokafka looked for a committed offset before our seek; the seek stands
            except TopicAuthorizationFailedError as exc:
                raise Exit(EX_CONFIG, f"not allowed to read {exc}: grant READ on the input topics") from exc
            except CorruptRecordException as exc:
                raise Exit(EX_SOFTWARE, f"a record batch on the broker is damaged: {exc}; nothing was skipped") from exc
            except KafkaError as exc:
                log.warning("fetch_failed", error=type(exc).__name__)
                await asyncio.sleep(0.5)

    async def _round(self, epoch: int) -> bool:
        """Take once from each partition that has room, starting with another one each time. Return whether any gave."""
        partitions = list(self.ledgers)
        self._turn += 1
        start = self._turn % max(1, len(partitions))
        took = False
        for tp in partitions[start:] + partitions[:start]:
            room = self.room(tp)
            if room > 0 and epoch == self._epoch:
                fetched = await self._consumer.getmany(tp, timeout_ms=0, max_records=min(room, FETCH_MAX_RECORDS))
                took |= await self._deliver(fetched, epoch)
        return took

    async def _wait(self, epoch: int) -> None:
        """Nothing came: wait for records where there is room, or for room."""
        rooms = {tp: room for tp in self.ledgers if (room := self.room(tp)) > 0}
        full = len(rooms) < len(self.ledgers)
        if full or not rooms:
            freed = [asyncio.ensure_future(lane.window.freed.wait()) for lane in self._lanes]
            for lane in self._lanes:
                lane.window.freed.clear()
            await asyncio.wait(freed, timeout=FULL_WAIT_S, return_when=asyncio.FIRST_COMPLETED)
            for waiter in freed:
                waiter.cancel()
            return
        fetched = await self._consumer.getmany(
            *rooms, timeout_ms=int(IDLE_WAIT_S * 1000), max_records=min(FETCH_MAX_RECORDS, *rooms.values())
        )
        await self._deliver(fetched, epoch)

    def room(self, tp: TopicPartition) -> int:
        """Return how many more records may be fetched from this partition now."""
        ledger = self.ledgers.get(tp)
        if ledger is None or self._stopping:
            return 0
        window = self.feeds[tp.topic].lane.window
        lane_partitions = sum(self.feeds[other.topic].lane.window is window for other in self.ledgers)
        return window.room(ledger, lane_partitions)

    async def _deliver(self, fetched: Mapping[TopicPartition, list[ConsumerRecord]], epoch: int) -> bool:
        """Enter fetched records in ledger and window and put them on their lane's channel; stale ones are dropped."""
        for tp, records in fetched.items():
            ledger = self.ledgers.get(tp)
            if ledger is None or epoch != self._epoch or self._stopping:
                self._rewind(fetched)
                return False
            feed = self.feeds[tp.topic]
            batch = [
                delivery for record in records if (delivery := self._entered(feed.lane, ledger, record)) is not None
            ]
            self.delivered_at_s = monotonic_s()
            if batch:
                await feed.put(batch)
        return bool(fetched)

    def _rewind(self, stale: Mapping[TopicPartition, list[ConsumerRecord]]) -> None:
        """A fetch that a rebalance overtook may hold records of the new generation: read them again, or they are lost.

        Its ledgers either stand already, then the consumer goes back to them, or `_load` will seek when they do.
        """
        for tp in stale:
            if (ledger := self.ledgers.get(tp)) is not None:
                self._consumer.seek(tp, ledger.next_offset)

    def _entered(self, lane: Lane, ledger: Ledger, fetched: ConsumerRecord) -> Delivery | None:
        """Return a delivery, or None for a record that is finished already or that a running orphan takes."""
        if not ledger.take(fetched.offset, fetched.timestamp):
            metrics.SKIPPED.labels(ledger.topic).inc()
            return None
        if self._orphans and (orphan := self._orphans.pop((ledger.topic, ledger.partition, fetched.offset), None)):
            if orphan[1] in lane.window.started and lane.window.adopt(orphan[1], ledger):
                metrics.ADOPTED.labels(ledger.topic).inc()
                return None
            self._cancel(orphan[1])
        record = Record(
            ledger.topic,
            ledger.partition,
            fetched.offset,
            fetched.timestamp,
            fetched.key,
            fetched.value,
            fetched.headers,
        )
        return lane.delivery(record, ledger)

    async def _pass_gaps(self, epoch: int) -> None:
        """Let empty ledgers follow the consumer over gaps that end their partition.

        Race-free: only this task fetches, so what the consumer has passed it has also delivered to us.
        """
        now_s = monotonic_s()
        if now_s - self._gaps_checked_at_s < GAP_CHECK_S:
            return
        self._gaps_checked_at_s = now_s
        for tp, ledger in list(self.ledgers.items()):
            if not ledger.unfinished:
                position = await self._consumer.position(tp)
                if epoch != self._epoch:
                    return
                ledger.pass_gap(position)

    async def _reset(self, exc: OffsetOutOfRangeError) -> None:
        """Retention passed us while we ran."""
        (offsets,) = exc.args
        beginnings = await self._asked(lambda: self._consumer.beginning_offsets(list(offsets)))
        for tp, wanted in offsets.items():
            ledger = self.ledgers.get(tp)
            if ledger is not None:
                ledger.next_offset = max(ledger.next_offset, self._after_loss(tp, wanted, beginnings[tp]))
                self._consumer.seek(tp, ledger.next_offset)

    # ------------------------------------------------------------------ orphans, the end

    def _drop_orphan(self, at: tuple[str, int, int], orphan: Delivery) -> None:
        self._orphans.pop(at, None)
        self._cancel(orphan)

    def _cancel(self, orphan: Delivery) -> None:
        if orphan.gone and orphan.worker is not None:
            orphan.worker.cancel()

    def stop(self) -> None:
        """Fetch no more."""
        self._stopping = True
        self._gate.set()

    async def commit_and_leave(self) -> None:
        """Commit what is finished, close the ledgers, leave the group; each step bounded."""
        await self._last_commit()
        for ledger in self.ledgers.values():
            ledger.leaving = ledger.closed = True
        if not await clients.quietly_closed(self._consumer, 5.0):
            log.warning("consumer_left_behind")

    def _fail(self, error: Exception) -> None:
        if not self.failure.done():
            self.failure.set_exception(error)
