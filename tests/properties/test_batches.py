"""Whoever joins and leaves in whatever order: each has its own answer, and no call outlives its last waiter."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.array_model import ArrayModel
from tests.support.llm_settings import ASK
from workers.errors import AnswerEmpty, Declined
from workers.llm.batches import Batches
from workers.records import Passage, Reply
from workers.settings.batch import BatchSettings

MAX_RECORDS, LINGER_S = 3, 0.001
SPECIAL = {0: "empty", 1: "refused"}
Step = tuple[str, int]
STEPS = st.lists(st.tuples(st.sampled_from(("ask", "ask", "leave", "linger", "land")), st.integers(0, 5)), max_size=25)


async def _played(steps: list[Step]) -> None:
    model = ArrayModel()
    model.gate.clear()
    shared = Batches(model, BatchSettings(max_records=MAX_RECORDS, linger_s=LINGER_S))
    frame = shared.frame(ASK)
    asked: list[tuple[str, asyncio.Task[Reply], Passage]] = []
    for turn, (what, number) in enumerate(steps):
        if what == "ask":
            text, passage = SPECIAL.get(number, f"ticket {turn}"), Passage(100.0)
            asked.append((text, asyncio.create_task(shared.complete(frame.around(text), passage, wait_s=0.0)), passage))
        elif what == "leave" and asked:
            asked[number % len(asked)][1].cancel()
        elif what == "linger":
            await asyncio.sleep(3 * LINGER_S)
        elif what == "land":
            model.gate.set()
            await _settle()
            model.gate.clear()
        await asyncio.sleep(0)
    model.gate.set()
    async with asyncio.timeout(20):
        await asyncio.gather(*(one for _, one, _ in asked), return_exceptions=True)
    for text, one, _ in asked:
        if not one.cancelled():
            _judge(text, one)
    await _settle()
    kept = sum(passage.attempts for _, one, passage in asked if not one.cancelled())
    assert kept <= len(model.calls)
    assert kept == len(model.calls) or any(one.cancelled() for _, one, _ in asked)
    assert all(len(texts) <= MAX_RECORDS for texts in model.asked)
    assert not any(passage.busy for *_, passage in asked)
    assert not model.running
    assert not shared._filling


def _judge(text: str, one: "asyncio.Task[Reply]") -> None:
    error = one.exception()
    if text == "empty":
        assert isinstance(error, AnswerEmpty)
    elif text == "refused":
        assert isinstance(error, Declined)
    else:
        assert one.result().text == f"answer to {text}"


async def _settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@settings(deadline=None, max_examples=100)
@given(STEPS)
def test_every_record_has_its_own_end(steps: list[Step]) -> None:
    """No record gets another's answer or fault, attempts are calls, and nothing is left behind."""
    asyncio.run(_played(steps))
