"""Outputs that a topic will not take: the record pays for itself, its neighbours arrive, and nothing is dropped."""

import asyncio
import random
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from tests.support.deployment import wait_for
from tests.support.stand import TASK, Simulate, Stand, tickets
from tests.support.topics import New
from topics import deadletters
from workers.audit import named_source

LARGE = New(key=b"k1", value=b'{"text": "%b"}' % random.Random(1).randbytes(25_000).hex().encode())
"""50 KB that compression does not bring below the limit: the broker judges what it gets, which is compressed."""
SMALL_PROMPT = {"user.j2": "{{ record.text | truncate(100) }}\n"}
LIMIT_BYTES = 20_000
TINY_BYTES = 100


async def set_max_bytes(servers: str, topic: str, max_bytes: int) -> None:
    """Change a topic's `max.message.bytes`; return when the broker goes by it: it answers before."""
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        limit = {"max.message.bytes": str(max_bytes)}
        for response in await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, limit)]):
            assert [resource[0] for resource in response.resources] == [0]
        asked = ConfigResource(ConfigResourceType.TOPIC, topic, {"max.message.bytes": None})
        async with asyncio.timeout(60):
            while True:
                [response] = await admin.describe_configs([asked])
                [(_, _, _, _, entries, *_)] = response.resources
                if [entry[1] for entry in entries] == [str(max_bytes)]:
                    return
                await asyncio.sleep(0.1)
    finally:
        await admin.close()


async def check_all_but_one_enriched(stand: Stand, topic: str, count: int, large: str) -> None:
    """The large record is a dead letter of stage `send`, whole, and all others are enriched, in order."""
    assert not (found := await stand.verdict(topic)).broken()
    assert found.by_kind == {"enriched": count, "dlq": 1}
    [letter] = await stand.read(topic, "dlq")
    said = deadletters.decode(letter.value, letter.headers)
    assert (said.source, said.failure.stage) == (large, "send")
    assert (letter.key, letter.value) == (LARGE.key, LARGE.value)


@pytest.mark.fault("O1")
async def test_an_output_that_is_too_large_for_its_topic(real: Stand, simulate: Simulate) -> None:
    """It becomes a dead letter, and a thousand records after it on the same partition arrive enriched, in order."""
    topic = await real.create(partitions=1, max_bytes={"enriched": LIMIT_BYTES})
    await real.put(topic, [*tickets(10, keys=50), LARGE, *tickets(1_000, keys=50)])
    with real.worker({TASK: {"input": topic}}, simulate(latency="const:0.01").url, files=SMALL_PROMPT) as worker:
        worker.wait_finished(1_011)
        assert worker.metric("penstock_producer_replaced_total") == 0
        assert worker.terminate()[0] == 0
    await check_all_but_one_enriched(real, topic, 1_010, f"{topic}/0/10")


@pytest.mark.fault("O1")
async def test_a_limit_that_is_lowered_while_the_worker_runs(real: Stand, simulate: Simulate) -> None:
    """The broker itself refuses, which spoils the producer: it is replaced, and everything else arrives in order."""
    topic = await real.create(partitions=1)
    with real.worker({TASK: {"input": topic}}, simulate(latency="const:0.01").url, files=SMALL_PROMPT) as worker:
        worker.wait_ready()
        await set_max_bytes(real.servers, f"{topic}.{TASK}.enriched", LIMIT_BYTES)
        await real.put(topic, [*tickets(200, keys=50), LARGE, *tickets(500, keys=50)])
        worker.wait_finished(701)
        assert worker.metric("penstock_producer_replaced_total") >= 1
        worker.wait_ready()
        assert worker.terminate()[0] == 0
    await check_all_but_one_enriched(real, topic, 700, f"{topic}/0/200")


@pytest.mark.fault("O1", "O7")
async def test_what_can_be_written_nowhere_is_held(real: Stand, simulate: Simulate) -> None:
    """A dead letter that fits not even as a stub: never acked, the task is held and says so; nothing is lost."""
    topic = await real.create(max_bytes={"dlq": TINY_BYTES})
    model = simulate(latency="const:0.02")
    tasks: dict[str, Any] = {TASK: {"input": topic}}
    await real.put(topic, [*tickets(40, partition=0), New(key=b"bad", value=b"no JSON", partition=0)])
    with real.worker(tasks, model.url) as worker:
        wait_for(lambda: "written nowhere" in worker.not_ready(), 60, worker.not_ready)
        await real.put(topic, tickets(200, start=100))
        wait_for(lambda: worker.metric('penstock_task_held{reason="unwritable"') == 1, 60)
        assert worker.terminate()[0] == 0
    assert (await real.committed(topic))[0] == 40
    assert await real.read(topic, "dlq") == []
    await set_max_bytes(real.servers, f"{topic}.{TASK}.dlq", 1_000_000)
    with real.worker(tasks, model.url) as worker:
        wait_for(lambda: worker.lag() == 0, 60)
        assert worker.terminate()[0] == 0
    assert not (found := await real.verdict(topic)).broken()
    assert found.by_kind == {"enriched": 240, "dlq": 1}
    assert {named_source(one) for one in await real.read(topic, "dlq")} == {f"{topic}/0/40"}
