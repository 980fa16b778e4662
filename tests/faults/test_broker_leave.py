"""A worker that stops while its group is being assigned."""

import asyncio
import contextlib
import time

import pytest
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor

from tests.support.kafka import KafkaBroker
from tests.support.memory import rig_settings
from tests.support.topics import fresh_name
from workers.stream import clients

BOUND_S = 30.0
SESSION_S = 30.0


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


async def members(servers: str, group: str) -> int:
    """How many members the group has now."""
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        [answer] = await admin.describe_consumer_groups([group])
        return len(answer.groups[0][5])
    finally:
        await admin.close()


@pytest.mark.fault("P1")
async def test_a_worker_that_stops_while_it_joins_says_so(kafka: KafkaBroker) -> None:
    """P1: the join is answered only when another member lets go; the group must not wait a session for who has gone."""
    topic, group, servers = fresh_name("in"), fresh_name("group"), kafka.bootstrap_servers
    await kafka.create_topics({topic: 2})
    slow = Slow()
    other = AIOKafkaConsumer(
        bootstrap_servers=servers,
        group_id=group,
        enable_auto_commit=False,
        partition_assignment_strategy=[StickyPartitionAssignor],
        rebalance_timeout_ms=60_000,
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
        await clients.leave_group(consumer)
        async with asyncio.timeout(BOUND_S / 2):
            while await members(servers, group) > 1:  # noqa: ASYNC110 - a group has no event to wait for
                await asyncio.sleep(0.1)
        print(f"gone from the group after {time.monotonic() - began_s:.1f} s")
        await clients.quietly_closed(consumer, 5.0)
    finally:
        slow.let_go.set()
        with contextlib.suppress(asyncio.CancelledError):
            await joining
        await other.stop()
