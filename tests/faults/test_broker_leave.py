"""A worker that stops while its group is being assigned."""

import asyncio
import contextlib
import time

import pytest
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor

from tests.support.kafka import KafkaBroker
from tests.support.memory import rig_settings
from tests.support.topics import fresh_name, members
from workers.stream import clients

BOUND_S = 30.0
SESSION_S = 120.0
"""Of both members: whoever goes without a word is still in the group when the bound is over."""


class Slow(ConsumerRebalanceListener):
    """Lets go of its partitions when the test says so; until then nobody's join is answered."""

    def __init__(self) -> None:
        self.asked, self.let_go = asyncio.Event(), asyncio.Event()

    async def on_partitions_revoked(self, revoked: list[TopicPartition]) -> None:
        """Hold them."""
        if revoked:
            self.asked.set()
            await self.let_go.wait()

    async def on_partitions_assigned(self, assigned: list[TopicPartition]) -> None:
        """Take them."""


@pytest.mark.fault("P1")
async def test_a_worker_that_stops_while_it_joins_says_so(kafka: KafkaBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    """P1: the join is answered only when another member lets go; the group must not wait a session for who has gone."""
    monkeypatch.setattr(clients, "LEAVE_S", BOUND_S)  # a second is enough, unless the machine is busy
    topic, group, servers = fresh_name("in"), fresh_name("group"), kafka.bootstrap_servers
    await kafka.create_topics({topic: 2})
    slow = Slow()
    other = AIOKafkaConsumer(
        bootstrap_servers=servers,
        group_id=group,
        enable_auto_commit=False,
        partition_assignment_strategy=[StickyPartitionAssignor],
        rebalance_timeout_ms=120_000,
        session_timeout_ms=int(SESSION_S * 1000),
        heartbeat_interval_ms=200,
    )
    other.subscribe([topic], listener=slow)
    await other.start()
    kafka_settings = {"bootstrap_servers": servers, "group_id": group, "session_timeout_s": SESSION_S}
    consumer = clients.consumer(rig_settings(kafka_settings, {}))
    consumer.subscribe([topic])
    joining = asyncio.create_task(consumer.start())
    try:
        await asyncio.wait_for(slow.asked.wait(), BOUND_S)
        assert await members(servers, group) == 2
        began_s = time.monotonic()
        joining.cancel()
        async with asyncio.timeout(BOUND_S):
            await clients.stop_in_rebalance(consumer)
            while await members(servers, group) > 1:  # noqa: ASYNC110 - a group has no event to wait for
                await asyncio.sleep(0.1)
        print(f"gone from the group after {time.monotonic() - began_s:.1f} s")
    finally:
        slow.let_go.set()
        with contextlib.suppress(asyncio.CancelledError):
            await joining
        await other.stop()
