"""The intake: the group's consumer, its assignments and revocations, and the pump that feeds the lanes."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TypeVar

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import (
    CorruptRecordException,
    GroupAuthorizationFailedError,
    IllegalStateError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    RecordTooLargeError,
    TopicAuthorizationFailedError,
)
from aiokafka.structs import ConsumerRecord

from workers import metrics
from workers.clock import monotonic_s, wall_s
from workers.errors import EX_CONFIG, EX_SOFTWARE, Exit
from workers.log import get_logger
from workers.records import Record
from workers.settings.model import Settings
from workers.stream import clients
from workers.stream.commits import Commits
from workers.stream.due import due, restored
from workers.stream.lane import Lane
from workers.stream.ledger import Ledger
from workers.stream.offsets import Offsets
from workers.stream.window import Delivery

FETCH_MAX_RECORDS = 100
"""Records of one partition per turn: bounds how far a window overshoots, and how long one partition has the loop."""

IDLE_WAIT_S = 0.1
FULL_WAIT_S = 0.01
"""Between two looks for room. A window is several times as deep as the slots: no slot runs dry meanwhile."""
GAP_CHECK_S = 0.3
GATE_CHECK_S = 0.5
REVOKE_COMMIT_S = 5.0
STOP_COMMIT_S = 2.0
FAILURE_PAUSE_S = 0.5
FAILURES_MAX = 20
"""Fetches that fail in a row before an error that aiokafka has no name for ends the worker."""

_NOWHERE = TopicPartition("", -1)
"""Never assigned: a fetch from it gives nothing, and takes what the coordinator has to say."""

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
    delay_s: float | None = None
    """Of a retry topic: how long after its timestamp a record is due."""


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
        self.offsets = Offsets(settings.kafka, consumer, commits)
        self._gate = asyncio.Event()
        self._epoch = 0
        self._loading: asyncio.Task[None] | None = None
        self._orphans: dict[tuple[str, int, int], tuple[Lane, Delivery]] = {}
        self._partitions: Counter[Lane] = Counter()
        self._turn = 0
        """The place of the partition that is asked first in the next round."""
        self._gaps_checked_at_s = 0.0
        self._stopping = False
        self._approached: dict[TopicPartition, int] = {}
        """Partitions in which a batch could not be read, and the offset that we stood at then."""
        self._due_at_s: dict[TopicPartition, float] = {}
        """Partitions of retry topics whose next record was not due, and when (monotonic) to look again."""
        self.ledgers: dict[TopicPartition, Ledger] = {}
        self.failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Fails with what must end the process."""
        self.delivered_at_s = monotonic_s()
        self.joined = False

    @property
    def generation(self) -> int:
        """How many generations have ended."""
        return self._epoch

    @property
    def settled(self) -> bool:
        """Whether the last rebalance is over (also with no partition)."""
        return self.joined and self._gate.is_set()

    # ------------------------------------------------------------------ rebalances

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Finish what is busy for a bounded time, commit, and let go. Heartbeats go on meanwhile."""
        self._gate.clear()
        self._epoch += 1
        if self._loading is not None:
            self._loading.cancel()
        began_s = monotonic_s()
        left = 0
        try:
            left = await self.settle(self._settings.worker.revoke_wait_s)
            if revoked:
                await self._last_commit(REVOKE_COMMIT_S)
        except Exception as error:  # noqa: BLE001 - aiokafka would log it and go on
            self._fail(error)
        finally:
            self._let_go()
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
                ledger = delivery.ledger
                self._orphans[ledger.topic, ledger.partition, delivery.offset] = (lane, delivery)
        return sum(map(len, running))

    def _let_go(self) -> None:
        """End the generation: from here on nothing of it is sent, acked or committed."""
        for ledger in self.ledgers.values():
            ledger.leaving = ledger.closed = True
        self.ledgers = {}
        self._due_at_s = {}
        self.commits.forget()

    async def _last_commit(self, timeout_s: float) -> None:
        """Commit before the partitions go; a broker that does not answer must not hold the rebalance."""
        try:
            await asyncio.wait_for(self.commits.commit(list(self.ledgers.values())), timeout_s)
        except TimeoutError:
            log.warning("commit_left_behind", after_s=timeout_s)
        except Exception as error:  # noqa: BLE001 - whatever it is, the partitions go
            self._fail(error)

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Start loading the ledgers; heartbeats wait for this callback, so it does not."""
        self._loading = asyncio.create_task(self._load(list(assigned), self._epoch))

    async def _load(self, assigned: list[TopicPartition], epoch: int) -> None:
        try:
            ledgers = await self.offsets.ledgers_for(assigned)
        except Exception as error:  # noqa: BLE001 - whatever it is, without ledgers nothing may be delivered
            self._fail(error)
            return
        if epoch != self._epoch:
            return
        for tp, ledger in ledgers.items():
            self._consumer.seek(tp, ledger.next_offset)
        self.ledgers = ledgers
        self._partitions = Counter(self.feeds[tp.topic].lane for tp in ledgers)
        self._share_budgets()
        for at, (_, orphan) in list(self._orphans.items()):
            if TopicPartition(at[0], at[1]) not in ledgers:
                self._drop_orphan(at, orphan)
        self.joined = True
        self._gate.set()
        log.info("partitions_assigned", count=len(assigned), skip=sum(len(ledger.skip) for ledger in ledgers.values()))

    def _share_budgets(self) -> None:
        """A replica has as much of a task's budget as it has of the partitions that the task reads."""
        for task in (lane.task for lane in self._lanes):
            if task.budget is not None:
                topics = [topic for topic, feed in self.feeds.items() if feed.lane.task.name == task.name]
                every = sum(len(self._consumer.partitions_for_topic(topic) or ()) for topic in topics)
                task.budget.take_share(sum(tp.topic in topics for tp in self.ledgers), every)

    # ------------------------------------------------------------------ the pump

    async def pump(self) -> None:
        """Feed the lanes until `stop`."""
        failures, epoch = 0, self._epoch
        while not self._stopping:
            try:
                await self._opened()
                epoch = self._epoch
                await self._pass_gaps(epoch)
                if not await self._round(epoch):
                    await self._wait(epoch)
                failures = 0
            except IllegalStateError:  # revoked between our look and the fetch
                await asyncio.sleep(IDLE_WAIT_S)
            except OffsetOutOfRangeError as exc:
                await self._reset(exc, epoch)
            except NoOffsetForPartitionError:
                pass  # aiokafka looked for a committed offset before our seek; the seek stands
            except (TopicAuthorizationFailedError, GroupAuthorizationFailedError) as exc:
                raise Exit(EX_CONFIG, f"not allowed to read {exc}: grant READ on input topics and group") from exc
            except (CorruptRecordException, RecordTooLargeError) as exc:  # aiokafka would skip the latter
                self._approach(exc)
            except KafkaError as exc:
                failures = failures + 1 if type(exc) is KafkaError else 0
                if failures >= FAILURES_MAX:  # its coordinator is dead, and joins no more
                    raise Exit(EX_SOFTWARE, f"the consumer has failed: {exc}") from exc
                log.warning("fetch_failed", error=type(exc).__name__)
                await asyncio.sleep(FAILURE_PAUSE_S)

    async def _opened(self) -> None:
        """Wait for the gate, and take the coordinator's errors meanwhile: until somebody does, it joins no more.

        Only fetches take them (aiokafka), and a shut gate lets nobody fetch: a join that was refused once would have
        been the last one.

        Raises:
            KafkaError: what the coordinator met; it goes on.
        """
        while not self._gate.is_set():
            if self._loading is not None:  # else the consumer is not started: `start` gives the error
                await self._consumer.getmany(_NOWHERE, timeout_ms=0)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._gate.wait(), GATE_CHECK_S)

    async def _round(self, epoch: int) -> bool:
        """Take once from each partition that has room, first from the one behind the last that gave.

        Return whether any gave.
        """
        turns = list(enumerate(self.ledgers, 1))
        took = False
        for turn, tp in turns[self._turn :] + turns[: self._turn]:
            room = self.room(tp)
            if room > 0 and epoch == self._epoch:
                limit = 1 if tp in self._approached else min(room, FETCH_MAX_RECORDS)
                fetched = await self._consumer.getmany(tp, timeout_ms=0, max_records=limit)
                if await self._deliver(fetched, epoch):
                    took, self._turn = True, turn
        return took

    async def _wait(self, epoch: int) -> None:
        """Nothing came: wait for records where there is room, or for room."""
        if not self.ledgers:
            await asyncio.sleep(IDLE_WAIT_S)
            return
        asleep = sum(map(self._asleep, self.ledgers))
        rooms = {tp: room for tp in self.ledgers if (room := self.room(tp)) > 0}
        if len(rooms) + asleep < len(self.ledgers):
            await asyncio.sleep(FULL_WAIT_S)
            return
        if not rooms:
            await asyncio.sleep(IDLE_WAIT_S)
            return
        limit = 1 if self._approached else min(FETCH_MAX_RECORDS, *rooms.values())
        fetched = await self._consumer.getmany(*rooms, timeout_ms=int(IDLE_WAIT_S * 1000), max_records=limit)
        await self._deliver(fetched, epoch)

    def room(self, tp: TopicPartition) -> int:
        """Return how many more records may be fetched from this partition now."""
        ledger = self.ledgers.get(tp)
        if ledger is None or self._stopping or self._asleep(tp):
            return 0
        lane = self.feeds[tp.topic].lane
        return lane.window.room(ledger, self._partitions[lane])

    def _asleep(self, tp: TopicPartition) -> bool:
        """Return whether nothing of this partition, one of a retry topic, is due yet."""
        return bool(self._due_at_s) and monotonic_s() < self._due_at_s.get(tp, 0.0)

    async def _deliver(self, fetched: Mapping[TopicPartition, list[ConsumerRecord]], epoch: int) -> bool:
        """Enter fetched records in ledger and window and put them on their lane's channel; stale ones are dropped."""
        for tp, records in fetched.items():
            ledger = self.ledgers.get(tp)
            if ledger is None or epoch != self._epoch or self._stopping:
                self._rewind(fetched)
                return False
            feed = self.feeds[tp.topic]
            ready = records if feed.delay_s is None else self._due_of(tp, records, feed.delay_s)
            batch = [delivery for record in ready if (delivery := self._entered(feed, ledger, record)) is not None]
            if ready:
                self.delivered_at_s = monotonic_s()
            if batch:
                await feed.put(batch)
        return bool(fetched)

    def _due_of(self, tp: TopicPartition, records: list[ConsumerRecord], delay_s: float) -> list[ConsumerRecord]:
        """Return the records that are due; at the first that is not the consumer goes back, and waits until it is.

        So its position stays that of the ledger, and whoever owns the partition next finds the record where it is.
        """
        count, wait_s = due([record.timestamp for record in records], delay_s, wall_s())
        if count < len(records):
            self._consumer.seek(tp, records[count].offset)
            self._due_at_s[tp] = monotonic_s() + wait_s
        return records[:count]

    def _rewind(self, stale: Mapping[TopicPartition, list[ConsumerRecord]]) -> None:
        """A fetch that a rebalance overtook may hold records of the new generation: read them again, or they are lost.

        Its ledgers either stand already, then the consumer goes back to them, or `_load` will seek when they do.
        """
        for tp in stale:
            if (ledger := self.ledgers.get(tp)) is not None:
                self._consumer.seek(tp, ledger.next_offset)

    def _entered(self, feed: Feed, ledger: Ledger, fetched: ConsumerRecord) -> Delivery | None:
        """Return a delivery to start; None when it is finished already, an orphan takes it, or its key's chain does.

        Chains grow here, in fetch order, so that an orphan never overtakes its redelivered predecessors.
        """
        lane = feed.lane
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
        if feed.delay_s is None:
            delivery = lane.delivery(record, ledger)
        else:
            original, deferrals = restored(record, lane.task.outputs)
            delivery = lane.delivery(original, ledger, offset=record.offset, deferrals=deferrals)
        return delivery if lane.window.may_start(delivery) else None

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

    def _approach(self, exc: KafkaError) -> None:
        """A batch cannot be read, and hides the good records before it that came in the same fetch: read up to it.

        One by one, so that none of them is in the client's hands when it meets the batch again.

        Raises:
            Exit: 70: the batch is what comes next. Nothing is skipped: a person decides (workers/README.md).
        """
        for tp, ledger in self.ledgers.items():
            if str(tp) not in str(exc):
                continue
            if self._approached.get(tp) != ledger.next_offset:
                self._approached[tp] = ledger.next_offset
                self._consumer.seek(tp, ledger.next_offset)
                return
            where = f"{tp.topic}/{tp.partition} at offset {ledger.next_offset}"
            raise Exit(EX_SOFTWARE, f"a record batch cannot be read: {where} ({exc}); nothing was skipped") from exc
        raise Exit(EX_SOFTWARE, f"a record batch cannot be read: {exc}; nothing was skipped") from exc

    async def _reset(self, exc: OffsetOutOfRangeError, epoch: int) -> None:
        """The log does not hold the offset that we read at: retention passed us, or the log is shorter than it was."""
        (offsets,) = exc.args
        beginnings = await self.offsets.beginnings(list(offsets))
        for tp, wanted in offsets.items():
            ledger = self.ledgers.get(tp)
            if ledger is None or epoch != self._epoch:
                continue
            next_offset = self.offsets.after_loss(tp, wanted, beginnings[tp])
            if next_offset < ledger.next_offset:  # other records under old offsets; within a ledger offsets only rise
                self.feeds[tp.topic].lane.drop_waiting([ledger])
                ledger.closed = True
                ledger = self.ledgers[tp] = Ledger(tp.topic, tp.partition, next_offset)
            ledger.next_offset = next_offset
            self._consumer.seek(tp, next_offset)

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

    async def last_commit(self) -> None:
        """Commit what is finished and let go of all partitions, in bounded time."""
        await self._last_commit(STOP_COMMIT_S)
        self._let_go()

    async def leave(self) -> None:
        """Leave the group; bounded by whoever calls."""
        if self.settled:
            await self._consumer.stop()
        else:
            await clients.stop_in_rebalance(self._consumer)

    def _fail(self, error: Exception) -> None:
        if not self.failure.done():
            self.failure.set_exception(error)
