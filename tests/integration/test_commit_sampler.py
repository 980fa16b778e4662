"""The sampler of commits: it sees one that was too early although all is well in the end, and outlives a broker."""

import asyncio

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from tests.support.commit_sampler import CommitSampler, sampling
from tests.support.deployment import wait_for
from tests.support.outcomes import answered
from tests.support.stand import TASK, Stand, tickets
from tests.support.topics import New, read_all
from workers.records import Record


async def commit(stand: Stand, topic: str, offset: int) -> None:
    """Commit as a member of the group would."""
    consumer = AIOKafkaConsumer(bootstrap_servers=stand.servers, group_id=stand.group, enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, 0)])
        await consumer.commit({TopicPartition(topic, 0): OffsetAndMetadata(offset, "")})
    finally:
        await consumer.stop()


async def write_outcomes(stand: Stand, topic: str, offsets: range) -> None:
    """Write what a worker would have written for these records."""
    for record in await read_all(stand.servers, topic):
        if record.offset in offsets:
            one = Record(topic, 0, record.offset, 0, record.key, record.value, [])
            made = answered(one)
            new = New(key=made.key, value=made.value, headers=[(n, v or b"") for n, v in made.headers], partition=0)
            await stand.put(f"{topic}.{TASK}.enriched", [new])


async def saw(sampler: CommitSampler, offset: int) -> None:
    """Wait until a sample has this commit."""
    await asyncio.to_thread(
        wait_for, lambda: any(one.committed.get(0, (0, ""))[0] == offset for one in sampler.samples), 30
    )


async def test_an_early_commit_is_seen_though_all_is_well_in_the_end(real: Stand) -> None:
    """Offsets 2 to 4 are committed before their outcomes are written; later nothing tells any more."""
    topic = await real.create(partitions=1)
    await real.put(topic, tickets(6))
    async with sampling(real.servers, real.group, topic, TASK) as sampler:
        await write_outcomes(real, topic, range(2))
        await commit(real, topic, 2)
        await saw(sampler, 2)
        sound = sampler.samples
        await commit(real, topic, 5)
        await saw(sampler, 5)
        assert await sampler.now("kill")
        await write_outcomes(real, topic, range(2, 6))
        await commit(real, topic, 6)
    assert sampler.samples[-1].committed == {0: (6, "")}
    assert "kill" in [one.label for one in sampler.samples]
    assert not (await real.verdict(topic, settled=True)).broken()
    assert not (await real.verdict(topic, samples=sound)).broken()
    found = await real.verdict(topic, samples=sampler.samples)
    assert found.faults() == {"early": [f"{topic}/0/{n}" for n in (2, 3, 4)]}


async def test_it_outlives_a_broker_that_goes_away(quick: Stand) -> None:
    """No sample while nobody answers, new ones afterwards; `now` waits for the first."""
    topic = await quick.create(partitions=1)
    await quick.put(topic, tickets(1))
    async with sampling(quick.servers, quick.group, topic, TASK) as sampler:
        quick.broker.down()  # type: ignore[union-attr]
        looks = sampler.looks
        waiting = asyncio.create_task(sampler.now("away"))
        await asyncio.sleep(0.5)
        assert not waiting.done()
        assert sampler.looks <= looks + 1, "one may have been under way"
        quick.broker.up()  # type: ignore[union-attr]
        assert await waiting
        await commit(quick, topic, 1)
        await saw(sampler, 1)
