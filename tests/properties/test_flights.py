"""Whoever joins and leaves in whatever order: each has its own answer, and no call outlives its last waiter."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.scripted_model import ScriptedModel
from workers.llm.flights import SingleFlight
from workers.records import Passage, Prompt, Reply

Step = tuple[str, int]
STEPS = st.lists(st.tuples(st.sampled_from(("ask", "leave", "tick", "land")), st.integers(0, 3)), max_size=30)


class Echo(ScriptedModel):
    """Answers with the body that it was asked, and knows how many calls of each run."""

    def __init__(self) -> None:
        super().__init__()
        self.running: list[bytes] = []

    async def complete(self, prompt: Prompt, passage: Passage, *, wait_s: float) -> Reply:
        """Run until the gate opens."""
        self.running.append(prompt.body)
        try:
            reply = await super().complete(prompt, passage, wait_s=wait_s)
        finally:
            self.running.remove(prompt.body)
        reply.text = prompt.body.decode()
        return reply


async def _played(steps: list[Step]) -> None:
    model = Echo()
    model.gate.clear()
    shared = SingleFlight(model)
    asked: list[tuple[bytes, asyncio.Task[Reply], Passage]] = []
    for what, number in steps:
        if what == "ask":
            body, passage = b"%d" % number, Passage(100.0)
            asked.append((body, asyncio.create_task(shared.complete(Prompt(body), passage, wait_s=0.0)), passage))
        elif what == "leave" and asked:
            asked[number % len(asked)][1].cancel()
        elif what == "land":
            model.gate.set()
            await _settle()
            model.gate.clear()
        await asyncio.sleep(0)
        assert len(set(model.running)) == len(model.running), "two calls for the same body"
    await _settle()
    assert set(model.running) == {body for body, one, _ in asked if not one.done()}
    model.gate.set()
    await _settle()
    ended = [(body, one.result()) for body, one, _ in asked if not one.cancelled()]
    assert all(reply.text == body.decode() for body, reply in ended)
    assert sum(passage.attempts for *_, passage in asked) <= len(model.calls)
    assert not any(passage.busy for *_, passage in asked)
    assert not model.running
    assert not shared._flights


async def _settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@settings(deadline=None, max_examples=100)
@given(STEPS)
def test_every_waiter_has_its_own_end(steps: list[Step]) -> None:
    """No body is asked twice at once while somebody waits, and nothing is left behind."""
    asyncio.run(_played(steps))
