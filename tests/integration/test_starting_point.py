"""Where a group begins, what it does when records are gone, and that gaps in the offsets do not hold it up."""

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from aiokafka.admin.records_to_delete import RecordsToDelete
from aiokafka.structs import TopicPartition

from tests.support.deployment import wait_for
from tests.support.stand import TASK, Simulate, Stand, tickets
from tests.support.topics import fresh_name
from workers.audit import named_source
from workers.errors import EX_CONFIG

LATEST = {"start": "latest", "metadata_max_age_s": 1}


async def test_latest_skips_what_was_there(stand: Stand, simulate: Simulate) -> None:
    """A new group under `start: latest` does only what comes after it, and commits the end of what it skipped."""
    topic = await stand.create()
    await stand.put(topic, tickets(100))
    before = await stand.ends(topic)
    with stand.worker({TASK: {"input": topic}}, simulate(latency="const:0.02").url, kafka=LATEST) as worker:
        worker.wait_ready()
        await stand.put(topic, tickets(100, start=100))
        worker.wait_finished(100)
        assert worker.terminate()[0] == 0
    assert await stand.committed(topic) == await stand.ends(topic)
    done = {tuple(map(int, named_source(one).split("/")[1:])) for one in await stand.read(topic, "enriched")}
    assert len(done) == 100
    assert all(offset >= before[partition] for partition, offset in done)


@pytest.mark.fault("R9")
async def test_partitions_added_later_are_read_from_their_beginning(real: Stand, simulate: Simulate) -> None:
    """Also under `start: latest`: what is written before the worker knows of a new partition is not skipped."""
    topic = await real.create(partitions=2)
    with real.worker({TASK: {"input": topic}}, simulate(latency="const:0.02").url, kafka=LATEST) as worker:
        worker.wait_ready()
        await real.put(topic, tickets(20))
        await add_partitions(real.servers, topic, 4)
        await real.put(topic, [*tickets(30, start=100, partition=2), *tickets(30, start=200, partition=3)])
        worker.wait_finished(80)
        assert worker.terminate()[0] == 0
    assert not (found := await real.verdict(topic)).broken()
    assert found.by_kind == {"enriched": 80}
    assert await real.committed(topic) == await real.ends(topic)


async def add_partitions(servers: str, topic: str, count: int) -> None:
    """Let the topic have `count` partitions; return when clients see them."""
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        response = await admin.create_partitions({topic: NewPartitions(count)})
        assert [error[1] for error in response.topic_errors] == [0]
        while len((await admin.describe_topics([topic]))[0]["partitions"]) < count:
            pass
    finally:
        await admin.close()


@pytest.mark.fault("B9")
async def test_records_that_retention_took_are_never_passed_over_silently(real: Stand, simulate: Simulate) -> None:
    """`fail` ends with 78 and names the lost offsets; `earliest` counts them and goes on from what is left."""
    topic, model = await real.create(partitions=1), simulate(latency="const:0.02")
    tasks = {TASK: {"input": topic}}
    await real.put(topic, tickets(20))
    with real.worker(tasks, model.url) as worker:
        worker.wait_finished(20)
        assert worker.terminate()[0] == 0
    await real.put(topic, tickets(80, start=20))
    await delete_records(real.servers, topic, 60)
    with real.worker(tasks, model.url) as worker:
        assert worker.exit_code() == EX_CONFIG
        assert f"{topic}/0: offsets 20 to 59 are gone" in worker.tail()
        assert "on_offset_reset: earliest" in worker.tail()
    assert await real.committed(topic) == {0: 20}
    with real.worker(tasks, model.url, kafka={"on_offset_reset": "earliest"}) as worker:
        worker.wait_finished(40)
        assert worker.metric("penstock_records_lost_to_retention_total") == 40
        assert worker.terminate()[0] == 0
    done = {int(named_source(one).rpartition("/")[2]) for one in await real.read(topic, "enriched")}
    assert done == {*range(20), *range(60, 100)}
    assert await real.committed(topic) == {0: 100}


async def delete_records(servers: str, topic: str, before: int) -> None:
    """Remove the records of partition 0 below an offset, as retention does."""
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(before)})
    finally:
        await admin.close()


async def test_gaps_that_transactions_leave_do_not_hold_the_commit(real: Stand, simulate: Simulate) -> None:
    """Aborted records are not done, and past them and past the markers the commit reaches the end: lag 0."""
    topic = await real.create(partitions=1)
    await put_in_transactions(real.servers, topic)
    with real.worker({TASK: {"input": topic}}, simulate(latency="const:0.02").url) as worker:
        worker.wait_finished(40)
        wait_for(lambda: worker.lag() == 0, 10, lambda: f"lag {worker.lag()}")
        assert worker.terminate()[0] == 0
    assert not (found := await real.verdict(topic)).broken()
    assert found.by_kind == {"enriched": 40}
    assert await real.ends(topic) == {0: 74}, "40 committed, 30 aborted, 4 markers"
    assert await real.committed(topic) == {0: 74}


async def put_in_transactions(servers: str, topic: str) -> None:
    """Write 20 records that are committed, 10 that are aborted, 20 committed, and 20 aborted ones at the end."""
    producer = AIOKafkaProducer(bootstrap_servers=servers, transactional_id=fresh_name("transaction"))
    await producer.start()
    try:
        for count, kept in ((20, True), (10, False), (20, True), (20, False)):
            await producer.begin_transaction()
            for one in tickets(count):
                await producer.send_and_wait(topic, one.value, key=one.key, partition=0)
            await (producer.commit_transaction() if kept else producer.abort_transaction())
    finally:
        await producer.stop()
