"""A lane at work: order, holds, the guard, and what happens when partitions leave."""

import asyncio
import time

import pytest
from aiokafka import TopicPartition

from tests.support.memory import BOUND_S, TOPIC, Fetched, MemorySink, Rig, until
from tests.support.scripted_model import ScriptedModel
from workers.errors import BreakerOpen, Misconfigured, OutputTooLarge, TimedOut
from workers.guard import BUDGET
from workers.ladder.skip import Skip
from workers.pace import Pace
from workers.records import OLDEST_TIMESTAMP_MS as BORN_MS
from workers.records import Passage, Prompt, Reply

DLQ = "in.ticket_triage.dlq"


def broken_prompt(**_: object) -> str:
    """A template that fails on every record."""
    raise KeyError


def topics_of(rig: Rig) -> list[str]:
    """The kind of topic of each output."""
    return [outgoing.topic.rpartition(".")[2] for outgoing in rig.sink.sent]


async def test_keys_run_side_by_side_and_each_in_order() -> None:
    """I5: one call per key at a time, all keys at once; null keys wait for nobody."""
    async with Rig() as rig:
        rig.model.gate.clear()
        for offset in range(30):
            rig.consumer.write(
                TopicPartition(TOPIC, 0), Fetched(offset, None if offset % 3 == 2 else b"k%d" % (offset % 3))
            )
        await rig.assign(0)
        await until(lambda: rig.window.count == 30)
        await until(lambda: len(rig.model.calls) == 12)
        rig.model.gate.set()
        await until(lambda: rig.ledger(0).position == 30)
        for number in range(2):
            mine = [offset for offset in rig.offsets_done() if offset % 3 == number]
            assert mine == sorted(mine)


@pytest.mark.fault("D3")
@pytest.mark.parametrize(("order", "at_once"), [("partition", 1), ("key", 6), ("none", 6)])
async def test_null_keys_are_ordered_only_by_partition(order: str, at_once: int) -> None:
    """Null keys carry no order, except that `order: partition` serialises all of a partition."""
    async with Rig(task={"order": order}) as rig:
        rig.model.gate.clear()
        rig.write(0, range(6))
        await rig.assign(0)
        await until(lambda: rig.window.count == 6)
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(rig.model.calls) == at_once
        rig.model.gate.set()
        await until(lambda: rig.ledger(0).position == 6)
        if order == "partition":
            assert rig.offsets_done() == list(range(6))


@pytest.mark.fault("P11")
async def test_a_bug_on_the_way_out_costs_one_dead_letter() -> None:
    """P11: what breaks after the decision is a dead letter of its own too, and the partition goes on."""
    async with Rig(sink=MemorySink(KeyError("a bug"))) as rig:
        rig.write(0, range(3))
        await rig.assign(0)
        await until(lambda: rig.ledger(0).position == 3)
        assert sorted(topics_of(rig)) == ["dlq", "enriched", "enriched"]
        [dead] = [outgoing for outgoing in rig.sink.sent if outgoing.topic == DLQ]
        assert dict(dead.headers)["__penstock.errors.stage"] == b"internal"
        assert not rig.failures


async def test_what_can_be_written_nowhere_holds_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Contract 6: not even a stub fits: nothing is acked, the task says so and starts nothing, and tries again."""
    monkeypatch.setattr("workers.stream.lane.UNWRITABLE_RETRY_S", 0.2)
    monkeypatch.setattr("workers.stream.lane.HELD_CHECK_S", 0.01)
    refusals = [OutputTooLarge("x", topic) for topic in ("in.ticket_triage.enriched", *[DLQ] * 1_000)]
    async with Rig(sink=MemorySink(*refusals)) as rig:
        rig.write(0, [0], key=b"k")
        await rig.assign(0)
        await until(lambda: "unwritable" in rig.lane.held_by())
        assert rig.ledger(0).position == 0
        rig.write(0, [1])
        await until(lambda: rig.window.count == 2)
        assert len(rig.model.calls) == 1
        rig.sink.refusals.clear()
        await until(lambda: rig.ledger(0).position == 2)
        assert rig.lane.held_by() == {}
        assert rig.lane_task.guard.budget == BUDGET


@pytest.mark.fault("D18")
async def test_the_guard_lets_its_budget_through_and_not_one_more() -> None:
    """Contract 5: a deployment that breaks each record costs 20 dead letters, however many are in flight."""
    async with Rig(compiled={"render": broken_prompt}) as rig:
        rig.write(0, range(100))
        await rig.assign(0)
        await until(lambda: "guard" in rig.lane.held_by())
        await until(lambda: len(rig.sink.sent) == BUDGET)
        for _ in range(50):
            await asyncio.sleep(0)
        assert topics_of(rig) == ["dlq"] * BUDGET
        assert len(rig.ledger(0).unfinished) == 100 - BUDGET
        assert rig.window.count == 100 - BUDGET


async def test_a_dead_letter_that_needs_a_second_try_draws_once_on_the_guard() -> None:
    """A record whose dead letter does not fit goes as a stub: still one reject, also at the last of the budget."""
    async with Rig(sink=MemorySink(OutputTooLarge("x", DLQ)), compiled={"render": broken_prompt}) as rig:
        rig.lane_task.guard.budget = 1
        rig.write(0, [0])
        await rig.assign(0)
        await until(lambda: rig.ledger(0).position == 1)
        assert topics_of(rig) == ["dlq"]
        assert rig.lane_task.guard.tripped_by is None
        assert rig.lane_task.guard.budget == 0


@pytest.mark.fault("D15")
async def test_an_old_record_goes_down_the_ladder_unasked() -> None:
    """`max_age_s` counts from the Kafka timestamp; one without, of 1970 or from the future is never too old."""
    now_ms = int(time.time() * 1000)
    async with Rig(task={"max_age_s": 60.0}) as rig:
        stamps = [now_ms - 120_000, now_ms, -1, now_ms + 3_600_000, 1_000]
        tp = TopicPartition(TOPIC, 0)
        rig.consumer.write(tp, *(Fetched(offset, timestamp=stamp) for offset, stamp in enumerate(stamps)))
        await rig.assign(0)
        await until(lambda: rig.ledger(0).position == 5)
        assert len(rig.model.calls) == 4
        assert topics_of(rig).count("dlq") == 1  # this task's ladder is empty


@pytest.mark.fault("P11")
async def test_a_bug_of_the_lane_itself_is_never_silent() -> None:
    """P11: a record that is neither written nor acked would stop its partition: the worker has to end."""

    class Broken(Exception):
        """Any bug of ours."""

    async def broken(*_: object) -> None:
        raise Broken

    async with Rig() as rig:
        rig.lane._finished = broken  # type: ignore[assignment, method-assign]
        rig.write(0, [0])
        await rig.assign(0)
        await until(lambda: rig.failures)
        assert isinstance(rig.failures[0], Broken)
        assert rig.ledger(0).position == 0


async def test_settle_waits_for_what_is_busy() -> None:
    """A running call gets its time, and its output is confirmed and acked before the partition goes."""
    async with Rig() as rig:
        rig.model.gate.clear()
        rig.write(0, range(3))
        await rig.assign(0)
        await until(lambda: len(rig.model.calls) == 3)
        settling = asyncio.create_task(rig.assignment.settle(BOUND_S))
        await asyncio.sleep(0.01)
        assert not settling.done()
        rig.model.gate.set()
        assert await asyncio.wait_for(settling, BOUND_S) == 0
        assert rig.ledger(0).position == 3


async def test_settle_does_not_wait_for_a_record_that_begins_to_wait() -> None:
    """A call that fails while the partition leaves would now wait for the model: it is dropped instead."""

    class Away(ScriptedModel):
        """Fails, and then lets everyone wait."""

        async def complete(self, prompt: Prompt, passage: Passage, *, wait_s: float) -> Reply:
            """Wait without end where waiting is asked for."""
            if wait_s:
                await asyncio.Event().wait()
            return await super().complete(prompt, passage, wait_s=wait_s)

    model = Away(then=TimedOut("x"))
    async with Rig(model=model, task={"when_unavailable": "hold"}) as rig:
        model.gate.clear()
        rig.write(0, [0])
        await rig.assign(0)
        await until(lambda: len(model.calls) == 1)
        settling = asyncio.create_task(rig.assignment.settle(60.0))
        await asyncio.sleep(0.01)
        model.gate.set()
        assert await asyncio.wait_for(settling, BOUND_S) == 0
        assert rig.ledger(0).position == 0
        assert not rig.sink.sent


async def test_settle_is_bounded() -> None:
    """What still runs at the end of the time is returned, and stays unacked."""
    async with Rig() as rig:
        rig.model.gate.clear()
        rig.write(0, range(3))
        await rig.assign(0)
        await until(lambda: len(rig.model.calls) == 3)
        assert await asyncio.wait_for(rig.assignment.settle(0.05), BOUND_S) == 3
        assert rig.ledger(0).position == 0


async def test_abandon_ends_what_still_runs() -> None:
    """P1: after the drain nothing of the lane runs any more, chains included."""
    async with Rig() as rig:
        rig.model.gate.clear()
        rig.write(0, range(20), key=b"k")
        await rig.assign(0)
        await until(lambda: rig.window.count == 20)
        await rig.assignment.settle(0.0)
        await rig.assignment.last_commit()
        rig.lane.abandon()
        await until(lambda: not rig.window.started)
        assert rig.window.count == 0


async def test_a_held_task_says_why() -> None:
    """`/readyz` and `penstock_task_held` have a sentence for each reason."""
    async with Rig(model=ScriptedModel(then=Misconfigured("401 from http://m"))) as rig:
        assert rig.lane.held_by() == {}
        rig.write(0, [0])
        await rig.assign(0)
        await until(lambda: "misconfigured" in rig.lane.held_by())
        rig.lane_task.guard.tripped_by = "parse: off_schema"
        assert "off_schema" in rig.lane.held_by()["guard"]


@pytest.mark.fault("D15")
async def test_the_oldest_record_is_the_one_that_waits_longest() -> None:
    """The age gauge looks at the first unfinished record of each partition, at none without a credible timestamp."""
    async with Rig() as rig:
        rig.model.gate.clear()
        for partition, stamps in enumerate([(-1, 500), (900, 100), (700,), (1 - BORN_MS,)]):
            tp = TopicPartition(TOPIC, partition)
            rig.consumer.write(tp, *(Fetched(offset, timestamp=BORN_MS + stamp) for offset, stamp in enumerate(stamps)))
        await rig.assign(0, 1, 2, 3)
        await until(lambda: rig.window.count == 6)
        assert rig.lane.oldest_timestamp_ms(rig.assignment.ledgers.values()) == BORN_MS + 700
        assert rig.lane.oldest_timestamp_ms([]) is None


async def test_records_leave_down_the_ladder_at_the_models_pace() -> None:
    """Section 5: an open breaker lets a backlog out no faster than the model answered before."""
    model = ScriptedModel(then=BreakerOpen("open"), pace_per_s=100.0)
    pace = Pace(unlimited=False, clock=lambda: 0.0)
    async with Rig(model=model, compiled={"ladder": (Skip(),), "pace": pace}) as rig:
        rig.write(0, range(10))
        await rig.assign(0)
        await until(lambda: len(rig.sink.sent) == 10)
        waits = [call.wait_s for call in model.calls if call.wait_s > 0]
        assert len(waits) == 9
        assert max(waits) == pytest.approx(0.09, abs=0.001)
