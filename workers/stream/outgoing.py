"""The way out: an idempotent producer, replaced when an error has spoiled it; sends are confirmed or repeated.

aiokafka's rules, as measured (kafka.md (e)-(g)): an error from `await send()` means *not enqueued*; an error from the
future it returns means *unknown*, and the producer is spent: after one refusal every later send to that partition fails
with OutOfOrderSequenceNumber without end. Order per key needs nothing here: a key's next record starts after the ack.
"""

import asyncio
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    InvalidTimestampError,
    InvalidTopicError,
    KafkaError,
    MessageSizeTooLargeError,
    PolicyViolationError,
    RecordListTooLargeError,
    UnknownError,
)
from aiokafka.partitioner import murmur2

from workers import metrics
from workers.clock import monotonic_s
from workers.errors import OutputRefused, OutputTooLarge
from workers.log import get_logger
from workers.records import Outgoing
from workers.settings.model import Kafka
from workers.stream import clients

RETRY_S = 0.2
SHORT_LIFE_S = 1.0
"""A producer that is spent sooner than this after its predecessor is replaced after a pause as long."""

REFUSALS = (
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    PolicyViolationError,
    InvalidTopicError,
    InvalidTimestampError,
    UnknownError,
)
"""A broker's last word about a batch. `UnknownError` is how aiokafka gives INVALID_RECORD (87)."""

BATCH_BYTES = 262_144
"""Of one partition, before compression. aiokafka's 16 KiB holds a dozen records; everyone else then waits for the batch
to drain, wakes with all the others and waits again: 20 waits a record at 256 in flight."""

LEAST_BATCH_BYTES = 16_384
"""Batches shrink to this (aiokafka's default) when a broker calls one too large: its limit was lowered meanwhile."""

RECORD_ENVELOPE_BYTES = 200
"""Most that a record batch adds around one record: 61 of batch header, and the record's own varints (KIP-98)."""

LZ4_BYTES_PER_EXTRA_BYTE = 8_192
"""Its frame has a size and a checksum, 4 bytes each, for each block of 64 KiB; header and end are in the envelope."""

log = get_logger(__name__)


def size_bytes(outgoing: Outgoing) -> int:
    """Return what the record takes in a batch of its own, at most: LZ4 makes what does not compress a little larger."""
    headers = sum(len(name.encode()) + len(value or b"") + 10 for name, value in outgoing.headers)
    content = len(outgoing.key or b"") + len(outgoing.value or b"") + headers
    return content + content // LZ4_BYTES_PER_EXTRA_BYTE + RECORD_ENVELOPE_BYTES


@dataclass(slots=True, eq=False)
class _Sending:
    """One `send` that waits, for a producer, for room in it, or for its confirmation; `error` is what it met last.

    `entering` is the producer that has not enqueued it yet; `sent_away` says that it was told not to wait for that one.
    """

    topic: str
    since_s: float
    task: "asyncio.Task[object] | None"
    error: str = ""
    entering: AIOKafkaProducer | None = None
    sent_away: bool = False


class Outgoings:
    """The `Sink` over Kafka."""

    def __init__(self, kafka: Kafka, partitions: Mapping[str, int], max_bytes: Mapping[str, int]) -> None:
        """`partitions` and `max_bytes` (`max.message.bytes`) by topic, as read from the cluster at start."""
        self.partitions = partitions
        self._max_bytes = max_bytes
        self._kafka = kafka
        self._producer: AIOKafkaProducer | None = None
        self._usable = asyncio.Event()
        self._replacing: asyncio.Task[None] | None = None
        self._alone: AIOKafkaProducer | None = None
        self._alone_in: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._opening_alone = asyncio.Lock()
        self._sending: dict[_Sending, None] = {}
        """Oldest first."""
        self._owed: dict[asyncio.Future[object], AIOKafkaProducer] = {}
        """What each producer has not confirmed yet, also where nobody waits any more."""
        self._replaced_at_s = -math.inf
        self._max_batch_size_bytes = min(
            [BATCH_BYTES, *(limit - RECORD_ENVELOPE_BYTES for limit in max_bytes.values())]
        )

    async def start(self) -> None:
        """Open the producer.

        Raises:
            KafkaError: no broker; retryable.
        """
        self._producer = await self._opened()
        self._usable.set()

    async def close(self) -> None:
        """Stop the producers; how long that may take is the caller's to bound."""
        if self._replacing is not None:
            self._replacing.cancel()
        await asyncio.gather(*(producer.stop() for producer in (self._producer, self._alone) if producer is not None))

    def producers(self) -> list[AIOKafkaProducer]:
        """Return the producers in use; a spent one that is being replaced is none."""
        main = self._producer if self._usable.is_set() else None
        return [producer for producer in (main, self._alone) if producer is not None]

    def pending_s(self) -> float:
        """Return how long the oldest send has waited, whatever for."""
        oldest = next(iter(self._sending), None)
        return 0.0 if oldest is None else monotonic_s() - oldest.since_s

    def oldest(self) -> str:
        """Return a sentence about the oldest send, for a person; '' when nothing waits."""
        oldest = next(iter(self._sending), None)
        if oldest is None:
            return ""
        error = f" (last error: {oldest.error})" if oldest.error else ""
        return f"the oldest send, to {oldest.topic}, has waited {self.pending_s():.0f} s for its confirmation{error}"

    @property
    def pending(self) -> int:
        """Records that wait for their confirmation."""
        return len(self._sending)

    async def send(self, outgoing: Outgoing) -> None:
        """Return when the broker has confirmed the record (see `ports.Sink`)."""
        this = _Sending(outgoing.topic, monotonic_s(), asyncio.current_task())
        self._sending[this] = None
        try:
            await self._send(outgoing, this)
        finally:
            del self._sending[this]

    async def _send(self, outgoing: Outgoing, this: _Sending) -> None:
        limit = self._max_bytes.get(outgoing.topic)
        if limit is not None and size_bytes(outgoing) > limit:
            raise OutputTooLarge(f"{size_bytes(outgoing)} bytes do not fit max.message.bytes {limit}", outgoing.topic)
        if outgoing.key is None and outgoing.value is None:  # aiokafka's send() refuses a keyless tombstone
            await self._send_alone(outgoing, this)
            return
        while True:
            producer = await self._current()
            future = await self._enqueued(producer, outgoing, this)
            if future is None:
                await asyncio.sleep(RETRY_S)
                continue
            try:
                await self._confirmed(future, producer)
            except REFUSALS as exc:
                self._replace(producer, exc)
                await self._send_alone(outgoing, this)  # the batch was refused, maybe for a neighbour
                return
            except KafkaError as exc:
                this.error = type(exc).__name__
                self._replace(producer, exc)
            else:
                return

    async def _confirmed(self, future: "asyncio.Future[object]", producer: AIOKafkaProducer) -> None:
        self._owed[future] = producer
        future.add_done_callback(self._settled)
        await asyncio.shield(future)

    def _settled(self, future: "asyncio.Future[object]") -> None:
        del self._owed[future]
        if not future.cancelled():
            future.exception()  # looked at: whoever waited may be gone

    async def _send_alone(self, outgoing: Outgoing, this: _Sending) -> None:
        """Send a record as a whole batch, so that nobody else can be refused with it: one at a time for each topic.

        On a producer of its own, since `send_batch` waits for a gap between others' batches and, when the producer is
        closed meanwhile, for ever. That producer is not idempotent: it has no sequences that a refusal could spoil.
        """
        async with self._alone_in[outgoing.topic]:
            while True:
                try:
                    producer = await self._current_alone()
                    await self._confirmed(await self._batch_of_one(producer, outgoing), producer)
                except REFUSALS as exc:
                    raise OutputRefused(f"{type(exc).__name__} from the broker", outgoing.topic) from exc
                except (KafkaError, OSError, AssertionError) as exc:  # unknown: a duplicate rather than a loss
                    metrics.SENDS_RETRIED.labels("alone").inc()
                    this.error = type(exc).__name__
                    log.warning("send_alone_failed", topic=outgoing.topic, error=this.error)
                    await asyncio.sleep(RETRY_S)
                else:
                    return

    async def _current(self) -> AIOKafkaProducer:
        await self._usable.wait()
        if self._producer is None:
            raise RuntimeError("send before start")
        return self._producer

    async def _enqueued(
        self, producer: AIOKafkaProducer, outgoing: Outgoing, this: _Sending
    ) -> "asyncio.Future[object] | None":
        """Return the future of an enqueued record, None when it was not enqueued and may be tried again."""
        this.entering = producer
        try:
            future: asyncio.Future[object] = await producer.send(
                outgoing.topic,
                outgoing.value,
                key=outgoing.key,
                partition=outgoing.partition,
                headers=outgoing.headers,
                timestamp_ms=outgoing.timestamp_ms,
            )
        except MessageSizeTooLargeError as exc:  # the client's own check: can never succeed
            raise OutputTooLarge("larger than the client's max_request_size", outgoing.topic) from exc
        except (KafkaError, AssertionError) as exc:  # aiokafka asserts on a partition that its metadata lacks
            metrics.SENDS_RETRIED.labels("not_enqueued").inc()
            this.error = type(exc).__name__
            log.warning("send_not_enqueued", topic=outgoing.topic, error=this.error)
            return None
        except asyncio.CancelledError:
            if not this.sent_away or this.task is None or this.task.uncancel() > 0:
                raise
            this.sent_away = False
            return None
        finally:
            this.entering = None
        return future

    def _send_away(self, spent: AIOKafkaProducer) -> None:
        """Let nobody wait for a producer that is about to be closed to take a record.

        A send that waits there for its topic's metadata would wait for ever: aiokafka's closed client answers nobody.
        """
        for sending in self._sending:
            if sending.entering is spent and sending.task is not None:
                sending.sent_away = True
                sending.task.cancel()

    async def _current_alone(self) -> AIOKafkaProducer:
        async with self._opening_alone:
            if self._alone is None:
                self._alone = await self._opened(idempotent=False)
        return self._alone

    async def _batch_of_one(self, producer: AIOKafkaProducer, outgoing: Outgoing) -> "asyncio.Future[object]":
        """Enqueue one record as a whole batch."""
        partition = outgoing.partition
        if partition is None:
            partition = (murmur2(outgoing.key or b"") & 0x7FFFFFFF) % self.partitions.get(outgoing.topic, 1)
        batch = producer.create_batch()
        appended = batch.append(
            key=outgoing.key, value=outgoing.value, timestamp=outgoing.timestamp_ms, headers=outgoing.headers
        )
        if appended is None:
            raise OutputTooLarge("larger than one batch", outgoing.topic)
        batch.close()
        future: asyncio.Future[object] = await producer.send_batch(batch, outgoing.topic, partition=partition)
        return future

    def _replace(self, producer: AIOKafkaProducer, cause: KafkaError) -> None:
        """Give a spent producer up, once: new sends wait for its successor."""
        if producer is not self._producer or not self._usable.is_set():
            return
        self._usable.clear()
        if isinstance(cause, MessageSizeTooLargeError | RecordListTooLargeError):
            smaller = self._max_batch_size_bytes // 4
            self._max_batch_size_bytes = max(smaller, min(LEAST_BATCH_BYTES, self._max_batch_size_bytes))
        metrics.PRODUCER_REPLACED.inc()
        log.warning("producer_replaced", error=type(cause).__name__, pending=self.pending)
        self._replacing = asyncio.create_task(self._successor(producer))

    async def _successor(self, spent: AIOKafkaProducer) -> None:
        """Let the spent producer's other sends end, close it, open the next; it tries until it succeeds.

        What the spent one owed in the end is unknown, and its senders repeat it.
        """
        self._send_away(spent)
        if others := self._owed_by(spent):
            await asyncio.wait(others, timeout=self._kafka.send_timeout_s)
        if not await clients.quietly_closed(spent, 5.0):
            await clients.end(spent)
        if monotonic_s() - self._replaced_at_s < SHORT_LIFE_S:  # a right that is missing: no new producer mends that
            await asyncio.sleep(SHORT_LIFE_S)
        self._replaced_at_s = monotonic_s()
        while True:
            try:
                self._producer = await self._opened()
            except (KafkaError, OSError) as exc:
                log.warning("producer_not_opened", error=type(exc).__name__)
                await asyncio.sleep(1.0)
            else:
                self._usable.set()
                return

    def _owed_by(self, spent: AIOKafkaProducer) -> list["asyncio.Future[object]"]:
        return [future for future, producer in self._owed.items() if producer is spent]

    async def _opened(self, *, idempotent: bool = True) -> AIOKafkaProducer:
        producer = clients.producer(self._kafka, max_batch_size_bytes=self._max_batch_size_bytes, idempotent=idempotent)
        try:
            await producer.start()
        except BaseException:
            await clients.quietly_closed(producer, 2.0)
            raise
        return producer
