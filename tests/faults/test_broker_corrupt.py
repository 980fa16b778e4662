"""A batch on the broker's disk whose bytes have changed since it was written."""

import asyncio
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from tests.support.deployment import wait_for
from tests.support.proxied_kafka import ProxiedKafka
from tests.support.stand import TASK, Simulate, Stand, tickets
from tests.support.topics import members
from workers.errors import EX_SOFTWARE

GOOD, BAD, MORE = 8, 10, 15
STARTS_MAX = 5


@pytest.mark.fault("B10")
async def test_a_corrupt_batch_is_never_passed_over(
    proxied_kafka: ProxiedKafka, simulate: Simulate, tmp_path: Path
) -> None:
    """B10: the worker ends with 70 and says where; behind it goes on who moves the group's offset by hand, and only he.

    What was before it is done, and what is behind it is not touched until then.
    """
    own = Stand(proxied_kafka, tmp_path)
    topic, model = await own.create(partitions=1), simulate(latency="const:0.01")
    for start, count in ((0, GOOD), (GOOD, BAD), (GOOD + BAD, MORE)):  # each call is a batch of its own
        await own.put(topic, tickets(count, start=start))
    proxied_kafka.stop()  # cleanly: after a crash it would check the log itself, and cut it
    flip(proxied_kafka.log_folder(topic, 0), b"invoice %d" % (GOOD + 1))
    proxied_kafka.start()
    tasks = {TASK: {"input": topic}}
    for _ in range(STARTS_MAX):  # as its supervisor does; each time it finishes what it has begun
        with own.worker(tasks, model.url) as worker:
            assert await asyncio.to_thread(worker.exit_code) == EX_SOFTWARE
            said = worker.log.read_text()
            assert f"cannot be read: {topic}/0 at offset {GOOD} " in said
            assert "nothing was skipped" in said
        if await own.committed(topic) == {0: GOOD}:
            break
    assert await own.committed(topic) == {0: GOOD}
    assert len(await own.read(topic, "enriched")) == GOOD

    await move_group(own, topic, GOOD + BAD)
    with own.worker(tasks, model.url) as worker:
        await asyncio.to_thread(wait_for, lambda: worker.lag() == 0, 90, worker.tail)
        assert worker.terminate()[0] == 0
    assert await own.committed(topic) == {0: GOOD + BAD + MORE}
    assert len(await own.read(topic, "enriched")) == GOOD + MORE


def flip(segments: Path, text: bytes) -> None:
    """Change one byte where this text stands."""
    [segment] = segments.glob("*.log")
    written = bytearray(segment.read_bytes())
    written[written.index(text)] ^= 1
    segment.write_bytes(written)


async def move_group(stand: Stand, topic: str, next_offset: int) -> None:
    """What `kafka-consumer-groups --reset-offsets --to-offset` does, with all workers stopped.

    One that had no time to say that it leaves is a member until its session ends.
    """
    async with asyncio.timeout(60):
        while await members(stand.servers, stand.group):  # noqa: ASYNC110 - a group has no event to wait for
            await asyncio.sleep(0.2)
    tp = TopicPartition(topic, 0)
    consumer = AIOKafkaConsumer(bootstrap_servers=stand.servers, group_id=stand.group, enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.assign([tp])
        await consumer.commit({tp: next_offset})
    finally:
        await consumer.stop()
