"""Records that wait to be produced: gathered by partition for 5 ms, then sent, a batch for each partition.

aiokafka's `send()` takes them one by one, with a look at the metadata, a partitioner and a future for each, and every
partition lingers by itself, so that a request has the batches of few. Here a record costs a place in a queue, and the
partitions linger together, so that a request has the batches of all. aiokafka gets a batch that is closed
(`create_batch`, `send_batch`: nothing private), and a partition's next one after the answer to the one before; it would
not send it sooner. A batch is confirmed or refused as a whole, and each record in it is told.
"""

import asyncio
from collections.abc import Awaitable, Callable

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.producer.message_accumulator import BatchBuilder

from workers import metrics
from workers.log import get_logger
from workers.stream.queue import Queue, Sending

LINGER_S = 0.005
"""From the first record, of whichever partition, until all that came meanwhile is sent."""

RETRY_S = 0.2

log = get_logger(__name__)


class Accumulator:
    """The queues of all partitions."""

    def __init__(
        self,
        current: Callable[[], Awaitable[AIOKafkaProducer]],
        spent: Callable[[AIOKafkaProducer, KafkaError], None],
    ) -> None:
        """For the loop that runs.

        `current` gives the producer, and waits for one if it must; `spent` is told what a batch of its met.
        """
        self.batch_bytes = 0
        """So much in a queue is sent at once."""
        self._current = current
        self._spent = spent
        self._loop = asyncio.get_running_loop()
        self._queues: dict[tuple[str, int], Queue] = {}
        self._gathered: list[Queue] = []
        """Those that began to fill during this linger."""
        self._linger: asyncio.TimerHandle | None = None

    def add(self, sending: Sending, partition: int) -> "asyncio.Future[KafkaError | None]":
        """Queue a record and return its `answer`. Cancelled while it waits for its batch, it is not sent."""
        sending.answer = answer = self._loop.create_future()
        at = (sending.outgoing.topic, partition)
        queue = self._queues.get(at)
        if queue is None:
            queue = self._queues[at] = Queue(*at)
        if not queue.waiting:
            self._gathered.append(queue)
            if self._linger is None:
                self._linger = self._loop.call_later(LINGER_S, self._lingered)
        queue.waiting.append(sending)
        queue.bytes += sending.size_bytes
        if queue.bytes >= self.batch_bytes:
            self._let_go(queue)
        return answer

    def owed_by(self, producer: AIOKafkaProducer) -> "list[asyncio.Future[object]]":
        """Return the answers that a producer has not given yet."""
        return [each.owed for each in self._queues.values() if each.owed is not None and each.producer is producer]

    def send_away(self, producer: AIOKafkaProducer) -> None:
        """Let nobody wait for a producer that is about to be closed to take a batch.

        A batch that waits there for its topic's metadata would wait for ever: aiokafka's closed client answers nobody.
        """
        for queue in self._queues.values():
            if queue.entering is producer and queue.flight is not None:
                queue.entering = None
                queue.flight.cancel()

    def close(self) -> None:
        """Let nothing fly any more."""
        if self._linger is not None:
            self._linger.cancel()
        for queue in self._queues.values():
            if queue.flight is not None:
                queue.flight.cancel()

    def _lingered(self) -> None:
        self._linger = None
        gathered, self._gathered = self._gathered, []
        for queue in gathered:
            self._let_go(queue)

    def _let_go(self, queue: Queue) -> None:
        queue.due = bool(queue.waiting)
        if queue.due and queue.flight is None:
            queue.flight = asyncio.create_task(self._fly(queue))

    async def _fly(self, queue: Queue) -> None:
        """Send batch after batch, each after the answer to the one before, while something is due."""
        try:
            while queue.due:
                producer = await self._current()
                batch = producer.create_batch()
                queue.fill(batch)
                if queue.aboard:
                    await self._sent(queue, producer, batch)
        except Exception as exc:  # noqa: BLE001 - a bug: those who wait must know, or they would wait for ever
            queue.fail(exc)
        queue.flight = None

    async def _sent(self, queue: Queue, producer: AIOKafkaProducer, batch: BatchBuilder) -> None:
        """Return when the batch has its answer, or has not been taken and may be tried again."""
        queue.entering = producer
        try:
            answer: asyncio.Future[object] = await producer.send_batch(batch, queue.topic, partition=queue.partition)
        except (KafkaError, AssertionError) as exc:  # aiokafka asserts on a partition that its metadata lacks
            queue.entering = None
            error = type(exc).__name__
            metrics.SENDS_RETRIED.labels("not_enqueued").inc(len(queue.aboard))
            log.warning("batch_not_enqueued", topic=queue.topic, records=len(queue.aboard), error=error)
            queue.put_back(error)
            await asyncio.sleep(RETRY_S)
            return
        except asyncio.CancelledError:
            if queue.entering is not None or queue.flight is None or queue.flight.uncancel() > 0:
                raise
            queue.put_back()  # sent away
            return
        queue.entering, queue.producer, queue.owed = None, producer, answer
        try:
            await answer
        except KafkaError as exc:
            self._spent(producer, exc)
            queue.settle(exc)
        else:
            queue.settle(None)
        finally:
            queue.owed = None
