"""Both brokers do what the worker relies on, as seen through aiokafka."""

import asyncio
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.structs import ConsumerRecord, TopicPartition

from tests.support.embedded import EmbeddedKafka
from tests.support.kafka import KafkaBroker
from tests.support.topics import New, committed, fresh_name, produce, read_all

Broker = KafkaBroker | EmbeddedKafka
REQUEST_TIMED_OUT = 7
PRODUCE = 0


def member(broker: Broker, group: str, topic: str) -> AIOKafkaConsumer:
    """A consumer set up as the worker's own is."""
    return AIOKafkaConsumer(
        topic,
        bootstrap_servers=broker.bootstrap_servers,
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        fetch_max_wait_ms=100,
        session_timeout_ms=6_000,
        heartbeat_interval_ms=500,
    )


async def take(consumer: AIOKafkaConsumer, count: int) -> list[ConsumerRecord]:
    """Poll until `count` records came."""
    taken: list[ConsumerRecord] = []
    async with asyncio.timeout(60):
        while len(taken) < count:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                taken += records
    return taken


async def test_a_thousand_records_round_trip_in_a_group(broker: Broker) -> None:
    """What was produced is consumed byte for byte, each partition in order, null keys and tombstones included."""
    topic, group = fresh_name("round"), fresh_name("group")
    await broker.create_topics({topic: 4})
    sent = [
        New(
            key=None if n % 7 == 0 else b"k%d" % (n % 50),
            value=None if n % 10 == 1 and n % 7 else b"v%d" % n,
            headers=[("n", b"%d" % n)],
            partition=n % 4,
            timestamp_ms=1_700_000_000_000 + n,
        )
        for n in range(1_000)
    ]
    await produce(broker.bootstrap_servers, topic, sent)
    consumer = member(broker, group, topic)
    await consumer.start()
    try:
        taken = await take(consumer, 1_000)
    finally:
        await consumer.stop()
    for partition in range(4):
        here = [record for record in taken if record.partition == partition]
        assert [record.offset for record in here] == list(range(250))
        assert [
            New(
                key=one.key, value=one.value, headers=list(one.headers), partition=partition, timestamp_ms=one.timestamp
            )
            for one in here
        ] == sent[partition::4]


async def test_a_commit_keeps_offset_and_metadata(broker: Broker) -> None:
    """Offset and metadata of a commit can be read back, and a later member of the group begins there."""
    topic, group = fresh_name("commit"), fresh_name("group")
    await broker.create_topics({topic: 2})
    await produce(broker.bootstrap_servers, topic, [New(value=b"%d" % n, partition=0) for n in range(10)])
    first = member(broker, group, topic)
    await first.start()
    await take(first, 10)
    metadata = "v1 " + "x" * 3_800
    await first.commit({TopicPartition(topic, 0): (7, metadata)})
    await first.stop()
    assert await committed(broker.bootstrap_servers, group, [topic]) == {TopicPartition(topic, 0): (7, metadata)}
    second = member(broker, group, topic)
    await second.start()
    try:
        assert [record.offset for record in await take(second, 3)] == [7, 8, 9]
    finally:
        await second.stop()


async def test_read_all_returns_every_partition_in_order(broker: Broker) -> None:
    """`read_all` reads to the end of every partition, and an empty topic is an empty list."""
    full, empty = fresh_name("full"), fresh_name("empty")
    await broker.create_topics({full: 3, empty: 3})
    await produce(broker.bootstrap_servers, full, [New(value=b"%d" % n, partition=n % 3) for n in range(300)])
    records = await read_all(broker.bootstrap_servers, full)
    assert [(record.partition, record.offset) for record in records] == [(p, n) for p in range(3) for n in range(100)]
    assert await read_all(broker.bootstrap_servers, empty) == []


async def test_a_keyless_tombstone_can_be_written_as_a_batch(broker: Broker) -> None:
    """A record without key and value, which `send` refuses, arrives as such from a batch of one."""
    topic = fresh_name("keyless")
    await broker.create_topics({topic: 1})
    await produce(broker.bootstrap_servers, topic, [New(headers=[("h", b"1")]), New(value=b"next")])
    records = await read_all(broker.bootstrap_servers, topic)
    assert [(one.key, one.value, one.headers) for one in records] == [(None, None, (("h", b"1"),)), (None, b"next", ())]


async def test_what_was_written_survives_a_broker_that_was_down(embedded: EmbeddedKafka) -> None:
    """While the embedded broker is down a send waits; when it is up again the send is confirmed and nothing is gone."""
    topic = fresh_name("down")
    await embedded.create_topics({topic: 1})
    producer = AIOKafkaProducer(bootstrap_servers=embedded.bootstrap_servers, enable_idempotence=True)
    await producer.start()
    try:
        await producer.send_and_wait(topic, b"before")
        embedded.down()
        confirmation = await producer.send(topic, b"during")
        await asyncio.wait([confirmation], timeout=0.5)
        assert not confirmation.done()
        embedded.up()
        await asyncio.wait_for(confirmation, 30)
    finally:
        await producer.stop()
    assert [record.value for record in await read_all(embedded.bootstrap_servers, topic)] == [b"before", b"during"]


async def test_pushed_errors_are_answered_once_each(embedded: EmbeddedKafka) -> None:
    """A produce request that is answered by an error is sent again, and the record is written once."""
    topic = fresh_name("errors")
    await embedded.create_topics({topic: 1})
    embedded.push_errors(PRODUCE, [REQUEST_TIMED_OUT, REQUEST_TIMED_OUT])
    await produce(embedded.bootstrap_servers, topic, [New(value=b"once")])
    assert [record.value for record in await read_all(embedded.bootstrap_servers, topic)] == [b"once"]


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_a_real_broker_keeps_its_records_over_a_restart(kafka_jars: Path, tmp_path: Path, end: str) -> None:
    """Records and address are the same after a clean stop and after a kill."""
    del kafka_jars
    with KafkaBroker(tmp_path) as own:
        await own.create_topics({"kept": 1}, configs={"max.message.bytes": "20000"})
        await produce(own.bootstrap_servers, "kept", [New(value=b"kept")])
        address = own.bootstrap_servers
        getattr(own, end)()
        own.start()
        assert own.bootstrap_servers == address
        assert [record.value for record in await read_all(address, "kept")] == [b"kept"]
