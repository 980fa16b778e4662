"""Several records in one call: who comes along, what each gets, and what happens when it fails."""

import asyncio
import math

import pytest

from tests.support.array_model import SPOILS, ArrayModel
from tests.support.llm_settings import ASK, until
from workers.clock import monotonic_s
from workers.errors import AnswerEmpty, Declined, Stale, TimedOut
from workers.llm.batches import Batches
from workers.llm.flights import SingleFlight
from workers.ports import Model
from workers.records import Frame, Passage, Prompt, Reply
from workers.settings.batch import BatchSettings

LONG_S = 60.0
"""Longer than any test: a batch that goes before that went because it was full."""

Asked = asyncio.Task[Reply]


def batches(model: Model, max_records: int = 3, linger_s: float = LONG_S) -> Batches:
    """Return the wrapper under test."""
    return Batches(model, BatchSettings(max_records=max_records, linger_s=linger_s))


def gated(*script: str) -> ArrayModel:
    """Return a model whose calls run until its gate is set."""
    model = ArrayModel(*script)
    model.gate.clear()
    return model


def prompt(text: str) -> Prompt:
    """Return a prompt as the task's frame makes it."""
    return ArrayModel().frame(ASK).around(text)


def ask(model: Model, text: str, passage: Passage | None = None, *, wait_s: float = 0.0) -> Asked:
    """Ask in a task of its own."""
    return asyncio.create_task(model.complete(prompt(text), passage or Passage(10.0), wait_s=wait_s))


async def test_a_full_batch_is_one_call_and_each_has_its_own_answer() -> None:
    """The third comes, and all go at once; attempts are counted once, and all are busy with a deadline."""
    model = gated()
    shared = batches(model)
    passages = [Passage(10.0) for _ in range(3)]
    asked = [ask(shared, text, passage) for text, passage in zip("abc", passages, strict=True)]
    await until(lambda: all(passage.busy for passage in passages))
    assert all(passage.ends_at_s is not None for passage in passages)
    model.gate.set()
    replies = await asyncio.gather(*asked)
    assert model.asked == [["a", "b", "c"]]
    assert model.calls[0].wait_s == 0.0
    assert [reply.text for reply in replies] == ["answer to a", "answer to b", "answer to c"]
    assert [reply.attempts for reply in replies] == [1, 0, 0]
    assert [passage.attempts for passage in passages] == [1, 0, 0]
    assert [reply.batch for reply in replies] == [3, 3, 3]
    assert not any(passage.busy for passage in passages)
    assert not shared._filling


async def test_each_prompt_holds_one_record_alone() -> None:
    """The array has one text per record, system text included: none can write its neighbour's answer."""
    model = gated()
    asked = [ask(batches(model, 1), "a")]
    shared = batches(model, 2)
    asked += [ask(shared, 'b","c'), ask(shared, "d")]
    await until(lambda: len(model.calls) == 2)
    assert model.calls[0].body == b'{"prompt":"Sort tickets.\\n\\na"}'
    assert model.calls[1].body == rb'{"prompt":["Sort tickets.\n\nb\",\"c","Sort tickets.\n\nd"]}'
    model.gate.set()
    await asyncio.gather(*asked)


async def test_one_alone_waits_for_linger_s_and_no_longer() -> None:
    """Then it is asked as without batches: a plain prompt, and an attempt of its own."""
    model = ArrayModel()
    began_s = monotonic_s()
    reply = await ask(batches(model, linger_s=0.05), "a")
    assert monotonic_s() - began_s >= 0.05
    assert (reply.text, reply.attempts, reply.batch) == ("answer to a", 1, 0)
    assert model.calls[0].body == prompt("a").body


async def test_who_comes_after_a_full_batch_begins_the_next() -> None:
    """Four with room for three: two calls, the second when its linger is over."""
    model = ArrayModel()
    shared = batches(model, linger_s=0.2)
    replies = await asyncio.gather(*(ask(shared, text) for text in "abcd"))
    assert [reply.text[-1] for reply in replies] == [*"abcd"]
    assert model.asked == [["a", "b", "c"], ["d"]]


@pytest.mark.parametrize("other", ["frame", "deadline"])
async def test_what_differs_fills_another_batch(other: str) -> None:
    """Another frame (task, limit) or another deadline is another call."""
    model = gated()
    shared = batches(model, 2)
    different = Frame(b'{"max_tokens":128,"prompt":', b"}", "\n\n").around("x") if other == "frame" else prompt("x")
    passage = Passage(5.0 if other == "deadline" else 10.0)
    first = ask(shared, "a")
    second = asyncio.create_task(shared.complete(different, passage, wait_s=0.0))
    await asyncio.sleep(0)
    third = ask(shared, "b")
    await until(lambda: model.calls)
    assert model.asked == [["a", "b"]]
    model.gate.set()
    await asyncio.gather(first, third)
    second.cancel()
    await asyncio.wait([second])


@pytest.mark.parametrize("other", ["begun", "patience", "turn", "unframed"])
async def test_what_has_failed_once_goes_alone_and_at_once(other: str) -> None:
    """A second ask, a wait for the model or for a turn; and a body of which no frame is known."""
    model = gated()
    passage = Passage(10.0)
    if other == "begun":
        passage.begin(monotonic_s())
    asked = prompt("a") if other != "unframed" else Prompt(prompt("a").body)
    wait_s = {"patience": math.inf, "turn": 0.5}.get(other, 0.0)
    alone = asyncio.create_task(batches(model).complete(asked, passage, wait_s=wait_s))
    await until(lambda: model.calls)
    assert model.calls[0].passage is passage
    assert model.calls[0].wait_s == wait_s
    model.gate.set()
    await alone


async def test_an_empty_member_has_no_answer_and_the_others_have() -> None:
    """It is raised for that one alone."""
    model = ArrayModel()
    shared = batches(model)
    told = await asyncio.gather(*(ask(shared, text) for text in ("a", "empty", "c")), return_exceptions=True)
    assert [type(one) for one in told] == [Reply, AnswerEmpty, Reply]
    assert len(model.calls) == 1


@pytest.mark.parametrize("bad", SPOILS)
async def test_a_batch_that_one_spoils_is_asked_one_by_one(bad: str) -> None:
    """The server names no culprit: each is asked alone, and only the bad one has no answer. Attempts are calls."""
    model = ArrayModel()
    shared = batches(model)
    passages = [Passage(10.0) for _ in range(3)]
    texts = ("a", bad, "c")
    told = await asyncio.gather(
        *(ask(shared, text, passage) for text, passage in zip(texts, passages, strict=True)), return_exceptions=True
    )
    assert [type(one) for one in told] == [Reply, SPOILS[bad], Reply]
    assert model.asked == [[*texts], ["a"], [bad], ["c"]]
    assert [passage.attempts for passage in passages] == [2, 1, 1]


async def test_one_refused_alone_is_not_asked_again() -> None:
    """A batch of one was alone already."""
    model = ArrayModel()
    with pytest.raises(Declined):
        await ask(batches(model, linger_s=0.01), "refused")
    assert len(model.calls) == 1


async def test_a_failure_is_told_to_each_in_a_copy_of_its_own() -> None:
    """What is the endpoint's concerns all of them; each then does as its task says."""
    model = ArrayModel()
    model.goes_on_with(TimedOut("slow"))
    shared = batches(model, 2)
    told = await asyncio.gather(ask(shared, "a"), ask(shared, "b"), return_exceptions=True)
    assert [type(one) for one in told] == [TimedOut, TimedOut]
    assert told[0] is not told[1]
    assert len(model.calls) == 1


async def test_who_leaves_while_the_batch_fills_is_not_asked_for() -> None:
    """A revoke takes one out: the others go without it, and keep their own answers."""
    model = ArrayModel()
    shared = batches(model)
    asked = [ask(shared, text) for text in "abc"[:2]]
    await asyncio.sleep(0)
    asked[0].cancel()
    await asyncio.wait([asked[0]])
    rest = [asked[1], ask(shared, "c"), ask(shared, "d")]
    assert [reply.text[-1] for reply in await asyncio.gather(*rest)] == [*"bcd"]
    assert model.asked == [["b", "c", "d"]]


async def test_who_leaves_a_running_call_moves_nobody() -> None:
    """Positions are those of the array that was sent; the next one pays."""
    model = gated()
    shared = batches(model)
    passages = [Passage(10.0) for _ in range(3)]
    asked = [ask(shared, text, passage) for text, passage in zip("abc", passages, strict=True)]
    await until(lambda: all(passage.busy for passage in passages))
    asked[0].cancel()
    await asyncio.wait([asked[0]])
    assert not passages[0].busy
    assert passages[1].busy
    model.gate.set()
    replies = await asyncio.gather(*asked[1:])
    assert [(reply.text[-1], reply.attempts) for reply in replies] == [("b", 1), ("c", 0)]


@pytest.mark.parametrize("sent", [True, False])
async def test_the_last_to_leave_takes_the_call_along(sent: bool) -> None:  # noqa: FBT001 - pytest's parameter
    """Whether it ran or was still being filled: nothing runs on, and the next one begins a batch of its own."""
    model = gated()
    shared = batches(model, 2 if sent else 3)
    asked = [ask(shared, text) for text in "ab"]
    await until(lambda: model.running == 1 if sent else shared._filling)
    for one in asked:
        one.cancel()
    await asyncio.wait(asked, timeout=20)
    assert model.running == 0
    assert not shared._filling
    model.gate.set()
    shared = batches(model, 1)
    assert (await ask(shared, "c")).text == "answer to c"


async def test_who_comes_while_the_last_one_leaves_begins_a_batch_of_its_own() -> None:
    """A call that is being cancelled takes nobody along."""
    model = ArrayModel()
    shared = batches(model, 2)
    first = ask(shared, "a")
    await until(lambda: shared._filling)
    first.cancel()
    replies = await asyncio.gather(ask(shared, "b"), ask(shared, "c"))
    assert [reply.text[-1] for reply in replies] == [*"bc"]
    assert model.asked == [["b", "c"]]


async def test_a_record_that_grows_too_old_in_the_line_leaves_alone() -> None:
    """`max_age_s` is each record's own, and the linger counts."""
    shared = batches(ArrayModel(), 2)
    with pytest.raises(Stale):
        await ask(shared, "old", Passage(10.0, stale_at_s=monotonic_s() + 0.02))
    young = [ask(shared, "a"), ask(shared, "b")]
    assert [reply.text[-1] for reply in await asyncio.gather(*young)] == [*"ab"]


async def test_identical_requests_take_one_place() -> None:
    """One flight for identical requests stands before the batch: all aboard of both are busy together."""
    model = gated()
    shared = SingleFlight(batches(model, 2))
    passages = [Passage(10.0) for _ in range(3)]
    asked = [ask(shared, text, passage) for text, passage in zip("aab", passages, strict=True)]
    await until(lambda: all(passage.busy for passage in passages))
    model.gate.set()
    replies = await asyncio.gather(*asked)
    assert [reply.text[-1] for reply in replies] == [*"aab"]
    assert [reply.attempts for reply in replies] == [1, 0, 0]
    assert model.asked == [["a", "b"]]


async def test_the_pace_is_in_records() -> None:
    """The model behind counts calls; a batch is several records."""
    model = ArrayModel()
    shared = batches(model, 2)
    assert shared.pace_per_s() == model.pace
    await asyncio.gather(ask(shared, "a"), ask(shared, "b"))
    assert shared.pace_per_s() == pytest.approx(1.1 * model.pace)
