"""Stage 3, call: prompt -> reply. The one place that decides whether a record waits for the model or leaves."""

import asyncio
import math
from collections.abc import Callable
from functools import lru_cache

from workers import metrics
from workers.budget import Budget, tokens_used
from workers.clock import monotonic_s
from workers.errors import (
    BadAnswer,
    BreakerOpen,
    BudgetSpent,
    Busy,
    DeadlineOver,
    Misconfigured,
    NoAnswer,
    Stale,
    Unavailable,
)
from workers.llm.cache import is_kept
from workers.log import get_logger
from workers.records import Passage, Prompt, Reply
from workers.task import Task

BUDGET_CHECK_S = 1.0
"""Between two looks at a spent budget: midnight comes by the wall clock, which can be set."""

log = get_logger(__name__)


async def call(prompt: Prompt, task: Task, passage: Passage) -> Reply:
    """Return the model's reply, waiting for the model as the task's `when_unavailable` says, and for its budget.

    Raises:
        NoAnswer: the ladder has to answer.
    """
    if task.budget is not None:
        await _within_budget(task.budget, prompt, task, passage)
    passage.unretried = 0  # a second ask, or the next model, begins anew
    wait_s = 0.0
    while True:
        began_s = monotonic_s()
        _not_stale(task, passage, began_s)
        try:
            reply = await task.model.complete(prompt, passage, wait_s=wait_s)
        except Unavailable as error:
            patience_s = patience(error, task, waited_s=wait_s, began_s=began_s)
            if patience_s is None:
                raise
            wait_s = patience_s
            passage.restart(error.unretried)
        except asyncio.CancelledError:
            _give_back(task, wait_s)
            raise
        except BadAnswer as error:
            if not error.shared:
                _charge(prompt, error.raw, error, task, passage)
            raise
        else:
            _give_back(task, wait_s)
            _account(prompt, reply, task, passage)
            return reply


def _not_stale(task: Task, passage: Passage, now_s: float) -> None:
    if passage.stale_at_s is not None and now_s >= passage.stale_at_s:
        raise Stale(f"older than max_age_s {task.settings.max_age_s:g} before it could be answered")


async def _within_budget(budget: Budget, prompt: Prompt, task: Task, passage: Passage) -> None:
    """Return when the task's budget allows the call. An answer that is kept costs nothing, and is always given.

    - With a model below that may be asked, or `fallback`: the record leaves this one at once.
    - `hold`: it waits for the next day, or for a larger share; its deadline begins anew, `max_age_s` does not.
    - `stop`: it waits to be cancelled. Like the guard's, this pause ends with the process.

    Raises:
        BudgetSpent: the next model, or the ladder, has to answer.
        Stale: `max_age_s` passed under hold.
    """
    kind = task.over_budget()
    if budget.stopped_by is None and (kind is None or is_kept(task.model, prompt)):
        return
    if kind is not None:
        if budget.first_refusal(kind):
            log.warning("budget_spent", task=task.name, reason=budget.says(kind), when_spent=budget.when_spent)
        if budget.when_spent == "fallback" or task.out_of_budget() is None:
            raise BudgetSpent(budget.says(kind))
        if budget.when_spent == "stop" and budget.stopped_by is None:
            budget.stopped_by = budget.says(kind)
    while budget.stopped_by is not None or task.over_budget() is not None:
        if budget.stopped_by is None:
            _not_stale(task, passage, monotonic_s())
        await asyncio.sleep(BUDGET_CHECK_S)
    passage.restart()


def _account(prompt: Prompt, reply: Reply, task: Task, passage: Passage) -> None:
    """Charge a reply, unless it took no call of this record's, and write on it what the record has cost so far."""
    if not (reply.shared or reply.cached):
        _charge(prompt, reply.text, reply, task, passage)
    if task.price is not None:
        reply.cost_usd = passage.cost_usd or 0.0


def _charge(prompt: Prompt, text: str, said: Reply | BadAnswer, task: Task, passage: Passage) -> None:
    """Note what an answered call used, good or bad. Of a call that failed nobody says what it cost."""
    passage.input_tokens += said.input_tokens
    passage.output_tokens += said.output_tokens
    if task.budget is None and task.price is None:
        return
    input_tokens, output_tokens = tokens_used(prompt.body, text, said.input_tokens, said.output_tokens)
    cost_usd = 0.0
    if task.price is not None:
        cost_usd = task.price.cost_usd(input_tokens, output_tokens)
        passage.cost_usd = (passage.cost_usd or 0.0) + cost_usd
        _cost_series(task.name, task.model.name)(cost_usd)
    if task.budget is not None:
        task.budget.charge(input_tokens + output_tokens, cost_usd)


@lru_cache(maxsize=256)
def _cost_series(task: str, model: str) -> Callable[[float], None]:
    """Finding a child by its labels costs four times as much as using it."""
    return metrics.COST_USD.labels(task, model).inc


def _give_back(task: Task, waited_s: float) -> None:
    """Return the turn of a record that waited for one and does not leave down the ladder after all."""
    if 0 < waited_s < math.inf:
        task.pace.give_back(task.model.pace_per_s())


def patience(error: Unavailable, task: Task, *, waited_s: float, began_s: float) -> float | None:
    """Return how long this record now waits for the model to come back, None when it leaves down the ladder.

    - With another model below, that one is asked at once: pace and hold are for when nobody is left to ask. After
      another model nobody holds here: whichever comes back first shall answer (`holds`).
    - A fault of configuration always holds: no rung may paper over a wrong key, and no dead letter either.
    - `fallback`: while the breaker is open a record waits for its turn at the model's last measured rate, or until the
      model is back, whichever comes first; then it leaves.
    - `defer`: as `fallback`. The retry topic gets no more than the model could have answered, so that a short outage
      does not write a backlog twice, and one that outlasts the deferrals does not drain it down the ladder.
    - `hold`: it waits for the model, and for the retry budget. Only a record that fails in all its attempts while
      others are answered leaves: it is to blame itself, and must not block its key for ever.
    """
    if isinstance(error, Misconfigured):
        return math.inf
    if task.next_model is not None:
        return None
    hold = task.settings.when_unavailable == "hold"
    if isinstance(error, BreakerOpen) and not hold:
        turn_s = 0.0 if waited_s > 0 else task.pace.turn_s(task.model.pace_per_s())
        return turn_s if turn_s > 0 else None
    return math.inf if holds(error, task, began_s) and not task.after_another else None


def holds(error: Unavailable, task: Task, began_s: float) -> bool:
    """Return whether a record waits for its models to come back; `task` is on the first of those that it has asked."""
    if task.settings.when_unavailable != "hold":
        return False
    if error.unretried or isinstance(error, BreakerOpen | Busy):
        return True
    return not any(model.answered_since(began_s) for model in task.models())


def may_defer(error: NoAnswer, task: Task, passage: Passage) -> bool:
    """Return whether a record that leaves goes to the retry topic, and not down the ladder yet.

    Only what a later try can mend: the model was away, or so slow that no time was left. Not past `max_deferrals`, and
    not when the record would only come back too old for its `max_age_s`.
    """
    settings = task.settings
    if not settings.defers or passage.deferrals >= settings.max_deferrals:
        return False
    if not isinstance(error, Unavailable | DeadlineOver):
        return False
    return passage.stale_at_s is None or monotonic_s() + settings.retry_delay_s < passage.stale_at_s
