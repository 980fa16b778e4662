"""Budgets of a running deployment: two replicas share one, and provenance and metrics say what it went for."""

import orjson

from tests.support.deployment import wait_for
from tests.support.stand import Simulate, Stand, tickets
from workers.audit import named_source

RECORDS = 600
IN_FLIGHT = 8
PRICE = {"input_usd_per_1m_tokens": 1_000.0, "output_usd_per_1m_tokens": 1_000.0}
SHARES = r"penstock_assigned_partitions\b"
SPENT = r"penstock_budget_spent_ratio\b"
COST = r"penstock_llm_cost_usd_total\b"


async def test_two_replicas_share_a_budget_and_the_ladder_does_the_rest(real: Stand, simulate: Simulate) -> None:
    """Each spends its half and little more; every record ends once; the costs written are those that were counted."""
    topic = await real.create()
    model = simulate(latency="const:0.01")
    budget_usd = 10.0
    task = {
        "triage": {
            "input": topic,
            "max_in_flight": IN_FLIGHT,
            "budget": {"usd_per_day": budget_usd, "when_spent": "fallback"},
        }
    }
    with (
        real.worker(task, model.url, model={"price": PRICE}) as one,
        real.worker(task, model.url, model={"price": PRICE}) as two,
    ):
        wait_for(lambda: [one.metric(SHARES), two.metric(SHARES)] == [2, 2], 60)
        await real.put(topic, tickets(RECORDS))
        wait_for(lambda: sum(w.metric(r"penstock_records_total\b") for w in (one, two)) == RECORDS, 90)
        wait_for(lambda: min(w.metric(SPENT) for w in (one, two)) >= 1, 60)
        counted_usd = one.metric(COST) + two.metric(COST)
        assert one.not_ready() == two.not_ready() == ""
        assert (one.terminate()[0], two.terminate()[0]) == (0, 0)
    assert not (await real.verdict(topic)).broken()
    enriched, fallback = await real.read(topic, "enriched"), await real.read(topic, "fallback")
    assert len({named_source(one) for one in [*enriched, *fallback]}) == RECORDS
    costs_usd = [orjson.loads(record.value)["provenance"]["cost_usd"] for record in enriched]
    assert abs(sum(costs_usd) - counted_usd) < 1e-6
    assert budget_usd <= counted_usd < budget_usd + 2 * IN_FLIGHT * max(costs_usd)
    assert {orjson.loads(record.value)["provenance"]["reason"] for record in fallback} == {"budget"}
