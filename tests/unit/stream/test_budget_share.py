"""Budgets on the stream side: the share of an assignment, and what is seen of a task whose budget is spent."""

from typing import Any

import pytest
from aiokafka import TopicPartition

from tests.support.memory import TOPIC, Fetched, Rig, until
from workers import metrics
from workers.budget import DAY_S, Budget
from workers.settings.budget import BudgetSettings
from workers.stream.lag import Lag
from workers.stream.lane import HOLDS

ONE_CALL_TOKENS = 18


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.stages.s3_call.BUDGET_CHECK_S", 0.002)
    monkeypatch.setattr("workers.stream.lane.HELD_CHECK_S", 0.002)


def rig_with(**settings: Any) -> Rig:
    """A rig whose task has a budget, on a day that does not end."""
    return Rig(compiled={"budget": Budget(BudgetSettings(**settings), wall_s=lambda: 1.5 * DAY_S)})


def spent_ratio(rig: Rig) -> float:
    """What one call used of this replica's share."""
    ratio: float = rig.lane_task.budget.spent_ratios()["tokens"]  # type: ignore[union-attr]
    return ratio


async def test_each_assignment_sets_the_share() -> None:
    """One of four partitions is a quarter of the budget; all of them are the whole, none is none."""
    async with rig_with(tokens_per_day=ONE_CALL_TOKENS * 100) as rig:
        for partition in range(4):
            rig.consumer.write(TopicPartition(TOPIC, partition))
        rig.write(0, [0])
        await rig.assign(0)
        await until(lambda: rig.ledger(0).position == 1)
        assert spent_ratio(rig) == 0.04
        for partitions, ratio in (((0, 1, 2, 3), 0.01), ((1, 2), 0.02), ((), 0.0)):
            await rig.revoke()
            await rig.assign(*partitions)
            assert spent_ratio(rig) == ratio


async def test_under_hold_the_task_is_held_and_the_replica_stays_ready() -> None:
    """It waits as it was told to: nobody has to act, the series says why. A revoke takes what waits."""
    async with rig_with(tokens_per_day=1, when_spent="hold") as rig:
        rig.write(0, [0])
        await rig.assign(0)
        await until(lambda: rig.ledger(0).position == 1)
        rig.write(0, range(1, 6))
        await until(lambda: rig.window.count == 5)
        said = "task ticket_triage holds its records: tokens_per_day is spent: 18 of 1, this replica's share of 1"
        assert rig.lane.held_by() == {"budget": said}
        assert rig.lane.reasons_not_ready() == []
        assert len(rig.sink.sent) == 1
        Lag(rig.consumer, rig.assignment, rig.intake)._sample_lanes()
        labels = {"task": "ticket_triage"}
        shown = {
            reason: metrics.REGISTRY.get_sample_value("penstock_task_held", labels | {"reason": reason})
            for reason in HOLDS
        }
        assert shown == dict.fromkeys(HOLDS, 0.0) | {"budget": 1.0}
        ratio = metrics.REGISTRY.get_sample_value("penstock_budget_spent_ratio", labels | {"kind": "tokens"})
        assert ratio == ONE_CALL_TOKENS
        await rig.revoke()
        await until(lambda: rig.window.count == 0)
        assert len(rig.model.calls) == 1
        await rig.assign()
        assert rig.lane.held_by() == {}, "a replica that stands by holds nothing"


async def test_the_next_owner_of_a_held_record_does_it() -> None:
    """More partitions come with more of the budget: what waited is read again, and answered."""
    async with rig_with(tokens_per_day=ONE_CALL_TOKENS * 2, when_spent="hold") as rig:
        rig.write(0, [0, 1])
        rig.consumer.write(TopicPartition(TOPIC, 1))
        await rig.assign(0)
        await until(lambda: rig.ledger(0).position == 2 or "budget" in rig.lane.held_by())
        await rig.revoke()
        await rig.commit()
        await rig.assign(0, 1)
        await until(lambda: rig.ledger(0).position == 2)
        assert sorted(set(rig.offsets_done())) == [0, 1]


async def test_under_stop_nothing_is_written_and_a_person_is_told() -> None:
    """Not even a record that would not be asked about starts: as when the guard has paused the task."""
    async with rig_with(tokens_per_day=1, when_spent="stop") as rig:
        rig.write(0, [0])
        await rig.assign(0)
        await until(lambda: rig.ledger(0).position == 1)
        rig.write(0, [1])
        await until(lambda: "stopped" in rig.lane.held_by())
        rig.consumer.write(TopicPartition(TOPIC, 0), Fetched(2, value=None))
        await until(lambda: rig.window.count == 2)
        [reason] = rig.lane.reasons_not_ready()
        assert reason == (
            "task ticket_triage has stopped until a restart, which counts anew: "
            "tokens_per_day is spent: 18 of 1, this replica's share of 1"
        )
        await rig.commit()
        assert (len(rig.sink.sent), rig.ledger(0).position) == (1, 1)
        await rig.revoke()
        await until(lambda: rig.window.count == 0)
        assert len(rig.sink.sent) == 1
