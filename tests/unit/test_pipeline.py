"""The main path's end: what is written when an outcome cannot be, and when a record may be acked."""

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from tests.support.memory import TOPIC, MemorySink, memory_task
from tests.support.scripted_model import ScriptedModel
from tests.support.wire import make_record, make_reply
from workers.clock import monotonic_s
from workers.errors import (
    AnswerOffSchema,
    BreakerOpen,
    BudgetSpent,
    Busy,
    ConnectFailed,
    DeadlineOver,
    Declined,
    NoAnswer,
    NotJson,
    OutputRefused,
    OutputTooLarge,
    Overloaded,
    Paused,
    PromptFailed,
    Stale,
    TimedOut,
    Unwritable,
)
from workers.guard import BUDGET, SUCCESSES_PER_REFILL
from workers.ladder.default import Default
from workers.ladder.review import Review
from workers.outcome import Deferred, Enriched, Erased, Fallback, Outcome, Rejected
from workers.pipeline import decide, finish
from workers.records import Outgoing, Passage, Prompt, Record, Reply, Spent
from workers.task import Task

ENRICHED, FALLBACK, REVIEW, DLQ = (
    f"{TOPIC}.ticket_triage.{kind}" for kind in ("enriched", "fallback", "review", "dlq")
)


@dataclass
class Delivered:
    """A permit that notes the ack."""

    record: Record = field(default_factory=lambda: make_record(topic=TOPIC))
    passage: Passage = field(default_factory=lambda: Passage(5.0))
    gone: bool = False
    acked: bool = False

    def ack(self) -> None:
        """Note it."""
        self.acked = True


def task(**changes: Any) -> Task:
    """A task that answers with a review, else a default."""
    ladder = (Review(5, clock=monotonic_s, task_name="ticket_triage"), Default("later"))
    return replace(memory_task(ScriptedModel()), **({"ladder": ladder} | changes))


def review() -> Fallback:
    """What the ladder's first rung said."""
    return Fallback("review", None, TimedOut("x"), 0)


def refusing(*topics: str) -> MemorySink:
    """A sink that refuses the first send to each of these in turn."""

    class Refusing(MemorySink):
        async def send(self, outgoing: Outgoing) -> None:
            if left and outgoing.topic == left[0]:
                left.pop(0)
                raise OutputTooLarge("too large", outgoing.topic)
            await super().send(outgoing)

    left = list(topics)
    return Refusing()


def where(sink: MemorySink) -> list[str]:
    """The topics of what was written."""
    return [outgoing.topic for outgoing in sink.sent]


async def test_both_copies_are_written_before_the_ack() -> None:
    """A review goes to the review topic and to fallback; a tombstone to enriched and fallback."""
    for outcome, expected in ((review(), [REVIEW, FALLBACK]), (Erased(), [ENRICHED, FALLBACK])):
        sink, delivered = MemorySink(), Delivered()
        assert await finish(delivered, outcome, task(), sink) is outcome
        assert where(sink) == expected
        assert delivered.acked


async def test_a_review_copy_that_does_not_fit_gives_way_to_the_next_rung() -> None:
    """The article: if flagging fails, log and default."""
    sink, delivered = refusing(REVIEW), Delivered()
    written = await finish(delivered, review(), task(), sink)
    assert isinstance(written, Fallback)
    assert written.tier == "default"
    assert where(sink) == [FALLBACK]
    assert delivered.acked


@pytest.mark.parametrize(
    ("refused", "stub"), [([ENRICHED], False), ([ENRICHED, DLQ], True)], ids=["dead letter", "stub of a dead letter"]
)
async def test_an_output_that_does_not_fit_becomes_a_dead_letter(*, refused: list[str], stub: bool) -> None:
    """O1: and where not even that fits, a stub that says where the record lies."""
    sink, delivered = refusing(*refused), Delivered()
    written = await finish(delivered, Enriched("x", make_reply()), task(), sink)
    assert isinstance(written, Rejected)
    assert written.stub is stub
    assert where(sink) == [DLQ]
    assert delivered.acked


@pytest.mark.fault("O7")
async def test_what_can_be_written_nowhere_is_not_acked() -> None:
    """O7: it is held; nothing is dropped."""
    delivered = Delivered()
    with pytest.raises(Unwritable):
        await finish(delivered, Enriched("x", make_reply()), task(), refusing(ENRICHED, DLQ, DLQ))
    assert not delivered.acked


@pytest.mark.fault("O7")
async def test_what_was_written_is_not_written_again_while_the_rest_can_be_written_nowhere() -> None:
    """O7: a review copy whose fallback record is refused stays one copy, however often the rest is tried."""
    sink, delivered, outcome = refusing(FALLBACK, DLQ, DLQ, FALLBACK, DLQ, DLQ), Delivered(), review()
    for _ in range(2):
        with pytest.raises(Unwritable):
            await finish(delivered, outcome, task(), sink)
    assert await finish(delivered, outcome, task(), sink) is outcome
    assert where(sink) == [REVIEW, FALLBACK]
    assert delivered.acked


async def test_a_reject_draws_on_the_guard_once() -> None:
    """However often its dead letter is tried: as a stub, and again after it could be written nowhere."""
    ours, outcome = task(), Rejected(PromptFailed("x"))
    ours.guard.budget = 1
    with pytest.raises(Unwritable):
        await finish(Delivered(), outcome, ours, refusing(DLQ, DLQ))
    assert await finish(Delivered(), outcome, ours, refusing(DLQ)) is not None
    assert ours.guard.budget == 0
    assert ours.guard.tripped_by is None


async def test_at_a_spent_budget_nothing_is_produced() -> None:
    """Contract 5: the reject that trips the guard, and each one after it, is neither written nor acked."""
    ours, sink, delivered = task(), MemorySink(), Delivered()
    ours.guard.budget = 0
    with pytest.raises(Paused):
        await finish(delivered, Rejected(PromptFailed("x")), ours, sink)
    assert not sink.sent
    assert not delivered.acked


async def test_only_outputs_that_were_written_refill_the_guard() -> None:
    """A partition that left is no success of this deployment."""
    ours = task()
    ours.guard.budget = 5
    for _ in range(SUCCESSES_PER_REFILL):
        assert await finish(Delivered(gone=True), Enriched("x", make_reply()), ours, MemorySink()) is None
    assert ours.guard.budget == 5
    for _ in range(SUCCESSES_PER_REFILL):
        await finish(Delivered(), Enriched("x", make_reply()), ours, MemorySink())
    assert ours.guard.budget == 6
    assert BUDGET > 6


async def test_a_partition_that_left_gets_nothing() -> None:
    """The next owner does it: an output now would be a sure duplicate."""
    sink, delivered = MemorySink(), Delivered(gone=True)
    assert await finish(delivered, Enriched("x", make_reply()), task(), sink) is None
    assert not sink.sent
    assert not delivered.acked


@pytest.mark.fault("P11")
async def test_a_bug_in_the_way_out_is_a_reject_like_any_other() -> None:
    """P11: it draws on the guard, and the record's dead letter says where it happened."""
    ours, sink, delivered = task(), MemorySink(KeyError("bug")), Delivered()
    written = await finish(delivered, Enriched("x", make_reply()), ours, sink)
    assert isinstance(written, Rejected)
    assert written.error.reason == "internal"
    assert isinstance(written.error.__cause__, KeyError)
    assert ours.guard.budget == BUDGET - 1
    assert delivered.acked


async def test_a_refusal_of_the_broker_is_no_fault_of_the_deployment() -> None:
    """What the topic refuses does not draw on the guard."""
    ours = task()
    await finish(Delivered(), Enriched("x", make_reply()), ours, MemorySink(OutputRefused("x", ENRICHED)))
    assert ours.guard.budget == BUDGET


async def decided(value: bytes | None, model: ScriptedModel, **changes: Any) -> Outcome:
    """What becomes of a record."""
    return await decide(make_record(topic=TOPIC, value=value), task(model=model, **changes), Passage(5.0))


async def test_every_record_ends_in_one_of_the_outcomes() -> None:
    """Section 1: the outcomes are a closed set, and nothing leaves as an exception."""
    assert isinstance(await decided(None, ScriptedModel()), Erased)
    assert isinstance(await decided(b"{}", ScriptedModel("answer")), Enriched)
    assert isinstance(await decided(b"{}", ScriptedModel(AnswerOffSchema("x"))), Fallback)
    assert isinstance(await decided(b"{}", ScriptedModel(TimedOut("x")), ladder=()), Rejected)
    not_json = await decided(b"{", ScriptedModel())
    assert isinstance(not_json, Rejected)
    assert isinstance(not_json.error, NotJson)


@pytest.mark.fault("P11")
async def test_a_bug_on_the_way_in_costs_one_dead_letter() -> None:
    """P11: the record boundary turns it into a reject; its cause is for the log alone."""
    bug = ValueError("may hold what the record says")

    class Broken(ScriptedModel):
        """Raises what no model may raise."""

        async def complete(self, prompt: Prompt, passage: Passage, *, wait_s: float) -> Reply:
            """Answer, and then not."""
            await super().complete(prompt, passage, wait_s=wait_s)
            raise bug

    outcome = await decided(b"{}", Broken())
    assert isinstance(outcome, Rejected)
    assert outcome.error.reason == "internal"
    assert outcome.error.__cause__ is bug
    assert "record" not in str(outcome.error)


RETRY = f"{TOPIC}.ticket_triage.retry"
DEFER = {"order": "none", "when_unavailable": "defer", "retry_delay_s": 30.0, "max_deferrals": 2}


def deferring(*script: Any, **changes: Any) -> Task:
    """A task that defers, on a model that follows the script; its ladder ends with a default."""
    ours = memory_task(ScriptedModel(*script, then=TimedOut("late")), **DEFER)
    return replace(ours, **({"ladder": (Default("later"),)} | changes))


async def course(ours: Task, passage: Passage | None = None) -> Outcome:
    """What becomes of a sound record of this task."""
    return await decide(make_record(topic=TOPIC, value=b"{}"), ours, passage or Passage(5.0))


@pytest.mark.parametrize(
    "error", [TimedOut("x"), BreakerOpen("x"), Busy("x"), Overloaded("x"), ConnectFailed("x"), DeadlineOver("x")]
)
async def test_what_a_later_try_can_mend_is_deferred(error: NoAnswer) -> None:
    """The model is away or has no time: `max_deferrals` times the record waits, then the ladder answers."""
    first = await course(deferring(error))
    assert isinstance(first, Deferred)
    assert (first.error, first.deferrals, first.spent.attempts) == (error, 1, 1)
    second = await course(deferring(error), Passage(5.0, deferrals=1))
    assert isinstance(second, Deferred)
    assert second.deferrals == 2
    last = await course(deferring(error), Passage(5.0, deferrals=2))
    assert isinstance(last, Fallback)
    assert (last.tier, last.error) == ("default", error)


@pytest.mark.parametrize("error", [AnswerOffSchema("x"), Declined("x"), Stale("x"), BudgetSpent("x")])
async def test_what_no_later_try_mends_goes_down_the_ladder(error: NoAnswer) -> None:
    """The model answered, refused this very request, or the record is too old: waiting changes nothing."""
    assert isinstance(await course(deferring(error)), Fallback)


async def test_another_model_is_asked_before_a_record_is_deferred() -> None:
    """Nobody waits while somebody is left to ask; when the last one is away as well, its failure is what is told."""
    below = deferring("an answer")
    assert isinstance(await course(deferring(TimedOut("x"), next_model=below)), Enriched)
    last = BreakerOpen("x")
    outcome = await course(deferring(TimedOut("x"), next_model=deferring(last)))
    assert isinstance(outcome, Deferred)
    assert outcome.error is last


async def test_a_record_that_would_come_back_too_old_is_not_deferred() -> None:
    """`max_age_s` includes all waiting: the ladder answers now instead of later."""
    assert isinstance(await course(deferring(), Passage(5.0, stale_at_s=monotonic_s() + 29.0)), Fallback)
    assert isinstance(await course(deferring(), Passage(5.0, stale_at_s=monotonic_s() + 31.0)), Deferred)


async def test_a_task_that_does_not_defer_has_nothing_to_do_with_it() -> None:
    """The default: the ladder answers at once."""
    assert isinstance(await course(task(model=ScriptedModel(TimedOut("x")))), Fallback)


async def test_a_deferral_is_acked_and_is_no_success_of_ours() -> None:
    """The retry topic has the record, so its offset may move; the guard learns nothing from it."""
    ours, sink, delivered = deferring(), MemorySink(), Delivered()
    ours.guard.budget = 5
    for _ in range(SUCCESSES_PER_REFILL):
        await finish(delivered, Deferred(TimedOut("x"), 1), ours, sink)
        delivered.passage.written = ()
    assert delivered.acked
    assert set(where(sink)) == {RETRY}
    assert ours.guard.budget == 5


@pytest.mark.parametrize("refusal", [OutputTooLarge("too large", RETRY), OutputRefused("refused", RETRY)])
async def test_a_record_that_the_retry_topic_refuses_goes_down_the_ladder(refusal: Exception) -> None:
    """It cannot wait, so this was its last try: no dead letter, and the reason is the model's."""
    sink, delivered, error = MemorySink(refusal), Delivered(), TimedOut("x")
    written = await finish(delivered, Deferred(error, 1, Spent(3)), deferring(), sink)
    assert isinstance(written, Fallback)
    assert (written.error, written.spent.attempts) == (error, 3)
    assert where(sink) == [FALLBACK]
    assert delivered.acked
