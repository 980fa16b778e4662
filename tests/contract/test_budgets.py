"""Budgets over a whole decision: what is charged, who is asked no more, and what becomes of the record then."""

import asyncio
from dataclasses import dataclass, replace
from typing import Any

import orjson
import pytest

from tests.support.memory import memory_task, until
from tests.support.scripted_model import ScriptedModel
from tests.support.wire import make_record, route_at_now
from workers import metrics
from workers.budget import DAY_S, Budget, estimated_tokens
from workers.clock import monotonic_s
from workers.errors import AnswerEmpty, AnswerTooLong, BudgetSpent, Stale, TimedOut
from workers.ladder.default import Default
from workers.llm.batches import Batches
from workers.llm.cache import Cached
from workers.llm.flights import SingleFlight
from workers.outcome import Enriched, Fallback
from workers.pipeline import decide
from workers.records import Passage, Reply
from workers.settings.batch import BatchSettings
from workers.settings.budget import BudgetSettings, Price
from workers.settings.model import CacheSettings
from workers.task import Task

PRICE = Price(input_usd_per_1m_tokens=1_000.0, output_usd_per_1m_tokens=10_000.0)
ONE_CALL_TOKENS = 18
ONE_CALL_USD = 0.081
"""Of the scripted model, which says 11 and 7 tokens; `ONE_CALL_USD` at `PRICE`."""

FREE = Price(input_usd_per_1m_tokens=0.0, output_usd_per_1m_tokens=0.0)
NO_USAGE = Reply("fine", "scripted", "http://scripted", "stop", 0, 0, 0.1, 1)


@dataclass
class WallClock:
    """A wall clock that stands until it is set."""

    now_s: float = DAY_S * 1.5

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.stages.s3_call.BUDGET_CHECK_S", 0.002)


def task_of(
    model: Any, clock: WallClock | None = None, *, price: Price | None = PRICE, settings: Any = None, **budget: Any
) -> Task:
    """A task with a default at the end of its ladder."""
    ours = Budget(BudgetSettings(**budget), clock or WallClock()) if budget else None
    task = memory_task(model, **(settings or {}))
    return replace(task, budget=ours, price=price, ladder=(Default("later"),))


def below(task: Task, model: ScriptedModel, price: Price | None) -> Task:
    """The task with another model below its own."""
    return replace(task, next_model=replace(task, model=model, price=price))


async def decided(task: Task, passage: Passage | None = None) -> Enriched | Fallback:
    """What becomes of one record."""
    outcome = await asyncio.wait_for(decide(make_record(topic="in"), task, passage or Passage(5.0)), 10)
    assert isinstance(outcome, Enriched | Fallback)
    return outcome


def provenance_in(outcome: Enriched | Fallback, task: Task) -> dict[str, Any]:
    """The provenance that is written."""
    [outgoing] = route_at_now(make_record(topic="in"), outcome, task)
    provenance: dict[str, Any] = orjson.loads(outgoing.value or b"")["provenance"]
    return provenance


def cost_in(outcome: Enriched | Fallback, task: Task) -> float | None:
    """The cost in the provenance that is written."""
    cost_usd: float | None = provenance_in(outcome, task)["cost_usd"]
    return cost_usd


# ---------------------------------------------------------------------------------------------- when it is spent


async def test_fallback_asks_the_ladder() -> None:
    """The record that finds the budget spent is answered by the next rung, with the reason; the model is not asked."""
    model = ScriptedModel()
    task = task_of(model, tokens_per_day=ONE_CALL_TOKENS)
    assert isinstance(await decided(task), Enriched)
    outcome = await decided(task)
    assert isinstance(outcome, Fallback)
    assert (outcome.tier, outcome.error.stage, outcome.error.reason) == ("default", "call", "budget")
    assert not outcome.error.retryable
    assert not outcome.error.blames_endpoint
    assert len(model.calls) == 1
    assert cost_in(outcome, task) is None
    assert task.holds_for_budget() is None


@pytest.mark.parametrize("when_spent", ["fallback", "hold", "stop"])
@pytest.mark.parametrize("price", [None, FREE])
async def test_a_budget_in_dollars_leaves_a_model_that_costs_nothing(price: Price | None, when_spent: str) -> None:
    """While one below may be asked nobody waits: it answers, and provenance says whose answer it should have been."""
    dear, cheap = ScriptedModel(), ScriptedModel(name="cheap")
    task = below(task_of(dear, usd_per_day=ONE_CALL_USD, when_spent=when_spent), cheap, price)
    await decided(task)
    outcome = await decided(task)
    assert isinstance(outcome, Enriched)
    assert outcome.reply.passed_by == (("scripted", "budget"),)
    assert (len(dear.calls), len(cheap.calls)) == (1, 1)
    assert cost_in(outcome, task) == (None if price is None else 0.0)
    assert task.budget is not None
    assert task.budget.stopped_by is None
    assert task.holds_for_budget() is None


async def test_a_budget_in_tokens_leaves_no_model() -> None:
    """Tokens are tokens, whatever they cost."""
    dear, cheap = ScriptedModel(), ScriptedModel(name="cheap")
    task = below(task_of(dear, tokens_per_day=ONE_CALL_TOKENS), cheap, None)
    await decided(task)
    assert isinstance((await decided(task)), Fallback)
    assert not cheap.calls


async def test_hold_waits_for_midnight() -> None:
    """Not busy, so that a revoke can take it; its deadline begins anew; the model answers on the new day."""
    model, clock, passage = ScriptedModel(), WallClock(), Passage(5.0)
    task = task_of(model, clock, tokens_per_day=1, when_spent="hold")
    await decided(task)
    passage.begin(monotonic_s() - 60.0)  # as if it had been asked before, and had waited for hours
    waiting = asyncio.create_task(decided(task, passage))
    for _ in range(20):
        await asyncio.sleep(0.002)
    clock.now_s = DAY_S * 2 - 1
    await asyncio.sleep(0.02)
    assert (waiting.done(), passage.busy, len(model.calls)) == (False, False, 1)
    assert task.holds_for_budget() == "tokens"
    clock.now_s = DAY_S * 2
    assert isinstance(await asyncio.wait_for(waiting, 10), Enriched)
    assert passage.left_s(monotonic_s()) > 0
    assert model.calls[1].passage is passage


async def test_hold_ends_when_the_share_grows() -> None:
    """Partitions that come bring their part of the budget along."""
    task = task_of(ScriptedModel(), tokens_per_day=4 * ONE_CALL_TOKENS, when_spent="hold")
    assert task.budget is not None
    task.budget.take_share(1, 4)
    await decided(task)
    waiting = asyncio.create_task(decided(task))
    await asyncio.sleep(0.02)
    assert not waiting.done()
    task.budget.take_share(2, 4)
    assert isinstance(await asyncio.wait_for(waiting, 10), Enriched)


async def test_hold_lasts_no_longer_than_max_age_s() -> None:
    """A record that grows too old leaves down the ladder, with that reason."""
    task = task_of(ScriptedModel(), tokens_per_day=1, when_spent="hold", settings={"max_age_s": 60.0})
    await decided(task)
    outcome = await decided(task, Passage(5.0, stale_at_s=monotonic_s() + 0.05))
    assert isinstance(outcome, Fallback)
    assert isinstance(outcome.error, Stale)


async def test_hold_can_be_cancelled() -> None:
    """What waits is dropped at a revoke; the next owner has a budget of its own."""
    task = task_of(ScriptedModel(), tokens_per_day=1, when_spent="hold")
    await decided(task)
    waiting = asyncio.create_task(decided(task))
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_stop_lasts_past_midnight_and_past_max_age_s() -> None:
    """Nothing is decided for the record any more, not even by the ladder or the cache: only a restart clears it."""
    clock = WallClock()
    model = Cached(ScriptedModel(), CacheSettings())  # type: ignore[arg-type]
    task = task_of(model, clock, tokens_per_day=1, when_spent="stop", settings={"max_age_s": 60.0})
    ours = task.budget
    assert ours is not None
    await decided(task)
    asked = replace(task, render=lambda **_: "another")
    waiting = [asyncio.create_task(decided(asked, Passage(5.0, stale_at_s=monotonic_s() + 0.01)))]
    await until(lambda: ours.stopped_by is not None)
    clock.now_s += DAY_S
    waiting.append(asyncio.create_task(decided(task)))
    await asyncio.sleep(0.05)
    assert not any(one.done() for one in waiting)
    assert ours.stopped_by == "tokens_per_day is spent: 18 of 1, this replica's share of 1"
    for one in waiting:
        one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_kept_answer_is_given_though_the_budget_is_spent() -> None:
    """It takes no call. Another request is refused."""
    model = ScriptedModel()
    task = task_of(Cached(model, CacheSettings()), tokens_per_day=1)  # type: ignore[arg-type]
    await decided(task)
    outcome = await decided(task)
    assert isinstance(outcome, Enriched)
    assert outcome.reply.cached
    assert cost_in(outcome, task) == 0.0
    assert isinstance(await decided(replace(task, render=lambda **_: "another")), Fallback)
    assert len(model.calls) == 1


# ------------------------------------------------------------------------------------------------ what is charged


async def test_an_answer_is_charged_and_its_cost_is_written() -> None:
    """At the price of the model that answered: in the provenance, in the series, and in both budgets."""
    task = task_of(ScriptedModel(), tokens_per_day=180, usd_per_day=0.81)
    outcome = await decided(task)
    assert cost_in(outcome, task) == ONE_CALL_USD
    assert task.budget is not None
    assert task.budget.spent_ratios() == {"tokens": pytest.approx(0.1), "usd": pytest.approx(0.1)}


async def test_without_a_price_the_cost_is_unknown() -> None:
    """Unknown is not zero; tokens are counted all the same."""
    task = task_of(ScriptedModel(), price=None, tokens_per_day=180)
    assert cost_in(await decided(task), task) is None
    assert task.budget is not None
    assert task.budget.spent_ratios() == {"tokens": pytest.approx(0.1)}


async def test_a_bad_answer_and_a_second_ask_are_charged() -> None:
    """They were paid for; the record's cost is that of all its calls."""
    model = ScriptedModel("far too long", "short")
    task = task_of(model, tokens_per_day=360, settings={"answer": {"text": {"max_chars": 5}}})
    outcome = await decided(task)
    assert isinstance(outcome, Enriched)
    assert cost_in(outcome, task) == 2 * ONE_CALL_USD
    assert task.budget is not None
    assert task.budget.spent_ratios() == {"tokens": pytest.approx(0.1)}


async def test_a_bad_model_above_is_charged_at_its_own_price() -> None:
    """The record's cost is the sum over the models that were asked for it."""
    small, large = ScriptedModel("far too long"), ScriptedModel("short", name="large")
    settings = {"answer": {"text": {"max_chars": 5}, "ask_again": False}}
    half = Price(input_usd_per_1m_tokens=500.0, output_usd_per_1m_tokens=5_000.0)
    task = below(task_of(small, settings=settings, tokens_per_day=10**6), large, half)
    assert cost_in(await decided(task), task) == pytest.approx(1.5 * ONE_CALL_USD)


async def test_what_was_thrown_away_is_in_the_record_that_leaves() -> None:
    """A bad answer, a bad second one, an empty one of the next model: all paid for, and the ladder's answer says so."""
    small, large = ScriptedModel(then="far too long"), ScriptedModel(AnswerEmpty("none", tokens=(3, 2)), name="large")
    settings = {"answer": {"text": {"max_chars": 5}}}
    task = below(task_of(small, settings=settings, tokens_per_day=1_000), large, PRICE)
    outcome = await decided(task)
    assert isinstance(outcome, Fallback)
    said = provenance_in(outcome, task)
    assert (said["tier"], said["attempts"], said["reason"]) == ("default", 3, "answer_empty")
    assert (said["input_tokens"], said["output_tokens"]) == (25, 16)
    assert said["cost_usd"] == pytest.approx(25 / 1_000 + 16 / 100)
    assert task.budget is not None
    assert task.budget.spent_ratios() == {"tokens": pytest.approx(0.041)}


async def test_what_nobody_counts_or_prices_is_unknown_in_the_record_that_leaves() -> None:
    """Null, not 0: no price, no tokens; or no call that was answered."""
    free = task_of(ScriptedModel(AnswerEmpty("none")), price=None)
    away = task_of(ScriptedModel(TimedOut("no answer")))
    for task in (free, away):
        said = provenance_in(await decided(task), task)
        assert (said["input_tokens"], said["output_tokens"], said["cost_usd"]) == (None, None, None)


async def test_a_bad_member_of_a_batch_is_charged() -> None:
    """Each record pays its share of the call, whoever of them counts the attempt and whatever its answer is."""
    good = Reply("fine", "scripted", "http://scripted", "stop", 11, 7, 0.1, 0)
    members = (good, AnswerEmpty("none", tokens=(11, 7)))
    model = ScriptedModel(Reply("", "scripted", "http://scripted", "", 22, 14, 0.1, 1, members=members))
    task = task_of(Batches(model, BatchSettings(max_records=2, linger_s=5.0)), tokens_per_day=360)  # type: ignore[arg-type]
    first, second = await asyncio.gather(decided(task), decided(task))
    assert len(model.calls) == 1
    assert isinstance(second, Fallback)
    assert (cost_in(first, task), cost_in(second, task)) == (ONE_CALL_USD, ONE_CALL_USD)
    assert task.budget is not None
    assert task.budget.spent_ratios() == {"tokens": pytest.approx(0.1)}


async def test_a_spent_budget_forbids_the_second_ask() -> None:
    """Then the record says what was wrong with its first answer, as when the second came to nothing."""
    model = ScriptedModel("far too long", "short")
    outcome = await decided(task_of(model, tokens_per_day=1, settings={"answer": {"text": {"max_chars": 5}}}))
    assert isinstance(outcome, Fallback)
    assert isinstance(outcome.error, AnswerTooLong)
    assert isinstance(outcome.error.__cause__, BudgetSpent)
    assert len(model.calls) == 1


async def test_a_server_that_counts_no_tokens_is_charged_by_the_bytes() -> None:
    """A limit in tokens must not be without effect there."""
    model = ScriptedModel(NO_USAGE)
    task = task_of(model, tokens_per_day=1_000)
    await decided(task)
    body = model.calls[0].body
    assert task.budget is not None
    assert task.budget.spent_ratios() == {"tokens": (-(-len(body) // 3) + 2) / 1_000}


async def test_an_empty_answer_is_charged_and_a_failed_call_is_not() -> None:
    """A 200 without content used what its server counts, at least the request; what a timeout used nobody says."""
    counted, silent = AnswerEmpty("the model said nothing", tokens=(200, 50)), AnswerEmpty("the model said nothing")
    for error, spent in ((counted, 0.25), (silent, None), (TimedOut("no answer"), 0.0)):
        model = ScriptedModel(error)
        task = task_of(model, tokens_per_day=1_000)
        assert isinstance(await decided(task), Fallback)
        estimated = estimated_tokens(model.calls[0].body) / 1_000
        assert task.budget is not None
        assert task.budget.spent_ratios() == {"tokens": estimated if spent is None else spent}, error


@pytest.mark.parametrize("step", ["fine", AnswerEmpty("the model said nothing")])
async def test_a_shared_call_is_charged_once(step: Any) -> None:
    """Ten records, one call, one charge, whether its answer was good or not; the others cost 0."""
    model = ScriptedModel(step)
    task = task_of(SingleFlight(model), tokens_per_day=1_000)  # type: ignore[arg-type]
    task = replace(task, render=lambda **_: "the same")
    model.gate.clear()
    running = [asyncio.create_task(decided(task)) for _ in range(10)]
    await until(lambda: model.calls)
    model.gate.set()
    outcomes = await asyncio.gather(*running)
    assert len(model.calls) == 1
    assert task.budget is not None
    body_tokens = -(-len(model.calls[0].body) // 3)
    expected = ONE_CALL_TOKENS if step == "fine" else body_tokens
    assert task.budget.spent_ratios() == {"tokens": expected / 1_000}
    if step == "fine":
        assert sorted(cost_in(one, task) or 0.0 for one in outcomes) == [0.0] * 9 + [ONE_CALL_USD]


async def test_what_is_in_flight_when_the_budget_is_spent_goes_on() -> None:
    """Those calls are under way: their answers are used, and the limit is passed by no more than them."""
    model = ScriptedModel()
    task = task_of(model, tokens_per_day=1)
    model.gate.clear()
    running = [asyncio.create_task(decided(task)) for _ in range(5)]
    await until(lambda: len(model.calls) == 5)
    model.gate.set()
    assert all(isinstance(one, Enriched) for one in await asyncio.gather(*running))
    assert isinstance(await decided(task), Fallback)
    assert task.budget is not None
    assert task.budget.spent_ratios() == {"tokens": 5.0 * ONE_CALL_TOKENS}


async def test_the_series_counts_what_was_paid() -> None:
    """By task and by the model's name in the configuration."""
    task = replace(task_of(ScriptedModel(name="paid")), name="counted")
    await decided(task)
    value = metrics.REGISTRY.get_sample_value("penstock_llm_cost_usd_total", {"task": "counted", "model": "paid"})
    assert value == pytest.approx(ONE_CALL_USD)
