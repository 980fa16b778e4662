"""What Kafka and its client do on bad days, and that the stream side's seams hold against the real ones."""

import asyncio
import random
import struct

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.record.util import calc_crc32c

from tests.support.embedded import EmbeddedKafka
from tests.support.kafka import KafkaBroker
from tests.support.memory import rig_settings
from tests.support.topics import New, committed, fresh_name, produce, read_all
from workers.errors import OutputTooLarge
from workers.records import Outgoing
from workers.settings.model import Kafka
from workers.stream import clients, cluster, header_names
from workers.stream.commits import Commits
from workers.stream.ledger import Ledger
from workers.stream.offsets import Offsets
from workers.stream.outgoing import LZ4_BYTES_PER_EXTRA_BYTE, Outgoings, size_bytes

BOUND_S = 60.0
OFFSET_FETCH = 9
COORDINATOR_LOADS = 14
CRC_AT, CRC_FROM = 17, 21


class Quiet(ConsumerRebalanceListener):
    """Does nothing at a rebalance."""

    async def on_partitions_revoked(self, revoked: object) -> None:
        """Let go."""

    async def on_partitions_assigned(self, assigned: object) -> None:
        """Take."""


async def test_a_topic_that_is_deleted_does_not_stop_the_commits_of_the_others(kafka: KafkaBroker) -> None:
    """The client repeats the commit of a topic that is gone without end; it ends with its generation."""
    gone, kept, group = fresh_name("gone"), fresh_name("kept"), fresh_name("group")
    await kafka.create_topics({gone: 1, kept: 1})
    consumer = AIOKafkaConsumer(
        bootstrap_servers=kafka.bootstrap_servers,
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    consumer.subscribe([gone, kept], listener=Quiet())
    await consumer.start()
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    commits = Commits(consumer, "cluster")
    try:
        ledgers = [Ledger(gone, 0, 0), Ledger(kept, 0, 0)]
        deleting = asyncio.create_task(admin.delete_topics([gone]))
        hanging = await commits_until_one_hangs(commits, ledgers)
        await deleting
        for ledger in ledgers:
            ledger.closed = True
        commits.forget()
        await asyncio.wait_for(hanging, BOUND_S)
        anew = Ledger(kept, 0, 0)
        anew.pass_gap(7)
        await asyncio.wait_for(commits.commit([anew]), BOUND_S)
        stored = await committed(kafka.bootstrap_servers, group, [kept])
        assert stored == {TopicPartition(kept, 0): (7, "")}
    finally:
        await admin.close()
        await consumer.stop()


async def commits_until_one_hangs(commits: Commits, ledgers: list[Ledger]) -> "asyncio.Task[None]":
    """Commit without a pause; return the commit that gets no answer while the topic goes."""
    async with asyncio.timeout(BOUND_S):
        while True:
            for ledger in ledgers:
                ledger.pass_gap(ledger.next_offset + 1)
            committing = asyncio.create_task(commits.commit(ledgers))
            done, _ = await asyncio.wait({committing}, timeout=3.0)
            if not done:
                return committing
            await committing


@pytest.mark.fault("O8")
async def test_a_producer_that_was_ended_writes_nothing_later(own_kafka: KafkaBroker) -> None:
    """What it held when the broker froze must not appear behind its successor's back when the broker is there again."""
    topic = fresh_name("out")
    await own_kafka.create_topics({topic: 2})
    settings = Kafka(bootstrap_servers=own_kafka.bootstrap_servers, group_id="g", send_timeout_s=5.0)
    producer = clients.producer(settings, max_batch_size_bytes=16_384)
    await producer.start()
    await producer.send_and_wait(topic, b"before", partition=0)
    own_kafka.pause()
    await producer.send(topic, b"on the wire", partition=0)
    await asyncio.sleep(0.5)
    queued = await producer.send(topic, b"queued", partition=1)
    assert not await clients.quietly_closed(producer, 1.0)
    await asyncio.wait_for(clients.end(producer), BOUND_S)
    assert queued.exception() is not None
    own_kafka.cont()
    await asyncio.sleep(settings.send_timeout_s + 1.0)  # longer than its requests and their repetition
    assert b"queued" not in [record.value for record in await read_all(own_kafka.bootstrap_servers, topic)]
    await produce(own_kafka.bootstrap_servers, topic, [New(value=b"after", partition=1)])
    assert not [task for task in asyncio.all_tasks() if "Sender" in str(task)]


@pytest.mark.fault("D13")
async def test_header_names_that_are_no_utf8_pass_through_the_client(kafka: KafkaBroker) -> None:
    """D13: the broker takes them; the consumer reads that record, its neighbours and all that follows."""
    topic = fresh_name("odd")
    await kafka.create_topics({topic: 1})
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers)
    await producer.start()
    batch = producer.create_batch()
    for number in range(5):
        batch.append(key=None, value=b"%d" % number, timestamp=None, headers=[("NAME", b"x")])
    batch.close()
    raw = bytearray(batch._build())
    at = raw.index(b"NAME", raw.index(b"NAME") + 1)
    raw[at : at + 4] = b"\xff\xfe\xfd\xfc"
    struct.pack_into(">I", raw, CRC_AT, calc_crc32c(bytes(raw[CRC_FROM:])))
    batch._buffer = raw
    await (await producer.send_batch(batch, topic, partition=0))
    await producer.send_and_wait(topic, b"after", partition=0)
    await producer.stop()

    header_names.tolerate()
    read = await read_all(kafka.bootstrap_servers, topic)
    assert [record.value for record in read] == [b"0", b"1", b"2", b"3", b"4", b"after"]
    assert [name for record in read for name, _ in record.headers] == ["NAME", "????", "NAME", "NAME", "NAME"]


async def test_offsets_that_were_not_answered_are_asked_for_again(embedded: EmbeddedKafka) -> None:
    """A coordinator that loads gives an empty answer: that is not a group without offsets, which would begin anew."""
    topic, group = fresh_name("in"), fresh_name("group")
    await embedded.create_topics({topic: 2})
    servers = embedded.bootstrap_servers
    every = [TopicPartition(topic, number) for number in range(2)]
    consumer = AIOKafkaConsumer(bootstrap_servers=servers, group_id=group, enable_auto_commit=False)
    await consumer.start()
    consumer.assign(every)
    await consumer.commit(dict.fromkeys(every, 5))
    await consumer.stop()
    settings = rig_settings({"bootstrap_servers": servers, "group_id": group}, {})
    offsets = Offsets(settings.kafka, consumer, Commits(consumer, "cluster"))
    embedded.push_errors(OFFSET_FETCH, [COORDINATOR_LOADS] * 2)
    found = await asyncio.wait_for(offsets.committed(every), BOUND_S)
    assert {tp: offset for tp, (offset, _) in found.items()} == dict.fromkeys(every, 5)


@pytest.mark.fault("O1")
@pytest.mark.parametrize("limit_bytes", [1_048_588, 5_000_000])
async def test_a_record_that_just_fits_its_topic_is_taken(kafka: KafkaBroker, limit_bytes: int) -> None:
    """O1: the limit that is read at start is the broker's, above a mebibyte too, also for what does not compress."""
    topic = fresh_name("large")
    await kafka.create_topics({topic: 1}, configs={"max.message.bytes": str(limit_bytes)})
    settings = Kafka(bootstrap_servers=kafka.bootstrap_servers, group_id="g")
    found = await cluster.look_at(settings, [], [topic])
    assert found.max_bytes == {topic: limit_bytes}
    out = Outgoings(settings, found.partitions, found.max_bytes)
    await out.start()
    try:
        empty = Outgoing(topic, 0, b"k", b"", [("h", b"v")], None)
        length_bytes = 3  # more than an empty value's
        room_bytes = limit_bytes - size_bytes(empty) - length_bytes
        value = random.Random(3).randbytes(room_bytes - room_bytes // LZ4_BYTES_PER_EXTRA_BYTE)
        await asyncio.wait_for(out.send(Outgoing(topic, 0, b"k", value, [("h", b"v")], None)), BOUND_S)
        with pytest.raises(OutputTooLarge):
            await out.send(Outgoing(topic, 0, b"k", value + b"x" * 100, [("h", b"v")], None))
    finally:
        await out.close()
    assert [record.value for record in await read_all(kafka.bootstrap_servers, topic)] == [value]
