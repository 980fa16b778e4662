"""THE MAIN PATH: what happens to a record, `decide` and then `finish`. Start reading here; `stages/` has the steps."""

import asyncio

from workers import metrics
from workers.clock import monotonic_s
from workers.errors import (
    BadAnswer,
    DeadlineOver,
    Internal,
    NoAnswer,
    NotWritten,
    Paused,
    Reject,
    Stale,
    Unavailable,
    Unwritable,
)
from workers.ladder import descend
from workers.ladder.skip import Skip
from workers.llm.cache import keep_answer
from workers.outcome import Deferred, Enriched, Erased, Fallback, Outcome, Rejected
from workers.ports import Permit, Sink
from workers.records import Passage, Prompt, Record, Request
from workers.second_ask import second_ask
from workers.stages.s1_decode import decode
from workers.stages.s2_prompt import build
from workers.stages.s3_call import call, holds, may_defer
from workers.stages.s4_parse import parse
from workers.stages.s5_route import route
from workers.stages.s6_ack import ack
from workers.task import Task

ROUND_S = 1.0
"""Under `hold`, between two rounds of asking all models of a task: as long as a breaker waits for its next trial."""


async def decide(record: Record, task: Task, passage: Passage) -> Outcome:
    """Return what becomes of a record: the model's answer, a later try, a lower rung's answer, or a reject.

    Raises:
        MemoryError: no record's fault; the process has to end, and the record stays for its next owner.
    """
    if record.value is None:
        return Erased()
    try:
        request = decode(record, task)
        if (passed_on := unasked(request, task)) is not None:
            return passed_on
        try:
            task = task.for_value(request.value) if task.routes else task
            return await by_model(build(request, task), task, passage)
        except NoAnswer as error:
            if may_defer(error, task, passage):
                return Deferred(error, passage.deferrals + 1, passage.attempts)
            return descend(task.ladder, request, error, attempts=passage.attempts)
    except MemoryError:
        raise
    except Exception as exc:  # noqa: BLE001 - the record boundary: a bug costs this record a dead letter, no other
        return Rejected(as_reject(exc))


def unasked(request: Request, task: Task) -> Fallback | None:
    """Return the outcome of a record that the task does not show to the model, None for one that it shows."""
    why = task.selection(request) if task.selection is not None else None
    return None if why is None else Fallback(Skip.tier, None, why, rung=len(task.ladder))


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


async def finish(permit: Permit, outcome: Outcome, task: Task, sink: Sink) -> Outcome | None:
    """Write the outcome, or the next best that can be written, and ack; return it, None when the partition left first.

    Raises:
        Paused: the guard allows no more rejects of our own making; nothing was produced.
        Unwritable: not even a stub of the dead letter can be written; nothing was acked.
        MemoryError: as `decide`.
    """
    while True:
        try:
            if isinstance(outcome, Rejected) and not outcome.allowed:
                task.guard.allow(outcome.error)
                outcome.allowed = True
            written = await ack(route(permit.record, outcome, task, sink.partitions), permit, sink)
        except (Paused, MemoryError):
            raise
        except Exception as exc:  # noqa: BLE001 - the record boundary goes on to the ack
            outcome = next_best(permit.record, outcome, as_reject(exc), task)
        else:
            if written and not isinstance(outcome, Rejected | Deferred):
                task.guard.succeeded()
            return outcome if written else None


def next_best(record: Record, outcome: Outcome, error: Reject, task: Task) -> Outcome:
    """Return the outcome that takes the place of one that could not be written."""
    copy_failed = isinstance(error, NotWritten) and error.topic == task.outputs[record.topic].review
    if copy_failed and isinstance(outcome, Fallback):
        return descend(task.ladder, decode(record, task), outcome.error, outcome.rung + 1, outcome.attempts)
    if isinstance(outcome, Deferred) and isinstance(error, NotWritten):  # nor can it wait, so that is its last try
        return descend(task.ladder, decode(record, task), outcome.error, attempts=outcome.attempts)
    if not isinstance(outcome, Rejected):
        return Rejected(error)
    if not outcome.stub:
        return Rejected(outcome.error, stub=True, attempts=outcome.attempts, allowed=True)
    raise Unwritable(f"dead letter refused: {error}") from error


def as_reject(exc: Exception) -> Reject:
    """Return what a failure costs its record: a reject is one; anything else is a bug of ours."""
    if isinstance(exc, Reject):
        return exc
    bug = Internal(type(exc).__name__)
    bug.__cause__ = exc
    return bug
