"""A producer that answers as it is told to: what aiokafka's takes and promises, without a broker."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

from aiokafka.errors import KafkaError, OutOfOrderSequenceNumber
from aiokafka.producer.message_accumulator import BatchBuilder

NEVER = "never"
BATCH_BYTES = 16_384


class Batch(BatchBuilder):  # type: ignore[misc]  # aiokafka has no types
    """aiokafka's own, not compressed, that says what it took."""

    def __init__(self, batch_bytes: int) -> None:
        super().__init__(batch_bytes, 0)
        self.values: list[bytes] = []

    def append(
        self, *, timestamp: int | None, key: bytes | None, value: bytes | None, headers: Sequence[Any] = ()
    ) -> Any:
        """Take the record, or None when it does not go in."""
        added = super().append(timestamp=timestamp, key=key, value=value, headers=headers)
        if added is not None:
            self.values.append(value or b"")
        return added


class Cluster:
    """What the client knows of the topics."""

    def __init__(self) -> None:
        self.found: dict[str, set[int]] = {}

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        """Return them, None when the client has not asked yet."""
        return self.found.get(topic)


class Client:
    """The producer's."""

    def __init__(self) -> None:
        self.cluster = Cluster()


class Producer:
    """One life: `enqueue` is what `send_batch` raises, `answers` what its futures become (NEVER: nothing)."""

    def __init__(
        self,
        *answers: KafkaError | str | None,
        enqueue: tuple[Exception, ...] = (),
        idempotent: bool = True,
        batch_bytes: int = BATCH_BYTES,
    ) -> None:
        self.answers = deque(answers)
        self.enqueue = deque(enqueue)
        self.idempotent = idempotent
        self.batch_bytes = batch_bytes
        self.client = Client()
        self.taken: list[tuple[str, int, list[bytes]]] = []
        """Topic, partition and values of each batch."""
        self.got: list[bytes] = []
        """The values that it has confirmed, or will."""
        self.futures: list[asyncio.Future[object]] = []
        self.stopped = False
        self.spoiled = False

    def create_batch(self) -> Batch:
        """Return an empty batch."""
        return Batch(self.batch_bytes)

    async def send_batch(self, batch: Batch, topic: str, *, partition: int) -> "asyncio.Future[object]":
        """Enqueue a closed batch, or refuse to; the future is shielded, as aiokafka's is."""
        assert batch.closed()
        if self.enqueue:
            raise self.enqueue.popleft()
        self.taken.append((topic, partition, batch.values))
        return asyncio.shield(self._future(batch.values))

    def _future(self, values: list[bytes]) -> "asyncio.Future[object]":
        """A broker's refusal spoils an idempotent producer, as a real one's does: it confirms nothing any more."""
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self.futures.append(future)
        answer = self.answers.popleft() if self.answers else OutOfOrderSequenceNumber() if self.spoiled else None
        if isinstance(answer, KafkaError):
            self.spoiled = self.idempotent
            asyncio.get_running_loop().call_soon(future.set_exception, answer)
        elif answer is None:
            self.got += values
            asyncio.get_running_loop().call_soon(future.set_result, None)
        return future

    async def stop(self) -> None:
        """Stop."""
        self.stopped = True
