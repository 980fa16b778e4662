"""One call for identical requests: who waits, who leaves, and what each is told."""

import asyncio
import math
from collections.abc import Callable

import pytest

from tests.support.scripted_model import ScriptedModel
from workers.clock import monotonic_s
from workers.errors import ServerFault, Stale
from workers.llm.flights import SingleFlight
from workers.records import Passage, Prompt, Reply

SAME = Prompt(b"{}")
Asked = asyncio.Task[Reply]


def gated(*script: str | ServerFault) -> ScriptedModel:
    """Return a model whose calls run until its gate is set."""
    model = ScriptedModel(*script)
    model.gate.clear()
    return model


def ask(shared: SingleFlight, passage: Passage | None = None, *, prompt: Prompt = SAME, wait_s: float = 0.0) -> Asked:
    """Ask in a task of its own."""
    return asyncio.create_task(shared.complete(prompt, passage or Passage(10.0), wait_s=wait_s))


async def until(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - the seam under test offers nothing to wait on
            await asyncio.sleep(0.001)


async def running(model: ScriptedModel, passages: list[Passage]) -> None:
    """Wait until the call runs with all of these aboard."""
    await until(lambda: bool(model.calls) and all(passage.busy for passage in passages))


async def test_identical_requests_share_one_call_that_one_of_them_pays_for() -> None:
    """Three ask, one call is made; attempts and tokens are counted once, and all are busy with a deadline."""
    model = gated("yes")
    passages = [Passage(10.0) for _ in range(3)]
    shared = SingleFlight(model)
    asked = [ask(shared, passage) for passage in passages]
    await running(model, passages)
    assert all(passage.ends_at_s is not None for passage in passages)
    model.gate.set()
    replies = await asyncio.gather(*asked)
    assert len(model.calls) == 1
    assert [reply.text for reply in replies] == ["yes"] * 3
    assert [reply.shared for reply in replies] == [False, True, True]
    assert [reply.attempts for reply in replies] == [1, 0, 0]
    assert [reply.input_tokens for reply in replies] == [11, 0, 0]
    assert [passage.attempts for passage in passages] == [1, 0, 0]
    assert not any(passage.busy for passage in passages)
    assert not shared._flights


async def test_who_comes_aboard_a_running_call_is_busy_with_a_deadline() -> None:
    """As if its own call had begun at that moment."""
    model = gated("yes")
    shared = SingleFlight(model)
    first, late = Passage(10.0), Passage(10.0)
    asked = [ask(shared, first)]
    await running(model, [first])
    before_s = monotonic_s()
    asked.append(ask(shared, late))
    await until(lambda: late.busy)
    assert late.ends_at_s is not None
    assert before_s + 10.0 <= late.ends_at_s <= monotonic_s() + 10.0
    model.gate.set()
    assert [reply.shared for reply in await asyncio.gather(*asked)] == [False, True]


@pytest.mark.parametrize("other", ["body", "patience", "deadline", "begun", "turn"])
async def test_what_may_not_be_shared_goes_alone(other: str) -> None:
    """Another body, patience or deadline, a passage that has begun, and a wait for a turn are calls of their own."""
    model = gated()
    shared = SingleFlight(model)
    first = ask(shared, wait_s=0.5 if other == "turn" else 0.0)
    passage = Passage(5.0 if other == "deadline" else 10.0)
    if other == "begun":
        passage.begin(monotonic_s())
    prompt = Prompt(b"[]") if other == "body" else SAME
    wait_s = {"patience": math.inf, "turn": 0.5}.get(other, 0.0)
    second = ask(shared, passage, prompt=prompt, wait_s=wait_s)
    await until(lambda: len(model.calls) == 2)
    model.gate.set()
    assert not any(reply.shared for reply in await asyncio.gather(first, second))


async def test_the_first_may_leave_and_the_call_goes_on() -> None:
    """A revoke cancels the one that asked first: the other has its answer, and pays for it."""
    model = gated("yes")
    shared = SingleFlight(model)
    passages = [Passage(10.0), Passage(10.0)]
    first, second = (ask(shared, passage) for passage in passages)
    await running(model, passages)
    first.cancel()
    await asyncio.wait([first])
    assert first.cancelled()
    assert not passages[0].busy
    assert passages[1].busy
    model.gate.set()
    reply = await second
    assert (reply.text, reply.shared, reply.attempts) == ("yes", False, 1)
    assert len(model.calls) == 1


async def test_the_last_to_leave_takes_the_call_along() -> None:
    """When all are cancelled, the call has ended by the time the last one has, and the next one asks anew."""
    model = gated("never heard", "yes")
    shared = SingleFlight(model)
    passages = [Passage(10.0), Passage(10.0)]
    asked = [ask(shared, passage) for passage in passages]
    await running(model, passages)
    [flight] = shared._flights.values()
    for one in asked:
        one.cancel()
    await asyncio.wait(asked)
    assert flight.call.cancelled()
    assert not flight.passage.busy
    model.gate.set()
    assert (await ask(shared)).text == "yes"


async def test_who_comes_while_the_last_one_leaves_begins_a_flight_of_its_own() -> None:
    """A call that is being cancelled takes nobody along."""
    model = gated("never heard", "yes")
    shared = SingleFlight(model)
    passage = Passage(10.0)
    first = ask(shared, passage)
    await running(model, [passage])
    first.cancel()
    second = ask(shared)
    await until(lambda: len(model.calls) == 2)
    model.gate.set()
    assert (await second).text == "yes"


async def test_a_failure_is_told_to_each_in_a_copy_of_its_own() -> None:
    """Same class, words, endpoint and cause; not the same instance, whose traceback would grow with each."""
    error = ServerFault("500")
    error.endpoint = "http://m0"
    error.__cause__ = OSError("why")
    model = gated(error)
    shared = SingleFlight(model)
    passages = [Passage(10.0), Passage(10.0)]
    asked = [ask(shared, passage) for passage in passages]
    await running(model, passages)
    model.gate.set()
    told = await asyncio.gather(*asked, return_exceptions=True)
    assert told[0] is not told[1]
    for one in told:
        assert isinstance(one, ServerFault)
        assert (str(one), one.endpoint, one.__cause__) == ("500", "http://m0", error.__cause__)
    assert [passage.attempts for passage in passages] == [1, 0]


@pytest.mark.parametrize("why", ["failed", "late"])
async def test_nobody_joins_a_flight_that_has_failed_once_or_ends_soon(why: str) -> None:
    """Between two attempts, or past half of the deadline, a newcomer starts its own: it has a whole one before it."""
    model = gated()
    shared = SingleFlight(model)
    passage = Passage(10.0)
    first = ask(shared, passage)
    await running(model, [passage])
    [flight] = shared._flights.values()
    if why == "failed":
        flight.passage.free()
    else:
        flight.passage.ends_at_s = monotonic_s() + 4.9
    second = ask(shared)
    await until(lambda: len(model.calls) == 2)
    model.gate.set()
    assert not any(reply.shared for reply in await asyncio.gather(first, second))


class Full(ScriptedModel):
    """Has no slot."""

    async def complete(self, prompt: Prompt, passage: Passage, *, wait_s: float) -> Reply:
        """Wait for one, for ever."""
        await asyncio.Event().wait()
        return await super().complete(prompt, passage, wait_s=wait_s)


async def test_a_record_that_grows_too_old_in_the_line_leaves_alone() -> None:
    """`max_age_s` is each record's own: the others go on waiting."""
    shared = SingleFlight(Full())
    young = ask(shared)
    with pytest.raises(Stale):
        await ask(shared, Passage(10.0, stale_at_s=monotonic_s() + 0.02))
    assert not young.done()
    young.cancel()
    await asyncio.wait([young])
    assert not shared._flights


class OutOfMemory(ScriptedModel):
    """Cannot go on."""

    async def complete(self, prompt: Prompt, passage: Passage, *, wait_s: float) -> Reply:
        """Fail, after everybody had time to come aboard."""
        await super().complete(prompt, passage, wait_s=wait_s)
        raise MemoryError


async def test_a_memory_error_reaches_everybody() -> None:
    """The process has to end, whoever's record it was."""
    shared = SingleFlight(OutOfMemory())
    told = await asyncio.gather(ask(shared), ask(shared), return_exceptions=True)
    assert [type(one) for one in told] == [MemoryError, MemoryError]
