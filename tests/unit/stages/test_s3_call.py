"""Who waits for the model, for how long, and who leaves down the ladder."""

import asyncio
import contextlib
import math

import pytest

from tests.support.memory import memory_task, until
from tests.support.scripted_model import ScriptedModel
from workers.clock import monotonic_s
from workers.errors import (
    BreakerOpen,
    Busy,
    ConnectFailed,
    Declined,
    Misconfigured,
    NoAnswer,
    Overloaded,
    Stale,
    TimedOut,
    Unavailable,
)
from workers.pace import Pace
from workers.records import Passage, Prompt, Reply
from workers.stages.s3_call import call, patience
from workers.task import Task

PROMPT = Prompt(b"{}")


def task_of(model: ScriptedModel, *, when_unavailable: str = "fallback", pace: Pace | None = None) -> Task:
    """A task whose pace runs on a clock that stands still."""
    task = memory_task(model, when_unavailable=when_unavailable)
    object.__setattr__(task, "pace", pace or Pace(unlimited=False, clock=lambda: 0.0))
    return task


async def waits_of(model: ScriptedModel, task: Task) -> list[float]:
    """Call once, whatever comes of it, and return how long each attempt was ready to wait."""
    with contextlib.suppress(NoAnswer):
        await asyncio.wait_for(call(PROMPT, task, Passage(5.0)), 10)
    return [one.wait_s for one in model.calls]


@pytest.mark.parametrize("when_unavailable", ["fallback", "hold"])
async def test_a_fault_of_configuration_always_holds(when_unavailable: str) -> None:
    """No rung papers over a wrong key or model: the record waits for a person, and is then answered."""
    model = ScriptedModel(Misconfigured("401"), "there")
    assert await waits_of(model, task_of(model, when_unavailable=when_unavailable)) == [0.0, math.inf]


async def test_the_first_record_of_an_outage_leaves_at_once() -> None:
    """The model's rate allows one record to leave now, the next one a turn later."""
    model = ScriptedModel(then=BreakerOpen("open"), pace_per_s=10.0)
    task = task_of(model)
    assert await waits_of(model, task) == [0.0]
    model.calls.clear()
    assert await waits_of(model, task) == [0.0, pytest.approx(0.1)]


async def test_a_record_waits_for_its_turn_only_once() -> None:
    """It leaves when its turn has come and the breaker is still open."""
    model = ScriptedModel(then=BreakerOpen("open"), pace_per_s=10.0)
    task = task_of(model)
    task.pace.turn_s(10.0)
    with pytest.raises(BreakerOpen):
        await asyncio.wait_for(call(PROMPT, task, Passage(5.0)), 10)
    assert len(model.calls) == 2


async def test_a_record_that_is_answered_while_it_waits_gives_its_turn_back() -> None:
    """The model came back: those behind must not wait for a turn that nobody used. Once each, not twice."""
    model = ScriptedModel(BreakerOpen("open"), "back", "more", pace_per_s=10.0)
    task = task_of(model)
    task.pace.turn_s(10.0)
    assert await waits_of(model, task) == [0.0, pytest.approx(0.1)]
    await waits_of(model, task)
    assert task.pace.turn_s(10.0) == pytest.approx(0.1)


async def test_a_record_that_is_dropped_while_it_waits_gives_its_turn_back() -> None:
    """At a revoke all that wait are dropped: the next generation's records do not wait for their turns as well."""

    class Away(ScriptedModel):
        """Lets everyone wait who is ready to."""

        away = False

        async def complete(self, prompt: Prompt, passage: Passage, *, wait_s: float) -> Reply:
            """Wait without end where waiting is asked for."""
            if wait_s:
                self.away = True
                await asyncio.Event().wait()
            return await super().complete(prompt, passage, wait_s=wait_s)

    model = Away(then=BreakerOpen("open"), pace_per_s=10.0)
    task = task_of(model)
    task.pace.turn_s(10.0)
    waiting = asyncio.create_task(call(PROMPT, task, Passage(5.0)))
    await until(lambda: model.away)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert task.pace.turn_s(10.0) == pytest.approx(0.1)


@pytest.mark.parametrize("error", [TimedOut("x"), ConnectFailed("x"), Busy("x"), Overloaded("x")])
async def test_fallback_does_not_wait_after_a_failure(error: Unavailable) -> None:
    """The model was asked and gave nothing inside the deadline: the ladder answers."""
    model = ScriptedModel(error)
    assert await waits_of(model, task_of(model)) == [0.0]


@pytest.mark.parametrize("error", [BreakerOpen("x"), Busy("x"), Overloaded("x"), TimedOut("x"), ConnectFailed("x")])
async def test_hold_waits_for_the_model(error: Unavailable) -> None:
    """`when_unavailable: hold`: while nobody is answered, every record waits for as long as it takes."""
    model = ScriptedModel(error, error, "back")
    assert await waits_of(model, task_of(model, when_unavailable="hold")) == [0.0, math.inf, math.inf]


def test_under_hold_a_record_that_alone_fails_leaves() -> None:
    """Others were answered meanwhile: it is the record, and it must not block its key for ever."""
    model = ScriptedModel()
    model._last_answer_s = monotonic_s()
    task = task_of(model, when_unavailable="hold")
    before_s, later_s = model._last_answer_s - 1.0, model._last_answer_s + 1.0
    assert patience(TimedOut("x"), task, waited_s=0.0, began_s=before_s) is None
    assert patience(TimedOut("x"), task, waited_s=0.0, began_s=later_s) == math.inf
    assert patience(Busy("x"), task, waited_s=0.0, began_s=before_s) == math.inf
    assert patience(BreakerOpen("x"), task, waited_s=0.0, began_s=before_s) == math.inf


async def test_waiting_does_not_use_up_the_deadline() -> None:
    """`deadline_s` runs from the first model slot; a record that waited under hold has all of it again."""
    model = ScriptedModel(TimedOut("x"), "back")
    passage = Passage(5.0)
    passage.begin(monotonic_s() - 100)
    await call(PROMPT, task_of(model, when_unavailable="hold"), passage)
    assert passage.left_s(monotonic_s()) > 4.0


async def test_a_stale_record_is_not_asked_for() -> None:
    """`max_age_s` is the only limit that includes waiting."""
    model = ScriptedModel()
    task = memory_task(model, max_age_s=60.0)
    with pytest.raises(Stale):
        await call(PROMPT, task, Passage(5.0, stale_at_s=monotonic_s() - 1))
    assert not model.calls


async def test_what_the_server_refuses_is_not_tried_again() -> None:
    """A refusal of this very request is the ladder's, under hold too."""
    model = ScriptedModel(Declined("400"))
    with pytest.raises(Declined):
        await call(PROMPT, task_of(model, when_unavailable="hold"), Passage(5.0))
    assert len(model.calls) == 1
