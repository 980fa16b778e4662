"""Reads what a worker wrote back, and counts what is lost, there twice, without an answer, or out of order."""

import time
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

import orjson
from aiokafka import AIOKafkaConsumer
from aiokafka.structs import ConsumerRecord, TopicPartition

from tests.bench.matrix.workloads import PARTITIONS
from topics.headers import SOURCE

ANSWER = b"benchmark answer"
READ_S = 300.0


@dataclass(slots=True)
class Found:
    """The records of one input, told by their numbers, as they appear in the outputs."""

    records: int
    times: bytearray = field(init=False)
    unanswered: int = 0
    unknown: int = 0
    out_of_order: int = 0
    _newest: dict[bytes | None, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.times = bytearray(self.records)

    def note(self, number: int | None, key: bytes | None, *, answered: bool) -> None:
        """Count an output. Its order is that of first appearances: what is repeated comes late."""
        if number is None or not 0 <= number < self.records:
            self.unknown += 1
            return
        self.unanswered += not answered
        if not self.times[number]:
            self.out_of_order += number < self._newest.get(key, -1)
            self._newest[key] = max(number, self._newest.get(key, -1))
        self.times[number] = min(255, self.times[number] + 1)

    @property
    def lost(self) -> int:
        """Records that are nowhere."""
        return self.times.count(0)

    @property
    def twice(self) -> int:
        """Outputs beyond one per record."""
        return sum(self.times) - (self.records - self.lost)

    def figures(self) -> dict[str, int]:
        """Return the counts for a line of results."""
        return {
            "lost": self.lost,
            "twice": self.twice,
            "unanswered": self.unanswered,
            "unknown": self.unknown,
            "out_of_order": self.out_of_order,
        }


def number_by_id(output: ConsumerRecord) -> int | None:
    """Return the number of a record from a peer's output, `{"id","result"}`; None when it has none."""
    try:
        found = orjson.loads(output.value)
    except orjson.JSONDecodeError:
        return None
    number = found.get("id") if isinstance(found, dict) else None
    return number if isinstance(number, int) else None


def number_by_source(output: ConsumerRecord, first: Mapping[int, int]) -> int | None:
    """Return the number of a record from Penstock's header, topic/partition/offset; None when it has none.

    `first`: the number of each partition's first record.
    """
    source = dict(output.headers).get(SOURCE)
    if source is None:
        return None
    _, partition, offset = source.rsplit(b"/", 2)
    return first[int(partition)] + int(offset)


def first_numbers(ends: Mapping[int, int]) -> dict[int, int]:
    """Number the records of an input through, one partition after the other."""
    first, total = {}, 0
    for partition, end in sorted(ends.items()):
        first[partition], total = total, total + end
    return first


def noted(found: Found, outputs: Iterable[ConsumerRecord], *, first: Mapping[int, int] | None) -> None:
    """Count outputs; `first`: they carry their source, else their id."""
    number = number_by_id if first is None else partial(number_by_source, first=first)
    for one in outputs:
        found.note(number(one), one.key, answered=ANSWER in one.value)


async def batches(bootstrap_servers: str, topics: list[str]) -> AsyncIterator[list[ConsumerRecord]]:
    """Yield what the topics hold now, in fetched pieces: a million records are never in memory together."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap_servers, enable_auto_commit=False, max_poll_records=5_000)
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, each) for topic in topics for each in range(PARTITIONS)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning()
        ends = {at: end for at, end in (await consumer.end_offsets(partitions)).items() if end}
        ends_at_s = time.monotonic() + READ_S
        while any([await consumer.position(at) < end for at, end in ends.items()]):
            assert time.monotonic() < ends_at_s, f"{topics} not read in {READ_S} s"
            for records in (await consumer.getmany(timeout_ms=200)).values():
                yield records
    finally:
        await consumer.stop()


async def verified(
    bootstrap_servers: str, topics: list[str], records: int, *, first: Mapping[int, int] | None
) -> Found:
    """Read the outputs to their ends and count."""
    found = Found(records)
    async for some in batches(bootstrap_servers, topics):
        noted(found, some, first=first)
    return found
