"""The way out: an idempotent producer, replaced when an error has spoiled it; sends are confirmed or repeated.

aiokafka's rules, as measured (kafka.md (e)-(g)): an error from `await send_batch()` means *not enqueued*; an error from
the future it returns means *unknown*, and the producer is spent: after one refusal every later batch to that partition
fails with OutOfOrderSequenceNumber without end. Order per key needs nothing here: a key's next record starts after the
ack. How records become batches is in `accumulator`.
"""

import asyncio
import math
from collections import defaultdict
from collections.abc import Mapping

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
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from workers import metrics
from workers.clock import monotonic_s
from workers.errors import OutputRefused, OutputTooLarge
from workers.log import get_logger
from workers.records import Outgoing
from workers.settings.model import Kafka
from workers.stream import clients
from workers.stream.accumulator import RETRY_S, Accumulator
from workers.stream.queue import Sending, append

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
"""Of one partition, before compression. aiokafka's 16 KiB holds a dozen records, and one batch at a time flies."""

LEAST_BATCH_BYTES = 16_384
"""Batches shrink to this (aiokafka's default) when a broker calls one too large: its limit was lowered meanwhile."""

RECORD_ENVELOPE_BYTES = 200
"""Most that a record batch adds around one record: 61 of batch header, and the record's own varints (KIP-98)."""

LZ4_FRAME_BYTES = 64
LZ4_BYTES_PER_EXTRA_BYTE = 8_192
"""Its frame has a size and a checksum, 4 bytes each, for each block of 64 KiB; head and end take less than 64."""

log = get_logger(__name__)


def size_bytes(outgoing: Outgoing) -> int:
    """Return what the record takes in a batch of its own, at most: LZ4 makes what does not compress a little larger."""
    alone = int(DefaultRecordBatchBuilder.estimate_size_in_bytes(outgoing.key, outgoing.value, outgoing.headers))
    return alone + alone // LZ4_BYTES_PER_EXTRA_BYTE + LZ4_FRAME_BYTES


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
        self._sending: dict[Sending, None] = {}
        """Oldest first."""
        self._replaced_at_s = -math.inf
        self._max_batch_size_bytes = min(
            [BATCH_BYTES, *(limit - RECORD_ENVELOPE_BYTES for limit in max_bytes.values())]
        )
        self._accumulator = Accumulator(self._current, self._replace)

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
        try:
            open_ones = [producer for producer in (self._producer, self._alone) if producer is not None]
            await asyncio.gather(*(producer.stop() for producer in open_ones))
        finally:
            self._accumulator.close()

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
        topic, error = oldest.outgoing.topic, f" (last error: {oldest.error})" if oldest.error else ""
        return f"the oldest send, to {topic}, has waited {self.pending_s():.0f} s for its confirmation{error}"

    @property
    def pending(self) -> int:
        """Records that wait for their confirmation."""
        return len(self._sending)

    async def send(self, outgoing: Outgoing) -> None:
        """Return when the broker has confirmed the record (see `ports.Sink`)."""
        size, limit = size_bytes(outgoing), self._max_bytes.get(outgoing.topic)
        if limit is not None and size > limit:
            raise OutputTooLarge(f"{size} bytes do not fit max.message.bytes {limit}", outgoing.topic)
        sending = Sending(outgoing, size, monotonic_s())
        self._sending[sending] = None
        try:
            partition = self._partition(outgoing)
            while (error := await self._accumulator.add(sending, partition)) is not None:
                sending.error = type(error).__name__
                if isinstance(error, REFUSALS):
                    await self._send_alone(sending, partition)  # the batch was refused, maybe for a neighbour
                    return
        finally:
            del self._sending[sending]

    def _partition(self, outgoing: Outgoing) -> int:
        """Return where it goes: by its key if need be, over as many partitions as the topic has by now."""
        if outgoing.partition is not None:
            return outgoing.partition
        topic, main = outgoing.topic, self._producer
        known = None if main is None else main.client.cluster.partitions_for_topic(topic)
        count = len(known) if known else self.partitions.get(topic, 1)
        return int(murmur2(outgoing.key or b"") & 0x7FFFFFFF) % count

    async def _send_alone(self, sending: Sending, partition: int) -> None:
        """Send a record as a whole batch, so that nobody else can be refused with it: one at a time for each topic.

        On a producer of its own, which is not idempotent: it has no sequences that a refusal could spoil.
        """
        outgoing = sending.outgoing
        async with self._alone_in[outgoing.topic]:
            while True:
                try:
                    producer = await self._current_alone()
                    await (await self._batch_of_one(producer, outgoing, partition))
                except REFUSALS as exc:
                    raise OutputRefused(f"{type(exc).__name__} from the broker", outgoing.topic) from exc
                except (KafkaError, OSError, AssertionError) as exc:  # unknown: a duplicate rather than a loss
                    metrics.SENDS_RETRIED.labels("alone").inc()
                    sending.error = type(exc).__name__
                    log.warning("send_alone_failed", topic=outgoing.topic, error=sending.error)
                    await asyncio.sleep(RETRY_S)
                else:
                    return

    async def _current(self) -> AIOKafkaProducer:
        await self._usable.wait()
        if self._producer is None:
            raise RuntimeError("send before start")
        return self._producer

    async def _current_alone(self) -> AIOKafkaProducer:
        async with self._opening_alone:
            if self._alone is None:
                self._alone = await self._opened(idempotent=False)
        return self._alone

    async def _batch_of_one(
        self, producer: AIOKafkaProducer, outgoing: Outgoing, partition: int
    ) -> "asyncio.Future[object]":
        """Enqueue one record as a whole batch."""
        batch = producer.create_batch()
        append(batch, outgoing)
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
        self._accumulator.send_away(spent)
        if others := self._accumulator.owed_by(spent):
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

    async def _opened(self, *, idempotent: bool = True) -> AIOKafkaProducer:
        self._accumulator.batch_bytes = self._max_batch_size_bytes
        producer = clients.producer(self._kafka, max_batch_size_bytes=self._max_batch_size_bytes, idempotent=idempotent)
        try:
            await producer.start()
        except BaseException:
            await clients.quietly_closed(producer, 2.0)
            raise
        return producer
