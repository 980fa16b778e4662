"""Several topics, tasks and orders in one worker: each by its own configuration, none in the way of another."""

from typing import Any

import orjson
import pytest
from aiokafka.structs import ConsumerRecord

from tests.support.stand import TASK, Simulate, Stand, tickets
from tests.support.topics import New
from topics.shapes import Shape
from workers.audit import named_source

HEAVY_TAIL = "heavy:0.02:0.5:0.1"
TEXT = {"input_format": "text", "answer": {"text": {}}, "ladder": [{"default": "no answer"}]}


async def test_several_topics_and_tasks_each_in_its_own_shape(stand: Stand, simulate: Simulate) -> None:
    """One worker runs a task over two topics that merges, and one over a third topic from text to bare text."""
    first, second = await stand.create(), await stand.create()
    third = await stand.create(task="summary")
    for topic in (first, second):
        await stand.put(topic, [*tickets(50), New(key=b"list", value=b"[1]")])
    await stand.put(third, [New(key=b"%d" % n, value=f'Grüße \x01 "{n}"'.encode()) for n in range(50)])
    tasks: dict[str, dict[str, Any]] = {
        TASK: {"input": [first, second], "shape": "merge", "merge_as": "triage"},
        "summary": {"input": third, "shape": "only", **TEXT},
    }
    with stand.worker(tasks, simulate(latency="const:0.02").url) as worker:
        worker.wait_finished(152)
        assert worker.terminate()[0] == 0
    for topic in (first, second):
        found = await stand.verdict(topic, shape=Shape(kind="merge", merge_as="triage"))
        assert not found.broken()
        assert found.by_kind == {"enriched": 50, "dlq": 1}
        for record in await stand.read(topic, "enriched"):
            body = orjson.loads(record.value)
            assert body.keys() == {"text", "triage"}
            assert body["triage"]["category"] == "billing"
        [letter] = await stand.read(topic, "dlq")
        assert dict(letter.headers)["__penstock.errors.reason"] == b"merge_refused"
    found = await stand.verdict(third, "summary", shape=Shape(kind="only", text=True))
    assert not found.broken()
    assert found.by_kind == {"enriched": 50}
    for record in await stand.read(third, "enriched", "summary"):
        assert orjson.loads(record.value).startswith("(simulated)")


async def test_order_is_kept_as_far_as_a_task_asks(stand: Stand, simulate: Simulate) -> None:
    """`key` keeps the order of each key, `partition` that of each partition, `none` none, under a heavy tail."""
    topics = {order: await stand.create(task=order) for order in ("none", "key", "partition")}
    counts = {"none": 300, "key": 300, "partition": 80}
    for order, topic in topics.items():
        await stand.put(topic, tickets(counts[order], keys=10 if order == "none" else 50))
    tasks = {order: {"input": topic, "order": order} for order, topic in topics.items()}
    with stand.worker(tasks, simulate(latency=HEAVY_TAIL).url) as worker:
        worker.wait_finished(sum(counts.values()))
        assert worker.terminate()[0] == 0
    verdicts = {order: await stand.verdict(topic, order, order="key") for order, topic in topics.items()}
    assert verdicts["none"].out_of_order, "so slow a tail must show where there is no order"
    assert not verdicts["key"].broken()
    assert not (await stand.verdict(topics["partition"], "partition", order="partition")).broken()
    outputs = {order: await stand.read(topic, "enriched", order) for order, topic in topics.items()}
    for order, topic in topics.items():
        assert {named_source(record) for record in outputs[order]} == every_source(topic, await stand.ends(topic))
        assert len(outputs[order]) == counts[order]
    assert overtakers(outputs["key"]) > 0, "different keys must run side by side"
    assert overtakers(outputs["partition"]) == 0


def every_source(topic: str, ends: dict[int, int]) -> set[str]:
    """Return the sources of all records of a topic."""
    return {f"{topic}/{partition}/{offset}" for partition, end in ends.items() for offset in range(end)}


def overtakers(records: list[ConsumerRecord]) -> int:
    """Count the records that come after one of a higher offset of their partition."""
    highest: dict[str, int] = {}
    count = 0
    for record in records:
        partition, _, offset = named_source(record).rpartition("/")
        count += int(offset) < highest.get(partition, -1)
        highest[partition] = max(highest.get(partition, -1), int(offset))
    return count


@pytest.mark.fault("D16")
async def test_a_hot_key_slows_only_its_own_partition(quick: Stand, simulate: Simulate) -> None:
    """With 60 % of all records under one key, its order is kept and the other partitions do not wait for it."""
    topic = await quick.create()
    hot = [New(key=b"hot", value=b'{"text": "%d"}' % n, partition=0) for n in range(120)]
    others = [ticket for partition in (1, 2, 3) for ticket in tickets(26, partition=partition)]
    await quick.put(topic, [*hot, *others])
    tasks = {TASK: {"input": topic, "max_in_flight": 64}}
    with quick.worker(tasks, simulate(latency="const:0.03").url, model={"max_in_flight": 16}) as worker:
        worker.wait_finished(198)
        assert worker.terminate()[0] == 0
    assert not (await quick.verdict(topic)).broken()
    made_at = [
        (orjson.loads(one.value)["provenance"]["produced_at"], one.key) for one in await quick.read(topic, "enriched")
    ]
    last_of_others = max(at for at, key in made_at if key != b"hot")
    assert sum(at < last_of_others for at, key in made_at if key == b"hot") < 60, "the others waited for the hot key"
