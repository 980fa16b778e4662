"""Stage 3, call: prompt -> reply. The one place that decides whether a record waits for the model or leaves."""

import asyncio
import math

from workers.clock import monotonic_s
from workers.errors import BreakerOpen, Busy, Misconfigured, Stale, Unavailable
from workers.records import Passage, Prompt, Reply
from workers.task import Task


async def call(prompt: Prompt, task: Task, passage: Passage) -> Reply:
    """Return the model's reply, waiting for the model as the task's `when_unavailable` says.

    Raises:
        NoAnswer: the ladder has to answer.
    """
    wait_s = 0.0
    while True:
        began_s = monotonic_s()
        if passage.stale_at_s is not None and began_s >= passage.stale_at_s:
            raise Stale(f"older than max_age_s {task.settings.max_age_s:g} before it could be answered")
        try:
            reply = await task.model.complete(prompt, passage, wait_s=wait_s)
        except Unavailable as error:
            patience_s = patience(error, task, waited_s=wait_s, began_s=began_s)
            if patience_s is None:
                raise
            wait_s = patience_s
            passage.restart()
        except asyncio.CancelledError:
            _give_back(task, wait_s)
            raise
        else:
            _give_back(task, wait_s)
            return reply


def _give_back(task: Task, waited_s: float) -> None:
    """Return the turn of a record that waited for one and does not leave down the ladder after all."""
    if 0 < waited_s < math.inf:
        task.pace.give_back(task.model.pace_per_s())


def patience(error: Unavailable, task: Task, *, waited_s: float, began_s: float) -> float | None:
    """Return how long this record now waits for the model to come back, None when it leaves down the ladder.

    - With another model below, that one is asked at once: pace and hold are for when nobody is left to ask.
    - A fault of configuration always holds: no rung may paper over a wrong key, and no dead letter either.
    - `fallback`: while the breaker is open a record waits for its turn at the model's last measured rate, or until the
      model is back, whichever comes first; then it leaves.
    - `hold`: it waits for the model. Only a record that fails while others are answered leaves: it is to blame itself,
      and must not block its key for ever.
    """
    if isinstance(error, Misconfigured):
        return math.inf
    if task.next_model is not None:
        return None
    hold = task.settings.when_unavailable == "hold"
    if isinstance(error, BreakerOpen) and not hold:
        turn_s = 0.0 if waited_s > 0 else task.pace.turn_s(task.model.pace_per_s())
        return turn_s if turn_s > 0 else None
    if hold and (isinstance(error, BreakerOpen | Busy) or not task.model.answered_since(began_s)):
        return math.inf
    return None
