"""The intake: the pump that fetches what there is room for, partition by partition, and feeds the lanes."""

import asyncio
import contextlib
from collections.abc import Mapping

from aiokafka import AIOKafkaConsumer, TopicPartition
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
from workers.stream.assignment import Assignment
from workers.stream.due import due, restored
from workers.stream.feed import Feed
from workers.stream.ledger import Ledger
from workers.stream.window import Delivery

FETCH_MAX_RECORDS = 100
"""Records of one partition per turn: bounds how far a window overshoots, and how long one partition has the loop."""

IDLE_WAIT_S = 0.1
FULL_WAIT_S = 0.01
"""Between two looks for room. A window is several times as deep as the slots: no slot runs dry meanwhile."""
GAP_CHECK_S = 0.3
GATE_CHECK_S = 0.5
FAILURE_PAUSE_S = 0.5
FAILURES_MAX = 20
"""Fetches that fail in a row before an error that aiokafka has no name for ends the worker."""

_NOWHERE = TopicPartition("", -1)
"""Never assigned: a fetch from it gives nothing, and takes what the coordinator has to say."""

log = get_logger(__name__)


class Intake:
    """Reads in turn from each partition that has room. What was fetched in an older generation is thrown away."""

    def __init__(self, consumer: AIOKafkaConsumer, assignment: Assignment) -> None:
        self._consumer = consumer
        self._assignment = assignment
        self._feeds = assignment.feeds
        self._generation = assignment.generation
        """The one that is fetched for."""
        self._turn = 0
        """The place of the partition that is asked first in the next round."""
        self._gaps_checked_at_s = 0.0
        self._approached: dict[TopicPartition, int] = {}
        """Partitions in which a batch could not be read, and the offset that we stood at then."""
        self._due_at_s: dict[TopicPartition, float] = {}
        """Of this generation's retry topics: partitions whose next record was not due, and when (monotonic) to look."""
        self.delivered_at_s = monotonic_s()

    async def pump(self) -> None:
        """Feed the lanes until the assignment is told to stop.

        Raises:
            Exit: what only a person or a new process can mend.
        """
        failures = 0
        while not self._assignment.stopping:
            try:
                await self._opened()
                await self._pass_gaps()
                if not await self._round():
                    await self._wait()
                failures = 0
            except IllegalStateError:  # revoked between our look and the fetch
                await asyncio.sleep(IDLE_WAIT_S)
            except OffsetOutOfRangeError as exc:
                await self._reset(exc)
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
        """Pass the gate, and take the coordinator's errors while it is shut: until somebody does, it joins no more.

        Only fetches take them (aiokafka), and a shut gate lets nobody fetch: a join that was refused once would have
        been the last one.

        Raises:
            KafkaError: what the coordinator met; it goes on.
        """
        while not self._assignment.gate.is_set():
            if self._assignment.offered:  # else the consumer is not started: `start` gives the error
                await self._consumer.getmany(_NOWHERE, timeout_ms=0)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._assignment.gate.wait(), GATE_CHECK_S)
        if self._overtaken:
            self._generation = self._assignment.generation
            self._due_at_s.clear()

    @property
    def _overtaken(self) -> bool:
        """Whether a rebalance has begun since the gate was passed: what was fetched then belongs to nobody."""
        return self._generation != self._assignment.generation

    async def _round(self) -> bool:
        """Take once from each partition that has room, first from the one behind the last that gave.

        Return whether any gave.
        """
        turns = list(enumerate(self._assignment.ledgers, 1))
        took = False
        for turn, tp in turns[self._turn :] + turns[: self._turn]:
            room = self.room(tp)
            if room > 0 and not self._overtaken:
                limit = 1 if tp in self._approached else min(room, FETCH_MAX_RECORDS)
                fetched = await self._consumer.getmany(tp, timeout_ms=0, max_records=limit)
                if await self._deliver(fetched):
                    took, self._turn = True, turn
        return took

    async def _wait(self) -> None:
        """Nothing came: wait for records where there is room, or for room."""
        ledgers = self._assignment.ledgers
        if not ledgers:
            await asyncio.sleep(IDLE_WAIT_S)
            return
        asleep = sum(map(self._asleep, ledgers))
        rooms = {tp: room for tp in ledgers if (room := self.room(tp)) > 0}
        if len(rooms) + asleep < len(ledgers):
            await asyncio.sleep(FULL_WAIT_S)
            return
        if not rooms:
            await asyncio.sleep(IDLE_WAIT_S)
            return
        limit = 1 if self._approached else min(FETCH_MAX_RECORDS, *rooms.values())
        fetched = await self._consumer.getmany(*rooms, timeout_ms=int(IDLE_WAIT_S * 1000), max_records=limit)
        await self._deliver(fetched)

    def room(self, tp: TopicPartition) -> int:
        """Return how many more records may be fetched from this partition now."""
        ledger = self._assignment.ledgers.get(tp)
        if ledger is None or self._assignment.stopping or self._asleep(tp):
            return 0
        lane = self._feeds[tp.topic].lane
        return lane.window.room(ledger, self._assignment.partitions[lane])

    def _asleep(self, tp: TopicPartition) -> bool:
        """Return whether nothing of this partition, one of a retry topic, is due yet."""
        return bool(self._due_at_s) and monotonic_s() < self._due_at_s.get(tp, 0.0)

    async def _deliver(self, fetched: Mapping[TopicPartition, list[ConsumerRecord]]) -> bool:
        """Enter fetched records in ledger and window and put them on their lane's channel; stale ones are dropped."""
        for tp, records in fetched.items():
            ledger = self._assignment.ledgers.get(tp)
            if ledger is None or self._overtaken or self._assignment.stopping:
                self._rewind(fetched)
                return False
            feed = self._feeds[tp.topic]
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

        Its ledgers either stand already, then the consumer goes back to them, or the assignment will seek when they do.
        """
        for tp in stale:
            if (ledger := self._assignment.ledgers.get(tp)) is not None:
                self._consumer.seek(tp, ledger.next_offset)

    def _entered(self, feed: Feed, ledger: Ledger, fetched: ConsumerRecord) -> Delivery | None:
        """Return a delivery to start; None when it is finished already, an orphan takes it, or its key's chain does.

        Chains grow here, in fetch order, so that an orphan never overtakes its redelivered predecessors.
        """
        lane = feed.lane
        if not ledger.take(fetched.offset, fetched.timestamp):
            metrics.SKIPPED.labels(ledger.topic).inc()
            return None
        if self._assignment.adopted(ledger, fetched.offset):
            return None
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

    async def _pass_gaps(self) -> None:
        """Let empty ledgers follow the consumer over gaps that end their partition.

        Race-free: only this task fetches, so what the consumer has passed it has also delivered to us.
        """
        now_s = monotonic_s()
        if now_s - self._gaps_checked_at_s < GAP_CHECK_S:
            return
        self._gaps_checked_at_s = now_s
        for tp, ledger in list(self._assignment.ledgers.items()):
            if not ledger.unfinished:
                position = await self._consumer.position(tp)
                if self._overtaken:
                    return
                ledger.pass_gap(position)

    def _approach(self, exc: KafkaError) -> None:
        """A batch cannot be read, and hides the good records before it that came in the same fetch: read up to it.

        One by one, so that none of them is in the client's hands when it meets the batch again.

        Raises:
            Exit: 70: the batch is what comes next. Nothing is skipped: a person decides (workers/README.md).
        """
        for tp, ledger in self._assignment.ledgers.items():
            if str(tp) not in str(exc):
                continue
            if self._approached.get(tp) != ledger.next_offset:
                self._approached[tp] = ledger.next_offset
                self._consumer.seek(tp, ledger.next_offset)
                return
            where = f"{tp.topic}/{tp.partition} at offset {ledger.next_offset}"
            raise Exit(EX_SOFTWARE, f"a record batch cannot be read: {where} ({exc}); nothing was skipped") from exc
        raise Exit(EX_SOFTWARE, f"a record batch cannot be read: {exc}; nothing was skipped") from exc

    async def _reset(self, exc: OffsetOutOfRangeError) -> None:
        """The log does not hold the offset that we read at: retention passed us, or the log is shorter than it was."""
        (offsets,) = exc.args
        beginnings = await self._assignment.offsets.beginnings(list(offsets))
        for tp, wanted in offsets.items():
            ledger = self._assignment.ledgers.get(tp)
            if ledger is None or self._overtaken:
                continue
            next_offset = self._assignment.offsets.after_loss(tp, wanted, beginnings[tp])
            if next_offset < ledger.next_offset:
                ledger = self._assignment.start_over(tp, next_offset)
            ledger.next_offset = next_offset
            self._consumer.seek(tp, next_offset)
