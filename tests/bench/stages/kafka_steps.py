"""The steps that need a broker: fetching and producing, with the worker's own clients."""

import asyncio
import time
from collections.abc import Mapping, Sequence

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from tests.bench.matrix.workloads import PARTITIONS
from tests.bench.stages.bed import Bed, clock
from tests.bench.stages.steps import Measure
from tests.support.topics import New, produce
from workers.records import Outgoing
from workers.stages.s5_route import route
from workers.stream import clients
from workers.stream.accumulator import Accumulator
from workers.stream.intake import FETCH_MAX_RECORDS
from workers.stream.outgoing import BATCH_BYTES, Outgoings, size_bytes
from workers.stream.queue import Sending

FETCH_S = 30.0


async def seed(bed: Bed) -> None:
    """Write what `fetch` reads."""
    news = [New(key=one.key, value=one.value, partition=one.partition) for one in bed.fetched]
    await produce(bed.settings.kafka.bootstrap_servers, bed.fetched[0].topic, news)


async def fetch(bed: Bed) -> float:
    """Reading the records from the broker, partition by partition as the intake does."""
    consumer = clients.consumer(bed.settings)
    await consumer.start()
    try:
        partitions = [TopicPartition(bed.fetched[0].topic, number) for number in range(PARTITIONS)]
        consumer.assign(partitions)
        for at in partitions:
            consumer.seek(at, 0)
        left, ends_at_s = len(bed.fetched), time.monotonic() + FETCH_S
        with clock() as took:
            while left > 0:
                for at in partitions:
                    found = await consumer.getmany(at, timeout_ms=0, max_records=FETCH_MAX_RECORDS)
                    left -= sum(map(len, found.values()))
                if time.monotonic() > ends_at_s:
                    raise TimeoutError(f"{left} records not read within {FETCH_S:g} s")
                await asyncio.sleep(0.002)
    finally:
        await consumer.stop()
    return took.cpu_s


def _outgoings(bed: Bed) -> list[Outgoing]:
    pairs = zip(bed.records, bed.outcomes, strict=True)
    return [one for pair in pairs for one in route(*pair, bed.task, bed.partitions)]


async def produce_confirmed(bed: Bed) -> float:
    """Sending with the worker's way out, each record's confirmation waited for."""
    outgoings = _outgoings(bed)
    sink = Outgoings(bed.settings.kafka, bed.partitions, {})

    async def slot(number: int) -> None:
        for outgoing in outgoings[number :: bed.slots]:
            await sink.send(outgoing)

    await sink.start()
    try:
        await slot(0)
        with clock() as took:
            await asyncio.gather(*map(slot, range(bed.slots)))
    finally:
        await sink.close()
    return took.cpu_s


async def produce_unconfirmed(bed: Bed) -> float:
    """The same records in batches as well, and no record waits for its confirmation, only the last of all."""
    outgoings = _outgoings(bed)
    producer = clients.producer(bed.settings.kafka, max_batch_size_bytes=BATCH_BYTES)

    async def current() -> AIOKafkaProducer:
        return producer

    def spent(_: AIOKafkaProducer, error: KafkaError) -> None:
        raise error

    accumulator = Accumulator(current, spent)
    accumulator.batch_bytes = BATCH_BYTES

    async def all_sent(some: Sequence[Outgoing]) -> None:
        answers = [accumulator.add(Sending(one, size_bytes(one), 0.0), one.partition or 0) for one in some]
        for answer in answers:
            await answer

    await producer.start()
    try:
        await all_sent(outgoings[: bed.slots])
        with clock() as took:
            await all_sent(outgoings)
    finally:
        await producer.stop()
    return took.cpu_s


KAFKA_STEPS: Mapping[str, Measure] = {
    "fetch": fetch,
    "produce": produce_confirmed,
    "produce_unconfirmed": produce_unconfirmed,
}
"""With one."""
