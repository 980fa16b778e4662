"""The model stops answering: the ladder answers at its pace, or the task holds; and it comes back by itself."""

import asyncio
import time
from typing import Any

import orjson
import pytest

from tests.support.deployment import WorkerProcess, wait_for
from tests.support.stand import TASK, Simulate, Stand, tickets

AWAY_S = 3.0
FAULTS = ("503", "hang", "reset")
TIMEOUT_S = {"503": 15.0, "hang": 3.0, "reset": 15.0}
"""Short where it is what shows the fault; long for a model that answers after 0.02 s, on a busy machine as well."""
DEADLINE_S = 30.0
"""Past it the ladder answers under `hold` as well: no record may be so late."""
AFTER = 10_000
"""The first number of what is written when the model is back."""
WARM_UP = 30
WARM_UP_MAX_PER_S = 30
"""30 answers measured over a second at least: what the pace can be at most."""


@pytest.mark.fault("E28")
@pytest.mark.parametrize("fault", FAULTS)
async def test_the_ladder_answers_at_the_models_pace_or_the_task_holds(
    quick: Stand, simulate: Simulate, fault: str
) -> None:
    """`fallback` lets records leave no faster than the model answered, `hold` lets none; both go on by themselves."""
    paced, held = await quick.create(task="paced"), await quick.create(task="held")
    models = {"paced": simulate(latency="const:0.02"), "held": simulate(latency="const:0.02")}
    tasks = {
        "paced": {"input": paced, "deadline_s": DEADLINE_S},
        "held": {"input": held, "deadline_s": DEADLINE_S, "when_unavailable": "hold", "model": "other"},
    }
    other = {"other": {"url": models["held"].url}}
    with quick.worker(tasks, models["paced"].url, model={"timeout_s": TIMEOUT_S[fault]}, models=other) as worker:
        await warm_up(quick, paced, worker.wait_ready())
        for model in models.values():
            model.fail(fault)  # until it is told otherwise
        began_s = time.monotonic()
        await quick.put(paced, tickets(600, start=1_000))
        await quick.put(held, tickets(300))
        wait_for(lambda: breakers_open(worker) == 2, 60, lambda: "the breakers did not open", every_s=0.25)
        wait_for(lambda: held_back(worker, held) == 300, 60, lambda: f"lag {held_back(worker, held)}")
        await asyncio.sleep(max(0.0, began_s + AWAY_S - time.monotonic()))
        assert held_back(worker, held) == 300
        worker.wait_ready()
        assert [await quick.read(held, kind, "held") for kind in ("enriched", "fallback", "dlq")] == [[], [], []]
        for model in models.values():
            model.ok()
        written = 600 + await close_the_breakers(quick, paced, worker)
        away_s = time.monotonic() - began_s
        worker.wait_finished(WARM_UP + written + 300)
        await quick.put(paced, tickets(50, start=AFTER))
        worker.wait_finished(WARM_UP + written + 300 + 50)
        assert worker.terminate()[0] == 0
    assert not (found := await quick.verdict(held, "held")).broken()
    assert found.by_kind == {"enriched": 300}
    assert not (found := await quick.verdict(paced, "paced")).broken()
    assert 0 < found.by_kind["fallback"] <= WARM_UP_MAX_PER_S * (away_s + 2) + 64
    assert found.by_kind["enriched"] == WARM_UP + written + 50 - found.by_kind["fallback"]
    tiers = {orjson.loads(one.value)["provenance"]["tier"] for one in await quick.read(paced, "fallback", "paced")}
    assert tiers == {"default"}
    answered = {orjson.loads(one.value)["input"]["text"] for one in await quick.read(paced, "enriched", "paced")}
    assert {f"invoice {n}" for n in range(AFTER, AFTER + 50)} <= answered


async def close_the_breakers(stand: Stand, topic: str, worker: WorkerProcess) -> int:
    """Write a few records again and again, for the trials, until no breaker is open; return how many there were."""
    count, ends_at_s = 0, time.monotonic() + 60
    while breakers_open(worker):
        assert time.monotonic() < ends_at_s, "the breakers did not close"
        await stand.put(topic, tickets(5, start=2_000 + count))
        count += 5
        await asyncio.sleep(0.25)
    return count


async def warm_up(stand: Stand, topic: str, worker: WorkerProcess) -> None:
    """Let some records through slowly, so that a slow pace is what has been measured when the outage begins."""
    for n in range(3):
        await stand.put(topic, tickets(WARM_UP // 3, start=n * WARM_UP // 3))
        await asyncio.sleep(0.4)
    wait_for(lambda: worker.metric(r"penstock_records_total\b") == WARM_UP, 60)


def held_back(worker: WorkerProcess, topic: str) -> float:
    """Return the lag of one topic."""
    return worker.metric(f'penstock_lag_records{{.*topic="{topic}"')


def breakers_open(worker: WorkerProcess) -> int:
    """Return how many breakers are seen open or half-open."""
    return sum(state > 0 for state in worker.series("penstock_breaker_state"))


@pytest.mark.fault("E17", "E28")
async def test_a_misconfigured_model_holds_its_task_until_it_is_mended(quick: Stand, simulate: Simulate) -> None:
    """401: nothing is answered, rejected or committed, `/readyz` says why, and no restart is needed when it ends."""
    topic, model = await quick.create(), simulate(latency="const:0.02")
    model.fail("401")
    await quick.put(topic, tickets(100))
    with quick.worker({TASK: {"input": topic}}, model.url) as worker:
        wait_for(lambda: "misconfigured" in worker.not_ready(), 60, worker.not_ready)
        await asyncio.sleep(1.5)
        assert "401" in worker.not_ready()
        assert worker.get("/livez")[0] == 200
        wait_for(lambda: worker.metric('penstock_task_held{reason="misconfigured"') == 1, 60)
        assert not any((await quick.committed(topic)).values())
        for kind in ("enriched", "fallback", "dlq", "review"):
            assert await quick.read(topic, kind) == []
        model.ok()
        worker.wait_finished(100)
        worker.wait_ready()
        assert worker.terminate()[0] == 0
    assert not (found := await quick.verdict(topic)).broken()
    assert found.by_kind == {"enriched": 100}


@pytest.mark.fault("E28")
async def test_a_task_on_hold_leaves_the_others_alone(quick: Stand, simulate: Simulate) -> None:
    """Two tasks on two models: while one holds for a model that hangs, the other finishes all of its records."""
    held, free = await quick.create(task="held"), await quick.create(task="free")
    away, model = simulate(latency="const:0.02"), simulate(latency="const:0.02")
    away.fail("hang")
    await quick.put(held, tickets(700))
    await quick.put(free, tickets(300))
    tasks: dict[str, dict[str, Any]] = {
        "held": {"input": held, "when_unavailable": "hold", "model": "away", "deadline_s": DEADLINE_S},
        "free": {"input": free},
    }
    with quick.worker(tasks, model.url, models={"away": {"url": away.url, "timeout_s": TIMEOUT_S["hang"]}}) as worker:
        wait_for(lambda: worker.metric(r"penstock_records_total\b") == 300, 60)
        assert [await quick.read(held, kind, "held") for kind in ("enriched", "fallback", "dlq")] == [[], [], []]
        away.ok()
        worker.wait_finished(1_000)
        assert worker.terminate()[0] == 0
    for topic, task, count in ((held, "held", 700), (free, "free", 300)):
        assert not (found := await quick.verdict(topic, task)).broken()
        assert found.by_kind == {"enriched": count}
