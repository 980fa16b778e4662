"""The way out: one idempotent producer, replaced when an error has spoiled it; sends are confirmed or repeated.

aiokafka's rules, as measured (kafka.md (e)-(g)): an error from `await send()` means *not enqueued*; an error from the
future it returns means *unknown*, and the producer is spent: after one refusal every later send to that partition fails
with OutOfOrderSequenceNumber without end. Order per key needs nothing here: a key's next record starts after the ack.
"""

import asyncio
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

from workers import metrics
from workers.clock import monotonic_s
from workers.errors import OutputRefused, OutputTooLarge
from workers.log import get_logger
from workers.records import Outgoing
from workers.settings.model import Kafka
from workers.stream import clients

RETRY_S = 0.2
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
"""Of one partition, before compression. aiokafka's 16 KiB holds a dozen records; everyone else then waits for the batch to
drain, wakes with all the others and waits again: 20 waits a record at 256 in flight."""

RECORD_ENVELOPE_BYTES = 200
"""Most that a record batch adds around one record: 61 of batch header, and the record's own varints (KIP-98)."""

log = get_logger(__name__)


def size_bytes(outgoing: Outgoing) -> int:
    """Return what the record takes in a batch of its own, uncompressed, at most."""
    headers = sum(len(name.encode()) + len(value or b"") + 10 for name, value in outgoing.headers)
    return len(outgoing.key or b"") + len(outgoing.value or b"") + headers + RECORD_ENVELOPE_BYTES


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
        self._pending: dict[asyncio.Future[object], float] = {}
        self._stuck_since_s: float | None = None
        self._max_batch_size_bytes = min([BATCH_BYTES, *(limit - RECORD_ENVELOPE_BYTES for limit in max_bytes.values())])

    async def start(self) -> None:
        """Open the producer.

        Raises:
            KafkaError: no broker; retryable.
        """
        self._producer = await self._opened()
        self._usable.set()

    async def close(self) -> None:
        """Stop the producer; one that hangs is left behind after 5 s."""
        if self._replacing is not None:
            self._replacing.cancel()
        if self._producer is not None and not await clients.quietly_closed(self._producer, 5.0):
            log.warning("producer_left_behind")

    def pending_s(self) -> float:
        """Return how long the oldest unconfirmed send has waited; also counts sends that could not be enqueued."""
        oldest_s = next(iter(self._pending.values()), None)
        since_s = min((at for at in (oldest_s, self._stuck_since_s) if at is not None), default=None)
        return 0.0 if since_s is None else monotonic_s() - since_s

    @property
    def pending(self) -> int:
        """Records in the producer's hands."""
        return len(self._pending)

    async def send(self, outgoing: Outgoing) -> None:
        """Return when the broker has confirmed the record (see `ports.Sink`)."""
        limit = self._max_bytes.get(outgoing.topic)
        if limit is not None and size_bytes(outgoing) > limit:
            raise OutputTooLarge(f"{size_bytes(outgoing)} bytes do not fit max.message.bytes {limit}", outgoing.topic)
        alone = outgoing.key is None and outgoing.value is None  # aiokafka's send() refuses a keyless tombstone
        while True:
            producer = await self._current()
            future = await self._enqueued(producer, outgoing, alone=alone)
            if future is None:
                await asyncio.sleep(RETRY_S)
                continue
            self._pending[future] = monotonic_s()
            future.add_done_callback(self._pending.pop)
            try:
                await asyncio.shield(future)
            except REFUSALS as exc:
                self._replace(producer, exc)
                if alone:
                    raise OutputRefused(f"{type(exc).__name__} from the broker", outgoing.topic) from exc
                alone = True  # the batch was refused, maybe for a neighbour: once more in a batch of its own
            except KafkaError as exc:
                self._replace(producer, exc)
            else:
                return

    async def _current(self) -> AIOKafkaProducer:
        await self._usable.wait()
        if self._producer is None:
            raise RuntimeError("send before start")
        return self._producer

    async def _enqueued(
        self, producer: AIOKafkaProducer, outgoing: Outgoing, *, alone: bool
    ) -> "asyncio.Future[object] | None":
        """Return the future of an enqueued record, None when it was not enqueued and may be tried again."""
        try:
            if alone:
                future = await self._alone(producer, outgoing)
            else:
                future = await producer.send(
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
            self._stuck_since_s = self._stuck_since_s or monotonic_s()
            log.warning("send_not_enqueued", topic=outgoing.topic, error=type(exc).__name__)
            return None
        self._stuck_since_s = None
        return future

    async def _alone(self, producer: AIOKafkaProducer, outgoing: Outgoing) -> "asyncio.Future[object]":
        """Enqueue one record as a whole batch: nobody else can be refused with it."""
        partition = outgoing.partition
        if partition is None:
            partition = (murmur2(outgoing.key or b"") & 0x7FFFFFFF) % self.partitions.get(outgoing.topic, 1)
        batch = producer.create_batch()
        if (
            batch.append(
                key=outgoing.key, value=outgoing.value, timestamp=outgoing.timestamp_ms, headers=outgoing.headers
            )
            is None
        ):
            raise OutputTooLarge("larger than one batch", outgoing.topic)
        batch.close()
        future: asyncio.Future[object] = await producer.send_batch(batch, outgoing.topic, partition=partition)
        return future

    def _replace(self, producer: AIOKafkaProducer, cause: KafkaError) -> None:
        """Give a spent producer up, once: new sends wait for its successor."""
        if producer is not self._producer or not self._usable.is_set():
            return
        self._usable.clear()
        metrics.PRODUCER_REPLACED.inc()
        log.warning("producer_replaced", error=type(cause).__name__, pending=len(self._pending))
        self._replacing = asyncio.create_task(self._successor(producer))

    async def _successor(self, spent: AIOKafkaProducer) -> None:
        """Let the spent producer's other sends end, close it, open the next; it tries until it succeeds."""
        if others := list(self._pending):
            await asyncio.wait(others, timeout=self._kafka.send_timeout_s)
        await clients.quietly_closed(spent, 5.0)
        for future in list(self._pending):  # what the closed producer still owed is unknown: its senders repeat it
            if not future.done():
                future.set_exception(KafkaError("producer replaced"))
        while True:
            try:
                self._producer = await self._opened()
            except (KafkaError, OSError) as exc:
                log.warning("producer_not_opened", error=type(exc).__name__)
                await asyncio.sleep(1.0)
            else:
                self._usable.set()
                return

    async def _opened(self) -> AIOKafkaProducer:
        producer = clients.producer(self._kafka, max_batch_size_bytes=self._max_batch_size_bytes)
        try:
            await producer.start()
        except BaseException:
            await clients.quietly_closed(producer, 2.0)
            raise
        return producer
