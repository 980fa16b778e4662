"""A partition's records on their way to the broker: gathered, aboard a batch, told what became of it."""

import asyncio
from collections import deque
from dataclasses import dataclass, field

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.producer.message_accumulator import BatchBuilder

from workers.records import Outgoing


@dataclass(slots=True, eq=False)
class Sending:
    """A record on its way, since `since_s` (monotonic). `error` is what it met last.

    `answer`: None when the broker has confirmed it; an error of its batch means that nobody knows.
    """

    outgoing: Outgoing
    size_bytes: int
    since_s: float
    error: str = ""
    answer: "asyncio.Future[KafkaError | None]" = field(init=False)


def append(batch: BatchBuilder, outgoing: Outgoing) -> bool:
    """Put a record into a batch; return whether it went in. The first one always does, whatever its size."""
    added = batch.append(
        key=outgoing.key, value=outgoing.value, timestamp=outgoing.timestamp_ms, headers=outgoing.headers
    )
    return added is not None


class Queue:
    """What waits for one partition, and its batch in flight."""

    __slots__ = ("aboard", "bytes", "due", "entering", "flight", "owed", "partition", "producer", "topic", "waiting")

    def __init__(self, topic: str, partition: int) -> None:
        self.topic = topic
        self.partition = partition
        self.waiting: deque[Sending] = deque()
        self.bytes = 0
        """Of what waits."""
        self.due = False
        """Whether what waits has lingered, or is enough for a batch."""
        self.aboard: list[Sending] = []
        """The records of the batch in flight."""
        self.flight: asyncio.Task[None] | None = None
        self.entering: AIOKafkaProducer | None = None
        """The producer that has not taken the batch yet, None when it has, or when nobody shall wait for that one."""
        self.producer: AIOKafkaProducer | None = None
        self.owed: asyncio.Future[object] | None = None
        """The producer that has taken the batch, and its answer to come."""

    def fill(self, batch: BatchBuilder) -> None:
        """Move what waits into the batch, as far as it goes in; whoever has stopped waiting is left out."""
        while self.waiting:
            sending = self.waiting[0]
            if not sending.answer.done():
                try:
                    fits = append(batch, sending.outgoing)
                except (TypeError, ValueError) as exc:  # a bug of ours, and it costs nobody else
                    sending.answer.set_exception(exc)
                else:
                    if not fits:
                        break
                    self.aboard.append(sending)
            self.waiting.popleft()
            self.bytes -= sending.size_bytes
        batch.close()
        self.due = bool(self.waiting)

    def put_back(self, error: str = "") -> None:
        """Let those aboard wait again, before all others: the batch was not taken."""
        for sending in reversed(self.aboard):
            sending.error = error or sending.error
            self.bytes += sending.size_bytes
            self.waiting.appendleft(sending)
        self.aboard = []
        self.due = True

    def settle(self, error: KafkaError | None) -> None:
        """Tell those aboard."""
        for sending in self.aboard:
            if not sending.answer.done():
                sending.answer.set_result(error)
        self.aboard = []

    def fail(self, error: BaseException) -> None:
        """Tell everyone of a bug: nothing flies for them any more."""
        for sending in [*self.aboard, *self.waiting]:
            if not sending.answer.done():
                sending.answer.set_exception(error)
        self.aboard, self.bytes, self.due, self.flight = [], 0, False, None
        self.waiting.clear()
