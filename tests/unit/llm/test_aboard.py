"""A call of several records, when partitions leave: whose call runs is let finish, who only waits is let go."""

import asyncio
from typing import Any

import pytest

from tests.support.array_model import ArrayModel
from tests.support.llm_settings import ASK
from tests.support.memory import Rig, until
from tests.support.scripted_model import ScriptedModel
from workers.errors import BadAnswer
from workers.llm.aboard import JointPassage
from workers.llm.batches import Batches
from workers.llm.flights import SingleFlight
from workers.ports import Model
from workers.records import Passage, Prompt, Reply
from workers.settings.batch import BatchSettings

RECORDS = 3


class Objects(ArrayModel):
    """Says `{}` to everything."""

    def _said(self, text: str, whole: Reply) -> Reply | BadAnswer:
        said = super()._said(text, whole)
        if isinstance(said, Reply):
            said.text = "{}"
        return said


def rig(model: ScriptedModel, before: Model) -> Rig:
    """Return a worker in memory whose task asks `before`, and that lets busy records finish for long."""
    compiled: dict[str, Any] = {"model": before, "frame": model.frame(ASK)}
    if isinstance(before, SingleFlight):
        compiled["render"] = lambda **_: "the same for all"
    return Rig(model=model, compiled=compiled, worker={"revoke_wait_s": 60.0})


@pytest.mark.parametrize("wrapper", ["flights", "batches", "both"])
async def test_a_revoke_lets_everybody_aboard_a_running_call_finish(wrapper: str) -> None:
    """One call for three records: none is cancelled while it runs, all are written before the partition is let go."""
    model = Objects()
    model.gate.clear()
    before: Model = model
    if wrapper != "flights":
        before = Batches(before, BatchSettings(max_records=1 if wrapper == "both" else RECORDS, linger_s=60.0))
    if wrapper != "batches":
        before = SingleFlight(before)
    async with rig(model, before) as worker:
        worker.write(0, range(RECORDS))
        await worker.assign(0)
        await until(lambda: len(worker.lane.started_of({worker.ledger(0)})) == RECORDS and model.calls)
        leaving = asyncio.create_task(worker.revoke())
        await asyncio.sleep(0.05)
        assert not leaving.done()
        model.gate.set()
        await asyncio.wait_for(leaving, 10)
        assert len(worker.sink.sent) == RECORDS
        assert len(model.calls) == 1


async def test_a_revoke_lets_go_at_once_who_waits_for_a_batch_to_fill() -> None:
    """No call runs, so there is nothing to wait for: the records are the next owner's."""
    model = Objects()
    async with rig(model, Batches(model, BatchSettings(max_records=RECORDS + 1, linger_s=60.0))) as worker:
        worker.write(0, range(RECORDS))
        await worker.assign(0)
        await until(lambda: len(worker.lane.started_of({worker.ledger(0)})) == RECORDS)
        await asyncio.wait_for(worker.revoke(), 10)
        assert not model.calls
        assert worker.window.count == 0


class SlowToLetGo(ScriptedModel):
    """Needs a while to end a cancelled call, as a client does that closes a connection."""

    held = 0

    async def complete(self, prompt: Prompt, passage: Passage, *, wait_s: float) -> Reply:
        """Hold a slot until the very end."""
        self.held += 1
        try:
            return await super().complete(prompt, passage, wait_s=wait_s)
        finally:
            for _ in range(10):
                await asyncio.sleep(0)
            self.held -= 1


async def test_the_slot_is_free_when_the_last_one_has_left() -> None:
    """Whoever cancelled it may take its slot at once."""
    model = SlowToLetGo()
    model.gate.clear()
    asked = asyncio.create_task(SingleFlight(model).complete(Prompt(b"{}"), Passage(10.0), wait_s=0.0))
    await until(lambda: model.held)
    asked.cancel()
    await asyncio.wait([asked], timeout=20)
    assert not model.held


def test_what_happens_to_the_joint_passage_happens_to_everybody() -> None:
    """Also through two of them: a flight's passage may be aboard a batch's."""
    outer, inner, mine = JointPassage(5.0), JointPassage(5.0), Passage(5.0)
    outer.aboard.append(inner)
    inner.aboard.append(mine)
    outer.begin(1.0)
    outer.occupy()
    assert (mine.ends_at_s, mine.busy) == (6.0, True)
    outer.free()
    assert not mine.busy
