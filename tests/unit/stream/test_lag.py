"""The lag, its series, and the watchdog over a consumer that has gone quiet."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError

from tests.support.memory import TOPIC, Rig, until
from workers import metrics
from workers.errors import EX_SOFTWARE, Exit
from workers.stream.lag import STALLED_S, Lag

TP = TopicPartition(TOPIC, 0)


@dataclass
class Clock:
    """A clock that a test moves."""

    now_s: float = 1_000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s


async def sample(lag: Lag) -> None:
    """Look once."""
    reach = await lag._reach()
    lag._sample_lanes()
    lag._sample_lag(reach)
    lag._watch(reach)


def shown(name: str) -> dict[str, float]:
    """The values of a series of this topic, by partition."""
    lines = metrics.render().decode().splitlines()
    found = [line for line in lines if line.startswith(f'{name}{{partition="') and f'topic="{TOPIC}"' in line]
    found += [line for line in lines if line.startswith(f'{name}{{topic="{TOPIC}",partition="')]
    return {line.partition('partition="')[2].partition('"')[0]: float(line.rsplit(" ", 1)[1]) for line in found}


async def test_lag_is_what_is_not_committed() -> None:
    """From the commit, not from the position: a crash would begin there. Unfinished records behind it are the gap."""
    async with Rig() as rig:
        rig.model.gate.clear()
        rig.write(0, range(10))
        await rig.assign(0)
        await until(lambda: rig.window.count == 10)
        await rig.commit()
        rig.ledger(0).finish(4)
        lag = Lag(rig.consumer, rig.assignment, rig.intake)
        await sample(lag)
        assert shown("penstock_lag_records") == {"0": 10.0}
        assert shown("penstock_commit_gap_records") == {"0": 1.0}
        rig.model.gate.set()
        await until(lambda: rig.ledger(0).position == 10)
        await rig.commit()
        await sample(lag)
        assert shown("penstock_lag_records") == {"0": 0.0}


async def test_a_partition_that_left_has_no_lag_here() -> None:
    """Its next owner shows it; two replicas must not both, also while the broker does not answer."""
    async with Rig() as rig:
        rig.write(0, range(5))
        rig.write(1, range(5))
        await rig.assign(0, 1)
        lag = Lag(rig.consumer, rig.assignment, rig.intake)
        await sample(lag)
        assert set(shown("penstock_lag_records")) == {"0", "1"}
        await rig.revoke()
        await rig.assign(1)
        rig.consumer.end_offsets = failing  # type: ignore[method-assign]
        await sample(lag)
        assert set(shown("penstock_lag_records")) == {"1"}
        await rig.revoke()
        await sample(lag)
        assert shown("penstock_lag_records") == shown("penstock_commit_gap_records") == {}


async def failing(tps: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
    """What a broker that is away gives."""
    del tps
    raise KafkaConnectionError


async def hanging(tps: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
    """What a broker that is frozen gives."""
    del tps
    await asyncio.Event().wait()
    return {}


async def stalled(rig: Rig, lag: Lag, clock: Clock) -> bool:
    """Whether the watchdog gives up when nothing changes for longer than it waits."""
    rig.intake.delivered_at_s = 0.0
    try:
        await sample(lag)
        clock.now_s += STALLED_S / 2
        await sample(lag)
        clock.now_s += STALLED_S / 2 + 1
        await sample(lag)
    except Exit as error:
        return error.code == EX_SOFTWARE
    return False


async def test_records_that_wait_and_never_come_end_the_worker() -> None:
    """The client's fetcher can die in silence: then only a restart helps."""
    async with Rig() as rig:
        await rig.assign(0)
        rig.consumer.fetch_gate.clear()
        await until(lambda: rig.consumer.held)
        rig.write(0, range(5))
        clock = Clock()
        lag = Lag(rig.consumer, rig.assignment, rig.intake, clock=clock)
        assert await stalled(rig, lag, clock)


async def test_a_held_task_is_no_stall() -> None:
    """Markers at the end of the log behind a record that is held for hours are not records that wait."""
    async with Rig() as rig:
        rig.model.gate.clear()
        rig.write(0, range(3))
        rig.consumer.end[TP] = 9
        await rig.assign(0)
        await until(lambda: rig.window.count == 3 and rig.consumer.positions[TP] == 9)
        clock = Clock()
        assert not await stalled(rig, Lag(rig.consumer, rig.assignment, rig.intake, clock=clock), clock)


async def test_a_full_window_is_no_stall() -> None:
    """Without room nothing is fetched: that is the bound at work."""
    async with Rig(task={"max_in_flight": 8}) as rig:
        rig.model.gate.clear()
        rig.write(0, range(100))
        await rig.assign(0)
        await until(lambda: rig.window.count == 8)
        clock = Clock()
        assert not await stalled(rig, Lag(rig.consumer, rig.assignment, rig.intake, clock=clock), clock)


async def test_a_broker_that_does_not_answer_is_no_stall() -> None:
    """B1: nobody knows whether records wait; the worker waits with them."""
    async with Rig() as rig:
        await rig.assign(0)
        rig.consumer.fetch_gate.clear()
        await until(lambda: rig.consumer.held)
        rig.write(0, range(5))
        rig.consumer.end_offsets = failing  # type: ignore[method-assign]
        clock = Clock()
        assert not await stalled(rig, Lag(rig.consumer, rig.assignment, rig.intake, clock=clock), clock)


async def test_what_is_delivered_now_and_then_is_no_stall() -> None:
    """Slow is not dead."""
    async with Rig() as rig:
        await rig.assign(0)
        rig.consumer.fetch_gate.clear()
        await until(lambda: rig.consumer.held)
        rig.write(0, range(5))
        clock = Clock()
        lag = Lag(rig.consumer, rig.assignment, rig.intake, clock=clock)
        for _ in range(5):
            clock.now_s += STALLED_S / 2
            await sample(lag)
            rig.intake.delivered_at_s = clock.now_s + STALLED_S / 2


async def test_an_answer_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gauges of the lanes go on; the lag waits for the broker."""
    monkeypatch.setattr("workers.stream.lag.ANSWER_MAX_S", 0.01)
    async with Rig() as rig:
        rig.write(0, range(5))
        await rig.assign(0)
        rig.consumer.end_offsets = hanging  # type: ignore[method-assign]
        assert await Lag(rig.consumer, rig.assignment, rig.intake)._reach() == {}


async def test_a_broker_that_is_silent_is_noticed_without_a_send() -> None:
    """B1: an idle worker has nothing to send, and is not ready all the same while no broker answers."""
    async with Rig() as rig:
        clock = Clock()
        lag = Lag(rig.consumer, rig.assignment, rig.intake, clock=clock)
        await rig.assign(0)
        answers, rig.consumer.end_offsets = rig.consumer.end_offsets, failing  # type: ignore[method-assign]
        clock.now_s += 40.0
        await sample(lag)
        assert lag.silent_s() == 40.0
        rig.consumer.end_offsets = answers  # type: ignore[method-assign]
        await sample(lag)
        assert lag.silent_s() == 0.0
