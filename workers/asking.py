"""What a record asks of its task's models: one after the other, and of each a second time after a bad answer."""

import asyncio

from workers import metrics
from workers.clock import monotonic_s
from workers.errors import BadAnswer, DeadlineOver, NoAnswer, Stale, Unavailable
from workers.llm.cache import keep_answer
from workers.outcome import Enriched
from workers.records import Passage, Prompt
from workers.second_ask import second_ask
from workers.stages.s3_call import call, holds
from workers.stages.s4_parse import parse
from workers.task import Task

ROUND_S = 1.0
"""Under `hold`, between two rounds of asking all models of a task: as long as a breaker waits for its next trial."""


async def by_model(prompt: Prompt, task: Task, passage: Passage) -> Enriched:
    """Return the answer of the first of the task's models that has one. Under `hold` all are asked until one has.

    Raises:
        NoAnswer: of the last that was asked; `Stale` and `DeadlineOver` leave no time for another.
    """
    first, began_s = task, monotonic_s()
    passed_by: list[tuple[str, str]] = []
    cut, all_away = prompt.cut, True
    while True:
        try:
            enriched = await answer(prompt, task, passage)
        except NoAnswer as error:
            all_away = all_away and isinstance(error, Unavailable)
            if isinstance(error, Stale | DeadlineOver):
                raise
            if task.next_model is not None:
                passed_by.append((task.model.name, error.reason))
                task = task.next_model
            elif passed_by and all_away and isinstance(error, Unavailable) and holds(error, first, began_s):
                await asyncio.sleep(ROUND_S)
                passage.restart()
                task, began_s, passed_by = first, monotonic_s(), []
            else:
                raise
            prompt = task.frame.around(prompt.text)
        else:
            enriched.reply.passed_by = tuple(passed_by)
            enriched.reply.cut = cut
            return enriched


async def answer(prompt: Prompt, task: Task, passage: Passage) -> Enriched:
    """Return the model's answer, checked. A bad one is asked for once more, in another way, if that can help.

    Raises:
        NoAnswer: the ladder has to answer. When the second ask came to no answer at all, what was wrong with the first.
    """
    task.second_asks.earn()
    reply = await call(prompt, task, passage)
    try:
        enriched = Enriched(parse(reply, task), reply)
    except BadAnswer as error:
        again = second_ask(prompt, error, reply, task)
        if again is None:
            raise
        bad = error
    else:
        keep_answer(task.model, prompt, reply)
        return enriched
    repair, prompt = again
    metrics.ASKED_AGAIN.labels(task.name, bad.reason).inc()
    try:
        reply = await call(prompt, task, passage)
    except BadAnswer:
        raise
    except NoAnswer as error:
        raise bad from error
    enriched = Enriched(parse(reply, task), reply)
    reply.repairs += (repair,)
    metrics.ANSWERS_SALVAGED.labels(task.name, repair).inc()
    return enriched
