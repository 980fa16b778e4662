"""THE MAIN PATH: what happens to a record, `decide` and then `finish`. Start reading here; `stages/` has the steps."""

from workers.asking import by_model
from workers.errors import Internal, NoAnswer, NotWritten, Paused, Reject, Unwritable
from workers.ladder import descend
from workers.ladder.skip import Skip
from workers.outcome import Deferred, Erased, Fallback, Outcome, Rejected
from workers.ports import Permit, Sink
from workers.records import Passage, Record, Request
from workers.stages.s1_decode import decode
from workers.stages.s2_prompt import build
from workers.stages.s3_call import may_defer
from workers.stages.s5_route import route
from workers.stages.s6_ack import ack
from workers.task import Task

_NO_SUCCESS = (Rejected, Deferred)
"""A tuple: `Rejected | Deferred` would make a new type for every record."""


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
                return Deferred(error, passage.deferrals + 1, passage.spent())
            return descend(task.ladder, request, error, spent=passage.spent())
    except MemoryError:
        raise
    except Exception as exc:  # noqa: BLE001 - the record boundary: a bug costs this record a dead letter, no other
        return Rejected(as_reject(exc))


def unasked(request: Request, task: Task) -> Fallback | None:
    """Return the outcome of a record that the task does not show to the model, None for one that it shows."""
    why = task.selection(request) if task.selection is not None else None
    return None if why is None else Fallback(Skip.tier, None, why, rung=len(task.ladder))


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
            if written and not isinstance(outcome, _NO_SUCCESS):
                task.guard.succeeded()
            return outcome if written else None


def next_best(record: Record, outcome: Outcome, error: Reject, task: Task) -> Outcome:
    """Return the outcome that takes the place of one that could not be written."""
    copy_failed = isinstance(error, NotWritten) and error.topic == task.outputs[record.topic].review
    if copy_failed and isinstance(outcome, Fallback):
        return descend(task.ladder, decode(record, task), outcome.error, outcome.rung + 1, outcome.spent)
    if isinstance(outcome, Deferred) and isinstance(error, NotWritten):  # nor can it wait, so that is its last try
        return descend(task.ladder, decode(record, task), outcome.error, spent=outcome.spent)
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
