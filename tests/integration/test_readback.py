"""Writing, reading back and the lag of a group, as a bystander does it, on both brokers."""

from tests.support.embedded import EmbeddedKafka
from tests.support.kafka import KafkaBroker
from tests.support.topics import fresh_name
from workers.records import Outgoing
from workers.settings.model import Kafka
from workers.stream import readback

PARTITIONS = 3


async def test_what_is_written_is_read_back(broker: KafkaBroker | EmbeddedKafka) -> None:
    """Bytes, keys, headers, timestamps and tombstones come back as they went; an empty topic is read as well."""
    full, empty = fresh_name("full"), fresh_name("empty")
    await broker.create_topics({full: PARTITIONS, empty: 1})
    kafka = Kafka(bootstrap_servers=broker.bootstrap_servers, group_id=fresh_name("group"))
    headers: list[tuple[str, bytes | None]] = [("a", b"1"), ("a", None)]
    sent = [Outgoing(full, n % PARTITIONS, b"k%d" % n, b"v" * n, headers, 1_700_000_000_000 + n) for n in range(50)]
    sent.append(Outgoing(full, 0, b"gone", None, [], 1_700_000_000_000))
    async with readback.writer(kafka) as writer:
        for outgoing in sent:
            await writer.send(outgoing)
        await writer.confirmed()
    read = await readback.read_topics(kafka, {full: PARTITIONS, empty: 1})
    assert read[empty] == []
    came = [
        Outgoing(one.topic, one.partition, one.key, one.value, list(one.headers), one.timestamp_ms)
        for one in read[full]
    ]
    assert came == sorted(sent, key=lambda one: one.partition or 0)
    assert [one.offset for one in read[full] if one.partition == 1] == list(range(17))


async def test_the_lag_of_a_group_that_committed_nothing_is_all_there_is(broker: KafkaBroker | EmbeddedKafka) -> None:
    """It is told after the time that it had to become 0; of an empty topic it is 0 at once."""
    full, empty = fresh_name("full"), fresh_name("empty")
    await broker.create_topics({full: 1, empty: 1})
    kafka = Kafka(bootstrap_servers=broker.bootstrap_servers, group_id=fresh_name("group"))
    async with readback.writer(kafka) as writer:
        for _ in range(7):
            await writer.send(Outgoing(full, None, None, b"v", [], None))
        await writer.confirmed()
    assert await readback.lag_when_settled(kafka, {full: 1}, timeout_s=0.5) == 7
    assert await readback.lag_when_settled(kafka, {empty: 1}, timeout_s=60) == 0
