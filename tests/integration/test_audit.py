"""`penstock audit`, installed: nothing false while a worker runs, and everything that is planted."""

import asyncio
import contextlib
import json
import socket
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete
from aiokafka.errors import CommitFailedError
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from tests.support.deployment import PENSTOCK
from tests.support.stand import TASK, Simulate, Stand, tickets
from tests.support.topics import New
from topics.requests import ORIGIN
from topics.spec import output_names
from workers.audit import named_source
from workers.cli.audit import look
from workers.errors import EX_CONFIG, EX_UNAVAILABLE
from workers.settings.source import load
from workers.stream.commit_metadata import encode, fingerprint

RUN_S = 90.0
SLOW_TAIL = "heavy:0.05:1:0.1"
RECORDS, MORE, IN_FLIGHT, SLOTS = 600, 200, 64, 16
HANDLED = r"penstock_records_total\b"


async def run(config: Path, *options: str) -> tuple[int, str, str]:
    """Run the installed command; return exit code, stdout and stderr."""
    process = await asyncio.create_subprocess_exec(
        PENSTOCK, "audit", config, *options, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), RUN_S)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def audited(config: Path) -> dict[str, Any]:
    """Return what it says of the only topic, without a process of its own."""
    settings = load(config).settings
    [topic] = await look(settings, [*settings.tasks], None)
    return topic.as_json()


def broken(topic: dict[str, Any]) -> dict[str, list[str]]:
    """Return the faults that no crash allows, each with the first records."""
    return {one["fault"]: one["first"] for one in topic["findings"] if one["broken"]}


def total(topic: dict[str, Any], column: str) -> int:
    """Return the sum over the partitions."""
    return sum(one[column] for one in topic["partitions"])


async def commit(stand: Stand, topic: str, offsets: dict[int, tuple[int, str]]) -> None:
    """Commit for the group, as a tool would; it is refused until the worker that has ended is out of it."""
    consumer = AIOKafkaConsumer(bootstrap_servers=stand.servers, group_id=stand.group, enable_auto_commit=False)
    await consumer.start()
    try:
        every = {TopicPartition(topic, number): OffsetAndMetadata(*at) for number, at in offsets.items()}
        consumer.assign([*every])
        async with asyncio.timeout(RUN_S):
            while True:
                with contextlib.suppress(CommitFailedError):
                    return await consumer.commit(every)
                await asyncio.sleep(0.2)
    finally:
        await consumer.stop()


async def test_a_worker_at_work_never_looks_wrong(real: Stand, simulate: Simulate) -> None:
    """Audited again and again under load, killed and started again: nothing is missing; in the end all is finished."""
    topic, model = await real.create(), simulate(latency=SLOW_TAIL)
    tasks = {TASK: {"input": topic, "max_in_flight": IN_FLIGHT}}
    more: dict[str, Any] = {"model": {"max_in_flight": SLOTS}, "kafka": {"group_instance_id": "only"}}
    await real.put(topic, [*tickets(RECORDS - 2, keys=200), New(key=b"gone"), New(key=b"odd", value=b"no JSON")])
    waiting: list[int] = []
    count = RECORDS
    with real.worker(tasks, model.url, **more) as worker:
        config = worker.config
        await asyncio.to_thread(worker.wait_ready)
        while not waiting or await asyncio.to_thread(worker.metric, HANDLED) < RECORDS * 0.6:
            seen = await audited(config)
            assert broken(seen) == {}
            if 0 < total(seen, "waiting") < count:
                waiting.append(total(seen, "waiting"))
            else:  # it was to be at work
                await real.put(topic, tickets(MORE, keys=200, start=count))
                count += MORE
        worker.kill()
    killed = await audited(config)
    assert broken(killed) == {}
    assert total(killed, "finished") + total(killed, "waiting") == count
    with real.worker(tasks, model.url, **more) as worker:
        await asyncio.to_thread(worker.wait_finished, count - total(killed, "finished"))
        assert worker.terminate()[0] == 0
    code, out, err = await run(config, "--json", "--task", TASK)
    assert (code, err) == (0, ""), out
    [done] = json.loads(out)["topics"]
    assert [total(done, column) for column in ("records", "finished", "past_commit")] == [count, count, 0]
    assert done["outcomes"] == {"enriched": count - 1, "dlq": 1}
    assert total(done, "doubled") <= total(killed, "past_commit") + IN_FLIGHT


async def test_a_commit_past_unfinished_records_is_a_loss_by_name(real: Stand, simulate: Simulate) -> None:
    """The offset, or a bit of the metadata's bitmap, calls records finished that have no outcome: it says which."""
    topic = await real.create(partitions=2)
    await real.put(topic, [*tickets(20, partition=0), *tickets(10, partition=1)])
    with real.worker({TASK: {"input": topic}}, simulate(latency="zero").url) as worker:
        await asyncio.to_thread(worker.wait_finished, 30)
        assert worker.terminate()[0] == 0
    await real.put(topic, [*tickets(5, start=100, partition=0), *tickets(5, start=200, partition=1)])
    config = worker.config
    still = await audited(config)
    assert (total(still, "waiting"), total(still, "missing"), still["findings"]) == (10, 0, [])
    await commit(real, topic, {0: (22, ""), 1: (10, encode(10, b"\x04", await mark(real, topic, 1)))})
    lost = await audited(config)
    assert [one["missing"] for one in lost["partitions"]] == [2, 1]
    assert total(lost, "waiting") == 7
    assert broken(lost) == {"lost": [f"{topic}/0/20", f"{topic}/0/21", f"{topic}/1/12"]}
    code, out, err = await run(config)
    assert (code, err) == (1, "")
    assert f"{TASK}: {topic}" in out
    assert "past the commit" in out
    assert f"FAILED  {topic}: 3 records have no outcome: {topic}/0/20, {topic}/0/21, {topic}/1/12. To do: stop" in out


async def mark(stand: Stand, topic: str, partition: int) -> str:
    """Return what ties a bitmap to a partition of this cluster."""
    admin = AIOKafkaAdminClient(bootstrap_servers=stand.servers)
    await admin.start()
    try:
        cluster = await admin.describe_cluster()
    finally:
        await admin.close()
    return fingerprint(cluster["cluster_id"], topic, partition)


async def test_what_others_write_to_an_output_is_told(real: Stand, simulate: Simulate) -> None:
    """A copy is doubled and allowed; an altered value and an output of no record are not."""
    topic = await real.create(partitions=1)
    await real.put(topic, tickets(10))
    with real.worker({TASK: {"input": topic}}, simulate(latency="zero").url) as worker:
        await asyncio.to_thread(worker.wait_finished, 10)
        assert worker.terminate()[0] == 0
    config, enriched = worker.config, f"{topic}.{TASK}.enriched"
    first = (await real.read(topic, "enriched"))[0]
    copy = New(key=first.key, value=first.value, headers=first.headers, partition=0)
    await real.put(enriched, [copy])
    doubled = await audited(config)
    assert (total(doubled, "doubled"), [one["broken"] for one in doubled["findings"]]) == (1, [False])
    altered = New(key=first.key, value=first.value.replace(b"invoice", b"Invoice"), headers=first.headers, partition=0)
    stranger = New(key=b"x", value=b"{}", headers=[("__penstock.source", b"nowhere/0/0")], partition=0)
    await real.put(enriched, [altered, stranger])
    assert broken(await audited(config)) == {"altered": [named_source(first)], "unknown": ["nowhere/0/0"]}


async def test_what_retention_took_is_no_loss(real: Stand, simulate: Simulate) -> None:
    """Outcomes that are gone, and inputs that are gone: exit 0, and it says of how many it cannot tell."""
    topic = await real.create(partitions=1)
    await real.put(topic, [*tickets(40), New(key=b"again", value=b"{}", headers=[(ORIGIN, b"elsewhere/1/2")])])
    with real.worker({TASK: {"input": topic}}, simulate(latency="zero").url) as worker:
        await asyncio.to_thread(worker.wait_finished, 41)
        assert worker.terminate()[0] == 0
    assert (await audited(worker.config))["unjudged"] == []
    await delete_before(real.servers, {TopicPartition(f"{topic}.{TASK}.enriched", 0): 15})
    gone = await audited(worker.config)
    assert (total(gone, "missing"), total(gone, "finished")) == (0, 26)
    assert [one["records"] for one in gone["unjudged"]] == [15]
    await delete_before(real.servers, {TopicPartition(topic, 0): 30})
    left = await audited(worker.config)
    assert total(left, "records") == 11
    assert left["findings"] == []


async def delete_before(servers: str, offsets: dict[TopicPartition, int]) -> None:
    """Remove the first records of partitions, as retention does."""
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        await admin.delete_records({at: RecordsToDelete(offset) for at, offset in offsets.items()})
    finally:
        await admin.close()


async def test_a_compacted_output_is_no_loss(real: Stand) -> None:
    """Of a key only the last outcome has to be there; that order was lost on the way is not held against it."""
    topic = await real.create(partitions=1)
    names = output_names(topic, TASK)
    config = real.configuration({TASK: {"input": topic, "topics": {"enriched": f"{topic}.compacted"}}})
    await real.broker.create_topics({f"{topic}.compacted": 1}, configs={"cleanup.policy": "compact"})
    await real.put(topic, tickets(12, keys=3))
    await commit(real, topic, {0: (12, "")})
    told = await audited(config)
    assert total(told, "missing") == 3, "the last of each key"
    assert [one["records"] for one in told["unjudged"]] == [9]
    assert names["enriched"] not in str(told)


async def test_without_topics_or_broker_it_says_so(real: Stand, tmp_path: Path) -> None:
    """78 names the missing topics, 69 says that no broker answers, 2 knows no such task."""
    topic = await real.create()
    tasks = {TASK: {"input": topic, "topics": {"review": f"{topic}.reviews"}}}
    code, out, err = await run(real.configuration(tasks))
    assert (code, out) == (EX_CONFIG, "")
    assert f"{topic}.reviews" in err
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{held.getsockname()[1]}"
        kafka = {"bootstrap_servers": nobody, "startup_timeout_s": 1}
        code, _, err = await run(Stand(real.broker, tmp_path / "b").configuration(tasks, kafka=kafka))
    assert code == EX_UNAVAILABLE
    assert nobody in err
    code, _, err = await run(real.configuration(tasks), "--task", "other")
    assert code == 2
    assert TASK in err


@pytest.mark.parametrize("partitions", [1, 3])
async def test_a_topic_without_records_is_fine(real: Stand, partitions: int) -> None:
    """Before the first record, and before the first worker: no commit, nothing waits."""
    topic = await real.create(partitions=partitions)
    told = await audited(real.configuration({TASK: {"input": topic}}))
    assert [one["commit"] for one in told["partitions"]] == [None] * partitions
    assert total(told, "records") == 0
