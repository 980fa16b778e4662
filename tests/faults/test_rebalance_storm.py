"""A storm: members of the group come and go twice a second, and with each of them everybody's partitions."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor

from tests.support.commit_sampler import sampling
from tests.support.flow import Flow, flow_of
from tests.support.kafka import KafkaBroker
from tests.support.stage import TASK, Stage, logged

REVOKED = '"event":"partitions_revoked"'
STORM_S, TOGGLE_MAX_S = 15.0, 0.5
PARTITIONS, SLOTS, RECORDS = 6, 16, 3_000
DRAIN_S, MARGIN_S = 2.0, 15.0
LEAVE_S = 60.0
SESSION_S = 3.0
SILENCE_MAX_S = 10.0
"""A join takes all members' heartbeats, a leave a session where a member died in the middle of one."""


@pytest.mark.fault("R2", "P1")
async def test_a_storm_of_rebalances_goes_on(kafka: KafkaBroker, tmp_path: Path) -> None:
    """60 % of the members toggled: output flows, little is done twice, SIGTERM works in it, nobody is stuck after."""
    settings = {"kafka": {"session_timeout_s": SESSION_S}, "worker": {"drain_s": DRAIN_S, "revoke_wait_s": 0.5}}
    async with (
        Stage(
            tmp_path, kafka, partitions=PARTITIONS, latency="const:0.1", model={"max_in_flight": SLOTS}, **settings
        ) as stage,
        flow_of(kafka.bootstrap_servers, f"{stage.topic}.{TASK}.enriched", PARTITIONS) as flow,
        sampling(kafka.bootstrap_servers, stage.group, stage.topic, TASK) as sampler,
    ):
        stays, goes = (stage.worker(name) for name in ("a", "b"))
        await asyncio.to_thread(stays.wait_ready)
        await asyncio.to_thread(goes.wait_ready)
        await stage.produce(RECORDS, keys=400)
        await flow.until_total(100, 60)
        calm, began_s = logged(stays, REVOKED), time.monotonic()
        async with toggled_members(stage, 3) as toggles:
            await asyncio.sleep(STORM_S / 2)
            code, took_s = await asyncio.to_thread(goes.terminate)
            assert code == 0, goes.tail()
            assert took_s < DRAIN_S + MARGIN_S
            goes = stage.worker("b")
            await asyncio.sleep(max(0.0, began_s + STORM_S - time.monotonic()))
            ended_s, in_the_storm, rebalances = time.monotonic(), flow.total, logged(stays, REVOKED) - calm
        assert rebalances >= 3, "it was no storm"
        assert in_the_storm > 200, "hardly anything was done"
        await stage.wait_committed(RECORDS)
        for worker in (stays, goes):
            await asyncio.to_thread(worker.wait_ready)
            assert (await asyncio.to_thread(worker.terminate))[0] == 0, worker.tail()
        verdict = await stage.verdict(samples=sampler.samples, settled=True)
        silence_s = longest_silence_s(flow, began_s, ended_s)
        print(
            f"rebalances {rebalances}, toggles {toggles[0]}, done in it {in_the_storm}, twice {verdict.repeats}, "
            f"silence {silence_s:.1f} s, SIGTERM {took_s:.1f} s"
        )
        assert not (broken := verdict.broken(crashed=True)), broken
        assert verdict.repeats < 0.2 * RECORDS
        assert silence_s < SILENCE_MAX_S


def longest_silence_s(flow: Flow, since_s: float, until_s: float) -> float:
    """The longest time in which no partition had output, before all had been done."""
    done_s = max(moments[-1] for moments in flow.grew_at_s.values() if moments)
    return flow.silence_s(since_s, min(until_s, done_s), range(PARTITIONS))


@contextlib.asynccontextmanager
async def toggled_members(stage: Stage, count: int) -> AsyncIterator[list[int]]:
    """Let members that fetch and commit nothing join and leave while the block runs; yield how often they did."""
    toggles, over = [0], asyncio.Event()
    chance = random.Random(2)
    churning = [asyncio.create_task(_churn(stage, chance, toggles, over)) for _ in range(count)]
    try:
        yield toggles
    finally:
        over.set()  # not cancelled: a `stop` that is cut short leaves its connections open
        await asyncio.wait_for(asyncio.gather(*churning), LEAVE_S)


async def _churn(stage: Stage, chance: random.Random, toggles: list[int], over: asyncio.Event) -> None:
    while not over.is_set():
        consumer = AIOKafkaConsumer(
            stage.topic,
            bootstrap_servers=stage.broker.bootstrap_servers,
            group_id=stage.group,
            enable_auto_commit=False,
            partition_assignment_strategy=[StickyPartitionAssignor],  # the workers' own: a group has one in common
            session_timeout_ms=int(SESSION_S * 1000),
            heartbeat_interval_ms=300,
        )
        try:
            await consumer.start()  # returns when it has its partitions
            await asyncio.sleep(chance.uniform(0, TOGGLE_MAX_S))
        finally:
            await consumer.stop()
        toggles[0] += 2
        await asyncio.sleep(chance.uniform(0, TOGGLE_MAX_S))
