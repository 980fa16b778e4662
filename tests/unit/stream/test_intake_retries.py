"""The intake over a retry topic: what is not due is neither delivered nor passed, and holds up nobody else."""

import asyncio
from typing import Any

from aiokafka import TopicPartition

from tests.support.memory import RETRY_TOPIC, TOPIC, Fetched, Rig, until
from topics import retries
from topics.retries import Retry
from workers import metrics
from workers.clock import wall_s
from workers.errors import BreakerOpen
from workers.stream.lag import STALLED_S, Lag

RETRIES = TopicPartition(RETRY_TOPIC, 0)
DEFER: dict[str, Any] = {"order": "none", "when_unavailable": "defer"}
OLD_S, LONG_S = 3_600.0, 600.0


def deferred(offset: int, age_s: float, *, source: int | None = None, deferrals: int = 1) -> Fetched:
    """A record of the retry topic that was deferred so long ago, and lay at offset `source` of the input before."""
    at = offset + 100 if source is None else source
    retry = Retry(topic=TOPIC, partition=0, offset=at, timestamp_ms=1_700_000_000_000, deferrals=deferrals)
    headers = retries.headers([], retry, source=f"{TOPIC}/0/{at}", task="t", reason="timeout")
    return Fetched(offset, timestamp=round((wall_s() - age_s) * 1000), headers=headers)


def rig_of(*, delay_s: float = LONG_S, **changes: Any) -> Rig:
    """A rig whose task defers."""
    return Rig(task={**DEFER, "retry_delay_s": delay_s}, **changes)


async def test_what_is_due_is_done_and_what_is_not_waits_where_it_is() -> None:
    """Behind the first that is not due nothing is taken, though it may be older; the commit stands before it."""
    async with rig_of() as rig:
        rig.consumer.write(RETRIES, *(deferred(n, OLD_S) for n in range(3)), deferred(3, 1.0), deferred(4, OLD_S))
        await rig.assign(retry=[0])
        await until(lambda: rig.offsets_done() == [100, 101, 102])
        ledger = rig.assignment.ledgers[RETRIES]
        await until(lambda: not ledger.unfinished)
        assert rig.intake.room(RETRIES) == 0
        await asyncio.sleep(0.4)  # longer than the check for gaps waits: the consumer may not carry the ledger on
        await rig.commit()
        assert rig.consumer.stored[RETRIES][0] == 3
        assert rig.consumer.positions[RETRIES] == ledger.next_offset == 3
        assert len(rig.sink.sent) == 3


async def test_other_partitions_go_on() -> None:
    """A partition that is not due takes no part in the rounds, and none of the room."""
    async with rig_of() as rig:
        rig.consumer.write(RETRIES, deferred(0, 1.0))
        rig.consumer.write(TopicPartition(RETRY_TOPIC, 1), deferred(0, OLD_S, source=7))
        await rig.assign(0, retry=[0, 1])
        await until(lambda: rig.intake.room(RETRIES) == 0)
        rig.write(0, range(300))
        await until(lambda: len(rig.sink.sent) == 301)
        assert sorted(rig.offsets_done()) == sorted([*range(300), 7])


async def test_it_is_taken_up_when_it_is_due() -> None:
    """Also when nothing else is there to be read."""
    async with rig_of(delay_s=2.0) as rig:
        rig.consumer.write(RETRIES, deferred(0, 0.0), deferred(1, 0.0))
        await rig.assign(retry=[0])
        await until(lambda: rig.intake.room(RETRIES) == 0)
        assert not rig.sink.sent
        await until(lambda: rig.offsets_done() == [100, 101])
        await until(lambda: rig.assignment.ledgers[RETRIES].position == 2)


async def test_the_next_owner_finds_what_was_not_due() -> None:
    """A rebalance while it waits: the new generation reads it where the ledger ends, and waits as well."""
    async with rig_of() as rig:
        rig.consumer.write(RETRIES, deferred(0, OLD_S), deferred(1, 1.0))
        await rig.assign(retry=[0])
        await until(lambda: rig.intake.room(RETRIES) == 0 and rig.offsets_done() == [100])
        await rig.revoke()
        assert rig.consumer.stored[RETRIES][0] == 1
        rig.consumer.logs[RETRIES][1] = deferred(1, OLD_S)  # time passes
        await rig.assign(retry=[0])
        await until(lambda: rig.offsets_done() == [100, 101])


async def test_a_record_that_comes_back_is_acked_in_the_retry_topic() -> None:
    """Its outputs name the input; its deferrals are counted on; the offset that moves is the retry topic's."""
    async with rig_of() as rig:
        rig.model.then = BreakerOpen("open")
        rig.consumer.write(RETRIES, deferred(5, OLD_S, source=42, deferrals=2))
        await rig.assign(0, retry=[0])
        await until(lambda: rig.assignment.ledgers[RETRIES].position == 6)
        [again] = rig.sink.sent
        assert again.topic == RETRY_TOPIC
        assert retries.decode(again.headers) == Retry(
            topic=TOPIC, partition=0, offset=42, timestamp_ms=1_700_000_000_000, deferrals=3
        )
        assert not rig.assignment.ledgers[TopicPartition(TOPIC, 0)].unfinished


async def test_a_call_for_a_deferred_record_that_runs_over_a_rebalance_is_made_once() -> None:
    """The running call is known by where the record lies in the retry topic, not by where it once lay."""
    async with rig_of() as rig:
        rig.model.gate.clear()
        rig.consumer.write(RETRIES, deferred(0, OLD_S, source=3))
        rig.write(0, [3])  # the same coordinates in the input are another record here
        await rig.assign(0, retry=[0])
        await until(lambda: len(rig.model.calls) == 2)
        await rig.revoke()
        await rig.assign(0, retry=[0])
        await until(lambda: all(ledger.unfinished for ledger in rig.assignment.ledgers.values()))
        rig.model.gate.set()
        await until(lambda: [ledger.position for ledger in rig.assignment.ledgers.values()] == [4, 1])
        assert len(rig.model.calls) == 2
        assert rig.offsets_done() == [3, 3]


async def test_waiting_is_no_lag_and_no_stall() -> None:
    """What waits on purpose has series of its own; the watchdog does not take it for a dead fetcher."""
    async with rig_of() as rig:
        rig.consumer.write(RETRIES, deferred(0, OLD_S), *(deferred(n, 1.0) for n in range(1, 6)))
        rig.model.gate.clear()
        await rig.assign(0, retry=[0])
        await until(lambda: rig.window.count == 1 and rig.intake.room(RETRIES) == 0)
        now_s = 1_000.0
        lag = Lag(rig.consumer, rig.assignment, rig.intake, clock=lambda: now_s)
        rig.intake.delivered_at_s = 0.0
        for _ in range(3):
            reach = await lag._reach()
            lag._sample_lanes()
            lag._sample_lag(reach)
            lag._watch(reach)
            now_s += STALLED_S
        name = rig.lane_task.name
        assert metrics.RETRY_LAG.labels(name)._value.get() == 6
        assert OLD_S - LONG_S - 1 < metrics.RETRY_OVERDUE_S.labels(name)._value.get() < OLD_S
        assert metrics.OLDEST_UNFINISHED_S.labels(name)._value.get() == 0
        assert f'penstock_lag_records{{partition="0",topic="{RETRY_TOPIC}"}}' not in metrics.render().decode()
        assert f'penstock_lag_records{{topic="{RETRY_TOPIC}"' not in metrics.render().decode()
