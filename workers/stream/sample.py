"""The newest records of a topic, read without a group: nothing is joined, nothing is committed."""

from collections.abc import Mapping
from typing import TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError
from aiokafka.structs import ConsumerRecord

from workers.clock import monotonic_s
from workers.errors import EX_CONFIG, EX_UNAVAILABLE, Exit
from workers.records import Record
from workers.settings.model import Kafka
from workers.stream import clients

K = TypeVar("K")

_FETCH_WAIT_MS = 100
_POLL_MS = 500  # longer than a fetch: the first one is waited for even when the topic is empty


async def newest(kafka: Kafka, topic: str, partitions: int, *, count: int, timeout_s: float) -> list[Record]:
    """Return `count` of the newest records, about as many of each partition; fewer when there are none or time is over.

    Raises:
        Exit: 78, this user may not READ the topic; 69, no broker answered.
    """
    consumer = AIOKafkaConsumer(
        **clients.client_options(kafka),
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        fetch_max_wait_ms=_FETCH_WAIT_MS,
        max_partition_fetch_bytes=clients.FETCH_MAX_BYTES_PER_PARTITION,
    )
    try:
        await consumer.start()
        every = [TopicPartition(topic, number) for number in range(partitions)]
        consumer.assign(every)
        begins, ends = await consumer.beginning_offsets(every), await consumer.end_offsets(every)
        shares = shared({tp: ends[tp] - begins[tp] for tp in every}, count)
        for tp in every:
            consumer.seek(tp, ends[tp] - shares[tp])
        return await _take(consumer, {tp: ends[tp] for tp in every if shares[tp]}, count, timeout_s)
    except TopicAuthorizationFailedError as exc:
        raise Exit(EX_CONFIG, "this user may not read it: the fetch was refused") from exc
    except (KafkaError, OSError) as exc:
        raise Exit(EX_UNAVAILABLE, f"the fetch failed: {type(exc).__name__}") from exc
    finally:
        await clients.quietly_closed(consumer, 2.0)


def shared(sizes: Mapping[K, int], count: int) -> dict[K, int]:
    """Share `count` out as evenly as the sizes allow: what a small one cannot give, the larger ones do."""
    shares: dict[K, int] = {}
    for place, name in enumerate(sorted(sizes, key=lambda one: sizes[one])):
        shares[name] = min(sizes[name], -(-count // (len(sizes) - place)))
        count -= shares[name]
    return shares


async def _take(
    consumer: AIOKafkaConsumer, ends: dict[TopicPartition, int], count: int, timeout_s: float
) -> list[Record]:
    """Fetch once at least, so that a refusal shows on an empty topic as well."""
    taken: list[Record] = []
    left = dict(ends)
    until_s = monotonic_s() + timeout_s
    while True:
        for tp, fetched in (await consumer.getmany(timeout_ms=_POLL_MS, max_records=count)).items():
            taken += [_record(one) for one in fetched]
            if fetched[-1].offset + 1 >= left.get(tp, 0):
                left.pop(tp, None)
        if len(taken) >= count or not left or monotonic_s() >= until_s:
            return taken[:count]


def _record(fetched: ConsumerRecord) -> Record:
    return Record(
        fetched.topic,
        fetched.partition,
        fetched.offset,
        fetched.timestamp,
        fetched.key,
        fetched.value,
        fetched.headers,
    )
