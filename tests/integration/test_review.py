"""The rung that asks a person: a copy and a fallback record for each, as often as persons can look."""

import orjson
from aiokafka.structs import ConsumerRecord

from tests.support.deployment import DEFAULT, SCHEMA
from tests.support.stand import TASK, Simulate, Stand, tickets
from workers.audit import named_source

STRICT = SCHEMA | {"properties": SCHEMA["properties"] | {"summary": {"type": "string", "pattern": "^no answer$"}}}
"""Refuses what the simulated model says, and takes the default: each record goes down the ladder."""

LADDER = [{"review": {"max_per_hour": 5}}, {"default": DEFAULT}]


def by_tier(records: list[ConsumerRecord]) -> dict[str, set[str]]:
    """Return the sources of fallback records by their tier."""
    found: dict[str, set[str]] = {}
    for record in records:
        found.setdefault(orjson.loads(record.value)["provenance"]["tier"], set()).add(named_source(record))
    return found


async def test_review_is_asked_for_as_often_as_allowed(quick: Stand, simulate: Simulate) -> None:
    """The first five have a copy and a fallback record without enrichment; after them the next rung answers."""
    topic = await quick.create()
    await quick.put(topic, tickets(30))
    model, files = simulate(latency="const:0.02", wrap_ratio=0), {"schema.json": orjson.dumps(STRICT).decode()}
    with quick.worker({TASK: {"input": topic, "ladder": LADDER}}, model.url, files=files) as worker:
        worker.wait_finished(30)
        assert worker.metric("penstock_review_suppressed_total") == 25
        assert worker.terminate()[0] == 0
    assert not (found := await quick.verdict(topic)).broken()
    assert found.by_kind == {"fallback": 30}
    records = await quick.read(topic, "fallback")
    tiers, copies = by_tier(records), await quick.read(topic, "review")
    assert {tier: len(sources) for tier, sources in tiers.items()} == {"review": 5, "default": 25}
    assert len(copies) == 5
    assert {named_source(copy) for copy in copies} == tiers["review"]
    for record in records:
        body = orjson.loads(record.value)
        assert body["provenance"]["reason"] == "answer_off_schema"
        assert body["enrichment"] == (None if body["provenance"]["tier"] == "review" else DEFAULT)


async def test_a_copy_that_cannot_be_written_passes_to_the_next_rung(real: Stand, simulate: Simulate) -> None:
    """When flagging fails, the next rung answers: one fallback record each, no dead letter, no copy."""
    topic = await real.create(max_bytes={"review": 300})
    await real.put(topic, tickets(20))
    model, files = simulate(latency="const:0.02", wrap_ratio=0), {"schema.json": orjson.dumps(STRICT).decode()}
    with real.worker({TASK: {"input": topic, "ladder": LADDER}}, model.url, files=files) as worker:
        worker.wait_finished(20)
        assert worker.terminate()[0] == 0
    assert not (found := await real.verdict(topic)).broken()
    assert found.by_kind == {"fallback": 20}
    assert by_tier(await real.read(topic, "fallback")).keys() == {"default"}
    assert await real.read(topic, "review") == []
