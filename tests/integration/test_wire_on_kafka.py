"""Whether Kafka takes and gives back what stage 5 routes."""

import time
from typing import Any
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import InvalidTimestampError

from tests.support.kafka import KafkaBroker
from tests.support.wire import HEADERS, VALUE, make_record, make_reply, make_task
from topics import deadletters, enriched
from topics.spec import output_names
from workers.errors import NotJson
from workers.outcome import Enriched, Rejected
from workers.records import Outgoing
from workers.stages.s5_route import FUTURE_TIMESTAMP_MS, route

ODD: tuple[tuple[str, bytes | None], ...] = (
    *HEADERS,
    ("ce_null", None),
    ("ce_\udcff", b"1"),
    ("", b""),
    ("a\nb", b"\0"),
)


async def test_kafka_stores_what_is_routed(kafka: KafkaBroker) -> None:
    """Null header values, odd names and the latest timestamp that is passed on survive the way through Kafka."""
    topic = f"in-{uuid4().hex}"
    names = output_names(topic, "ticket_triage")
    await kafka.create_topics(dict.fromkeys(names.values(), 1))
    sent_ms = int(time.time() * 1000) + FUTURE_TIMESTAMP_MS - 10_000
    record = make_record(topic=topic, headers=ODD, timestamp_ms=sent_ms)
    task = make_task(inputs=(topic,))
    [answered] = route(record, Enriched({"category": "bug"}, make_reply()), task, {})
    stored = await sent_and_read(kafka, answered)
    assert (stored.key, stored.timestamp, list(stored.headers)) == (record.key, sent_ms, answered.headers)
    assert enriched.decode(stored.value).input == VALUE
    [refused] = route(record, Rejected(NotJson("no JSON")), task, {})
    stored = await sent_and_read(kafka, refused)
    assert (stored.key, stored.value, list(stored.headers)) == (record.key, VALUE, refused.headers)
    assert deadletters.decode(stored.value, stored.headers).failure.timestamp_ms == sent_ms


async def test_why_a_far_timestamp_is_not_passed_on(kafka: KafkaBroker) -> None:
    """Kafka refuses what is more than an hour ahead, so such a record gets the time of now instead."""
    topic = f"in-{uuid4().hex}"
    await kafka.create_topics({f"{topic}.ticket_triage.enriched": 1})
    ahead_ms = int(time.time() * 1000) + 3_700_000
    record = make_record(topic=topic, timestamp_ms=ahead_ms)
    [outgoing] = route(record, Enriched({}, make_reply()), make_task(inputs=(topic,)), {})
    stored = await sent_and_read(kafka, outgoing)
    assert stored.timestamp < ahead_ms
    outgoing.timestamp_ms = ahead_ms
    with pytest.raises(InvalidTimestampError):
        await sent_and_read(kafka, outgoing)


async def sent_and_read(kafka: KafkaBroker, outgoing: Outgoing) -> Any:
    """Produce a record to partition 0 and read it back."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers)
    await producer.start()
    try:
        written = await producer.send_and_wait(
            outgoing.topic,
            outgoing.value,
            key=outgoing.key,
            partition=0,
            headers=outgoing.headers,
            timestamp_ms=outgoing.timestamp_ms,
        )
    finally:
        await producer.stop()
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap_servers)
    await consumer.start()
    try:
        at = TopicPartition(outgoing.topic, 0)
        consumer.assign([at])
        consumer.seek(at, written.offset)
        return await consumer.getone()
    finally:
        await consumer.stop()
