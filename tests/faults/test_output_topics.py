"""Outputs of a real broker that take nothing for a while, or never take one record: held, or that one pays."""

import asyncio

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import TopicAlreadyExistsError

from tests.support.deployment import wait_for
from tests.support.stand import TASK, Simulate, Stand, tickets
from tests.support.topics import New, fresh_name
from topics import deadletters
from topics.spec import output_names
from workers.audit import named_source

PARTITIONS = 2
FIRST, MORE = 10, 40
SEND_TIMEOUT_S = 1.0
WAIT_S = 90.0


async def delete(stand: Stand, topic: str) -> None:
    """Delete the topic."""
    admin = AIOKafkaAdminClient(bootstrap_servers=stand.servers)
    await admin.start()
    try:
        assert [code for _, code in (await admin.delete_topics([topic])).topic_error_codes] == [0]
    finally:
        await admin.close()


async def create_again(stand: Stand, topic: str) -> None:
    """Create what was deleted, empty."""
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                return await stand.broker.create_topics({topic: PARTITIONS})
            except TopicAlreadyExistsError:  # deletion takes a moment
                await asyncio.sleep(0.2)


@pytest.mark.parametrize(
    "kind",
    [pytest.param("enriched", marks=pytest.mark.fault("O2")), pytest.param("dlq", marks=pytest.mark.fault("O7"))],
)
async def test_an_output_topic_that_is_deleted_holds_its_records(real: Stand, simulate: Simulate, kind: str) -> None:
    """Not dropped, not a dead letter, not committed; `/readyz` names the topic; it goes on when that is back."""
    topic = await real.create(partitions=PARTITIONS)
    output = f"{topic}.{TASK}.{kind}"
    tasks, kafka = {TASK: {"input": topic}}, {"send_timeout_s": SEND_TIMEOUT_S}
    await real.put(topic, of_kind(kind, FIRST))
    with real.worker(tasks, simulate(latency="const:0.01").url, kafka=kafka) as worker:
        await asyncio.to_thread(worker.wait_finished, FIRST)
        committed = await real.wait_committed(topic)
        await delete(real, output)
        await real.put(topic, of_kind(kind, MORE, start=FIRST))
        await asyncio.to_thread(wait_for, lambda: f"to {output}" in worker.not_ready(), WAIT_S, worker.tail)
        assert worker.get("/livez")[0] == 200
        assert await real.committed(topic) == committed
        if kind != "dlq":
            assert not await real.read(topic, "dlq")
        await create_again(real, output)
        await asyncio.to_thread(worker.wait_finished, FIRST + MORE)
        worker.wait_ready()
        assert worker.terminate()[0] == 0
    verdict = await real.verdict(topic)
    assert len(verdict.lost) == FIRST, "the outputs that were deleted with their topic, and no other"
    assert verdict.by_kind == {kind: MORE}
    assert not verdict.repeats
    assert not verdict.out_of_order
    await real.wait_committed(topic)


def of_kind(kind: str, count: int, start: int = 0) -> list[New]:
    """Return records that end in this output, a key each and on both partitions."""
    bad = [New(key=b"k%d" % n, value=b"no JSON %d" % n) for n in range(start, start + count)]
    return bad if kind == "dlq" else tickets(count, start=start)


@pytest.mark.fault("O6", "O11")
async def test_a_compacted_output_keeps_the_latest_of_each_key_and_refuses_what_has_none(
    real: Stand, simulate: Simulate
) -> None:
    """Last write wins, and per key the last write is the last record; a null key (INVALID_RECORD) is a dead letter."""
    topic = fresh_name("in")
    outputs = output_names(topic, TASK)
    await real.broker.create_topics({outputs.pop("enriched"): 1}, {"cleanup.policy": "compact"})
    await real.broker.create_topics(dict.fromkeys([topic, *outputs.values()], 1))
    records = tickets(120, keys=6)
    records.insert(60, New(key=None, value=b'{"text": "no key"}'))
    with real.worker({TASK: {"input": topic}}, simulate(latency="heavy:0.01:0.2:0.2").url) as worker:
        worker.wait_ready()
        await real.put(topic, records)
        await asyncio.to_thread(worker.wait_finished, 121)
        assert worker.terminate()[0] == 0
    assert not (await real.verdict(topic)).broken()
    [letter] = await real.read(topic, "dlq")
    said = deadletters.decode(letter.value, letter.headers)
    assert (said.source, said.failure.stage, letter.key) == (f"{topic}/0/60", "send", None)
    last = {record.key: named_source(record) for record in await real.read(topic, "enriched")}
    assert last == {b"k%d" % n: f"{topic}/0/{115 + n}" for n in range(6)}
