"""What an expert writes with aiokafka and aiohttp: a task per record, a semaphore, a low-water mark per partition.

At least once; commits every second; no order within a key.
"""

import asyncio
from collections import deque
from typing import Any

import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError
from chat import BOOTSTRAP, GROUP, INSTANCE, SLOTS, TOPIC_IN, TOPIC_OUT, enriched, session

COMMIT_S = 1.0


class Track:
    """The records of one partition. `mark` is the next offset that is safe to commit, None before the first."""

    def __init__(self) -> None:
        self.started: deque[int] = deque()
        self.finished: set[int] = set()
        self.mark: int | None = None
        self.committed: int | None = None

    def finish(self, offset: int) -> None:
        """Move the mark over what is finished without a gap."""
        self.finished.add(offset)
        while self.started and self.started[0] in self.finished:
            first = self.started.popleft()
            self.finished.discard(first)
            self.mark = first + 1


tracks: dict[TopicPartition, Track] = {}


async def commit(consumer: AIOKafkaConsumer) -> None:
    """Commit the marks that have moved."""
    marks = {at: track.mark for at, track in tracks.items() if track.mark not in (None, track.committed)}
    if marks:
        await consumer.commit(marks)
        for at, mark in marks.items():
            tracks[at].committed = mark


class Leaving(ConsumerRebalanceListener):
    """Commits what leaves, and forgets it."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self.consumer = consumer

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Before they go."""
        try:
            await commit(self.consumer)
        finally:
            for at in revoked:
                tracks.pop(at, None)

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Nothing to do: a track is made when its first record comes."""


async def committing(consumer: AIOKafkaConsumer) -> None:
    """Commit every second; a rebalance may be in the way, the next try is not."""
    while True:
        await asyncio.sleep(COMMIT_S)
        try:
            await commit(consumer)
        except KafkaError as error:
            print("commit:", error, flush=True)


async def main() -> None:
    """Work for ever."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=BOOTSTRAP,
        group_id=GROUP,
        group_instance_id=INSTANCE,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_poll_records=500,
    )
    producer = AIOKafkaProducer(bootstrap_servers=BOOTSTRAP, linger_ms=5, acks="all", enable_idempotence=True)
    free, running = asyncio.Semaphore(SLOTS), set()
    await producer.start()
    consumer.subscribe([TOPIC_IN], listener=Leaving(consumer))
    await consumer.start()
    async with session() as client:

        async def one(record: Any, track: Track) -> None:
            try:
                value = await enriched(client, record.value)
                await (await producer.send(TOPIC_OUT, value, key=record.key))
                track.finish(record.offset)
            finally:
                free.release()

        running.add(asyncio.create_task(committing(consumer)))
        while True:
            for at, records in (await consumer.getmany(timeout_ms=200)).items():
                track = tracks.setdefault(at, Track())
                for record in records:
                    await free.acquire()
                    track.started.append(record.offset)
                    task = asyncio.create_task(one(record, track))
                    running.add(task)
                    task.add_done_callback(running.discard)


if __name__ == "__main__":
    uvloop.run(main())
