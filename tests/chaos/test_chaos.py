"""Faults at random moments, under nearly all the load the workers can do, with key order and heavy-tailed latency.

Whatever is done: nothing is lost, keys keep their order, commits tell the truth at every sample, and it goes on.
"""

import asyncio
from pathlib import Path

import pytest

from tests.support import chaos
from tests.support.kafka import KafkaBroker
from tests.support.proxied_kafka import ProxiedKafka
from tests.support.scene import SLOTS, scene
from tests.support.tcp_proxy import TcpProxy


@pytest.mark.timeout(400)
@pytest.mark.parametrize("static", [True, False], ids=["static", "dynamic"])
@pytest.mark.fault("P2")
async def test_kill_9_at_random_moments(own_kafka: KafkaBroker, tmp_path: Path, *, static: bool) -> None:
    """Ten times a worker of two is killed and started again; hardly more is done twice than was in flight."""
    name = f"kill -9 of a worker, {'static' if static else 'dynamic'} member"
    async with scene(tmp_path, own_kafka, name, static=static, seed=2) as on:
        await on.suffer(chaos.kill_worker, 10)
    assert on.figures.repeated <= on.figures.in_flight_at_faults + 10 * SLOTS


@pytest.mark.timeout(400)
@pytest.mark.fault("R1")
async def test_forced_rebalances_with_records_in_flight(own_kafka: KafkaBroker, tmp_path: Path) -> None:
    """Twenty times another member joins and leaves: what runs is finished or taken over, not done twice."""
    async with scene(tmp_path, own_kafka, "forced rebalance", seed=3) as on:
        await on.suffer(chaos.rebalance, 20)


@pytest.mark.timeout(400)
@pytest.mark.fault("R2")
async def test_a_storm_of_rebalances(own_kafka: KafkaBroker, tmp_path: Path) -> None:
    """For a minute 60 % of the members of a group of four are toggled, two a second: it goes on."""
    async with scene(tmp_path, own_kafka, "storm: members toggled for 60 s", workers=4, seed=4) as on:
        await on.suffer(chaos.storm)


@pytest.mark.timeout(400)
@pytest.mark.fault("B2")
async def test_the_broker_is_killed_and_comes_back(own_kafka: KafkaBroker, tmp_path: Path) -> None:
    """Five times SIGKILL and a start on the same data: no worker needs a restart."""
    async with scene(tmp_path, own_kafka, "SIGKILL of the broker", seed=5) as on:
        await on.suffer(chaos.kill_broker, 5)


@pytest.mark.timeout(400)
@pytest.mark.fault("B3")
async def test_the_broker_freezes(own_kafka: KafkaBroker, tmp_path: Path) -> None:
    """SIGSTOP for longer than a session, and for 30 s."""
    async with scene(tmp_path, own_kafka, "SIGSTOP of the broker", seed=6) as on:
        await on.suffer(chaos.freeze_broker)
        await on.suffer(lambda stage: chaos.freeze_broker(stage, 30))


@pytest.mark.timeout(400)
@pytest.mark.fault("R6", "P6")
async def test_a_worker_freezes_past_its_session(own_kafka: KafkaBroker, tmp_path: Path) -> None:
    """Three times a worker sleeps while others take its partitions over; what it wakes up with is too late."""
    async with scene(tmp_path, own_kafka, "SIGSTOP of a worker", seed=7) as on:
        await on.suffer(chaos.freeze_worker, 3)


@pytest.mark.timeout(400)
@pytest.mark.fault("B5")
async def test_the_link_is_cut_for_a_minute(kafka_jars: Path, tmp_path: Path) -> None:
    """Workers and broker live, and nothing passes between them for 60 s."""
    del kafka_jars
    with TcpProxy() as proxy, ProxiedKafka(tmp_path / "kafka", proxy) as broker:
        link = {"bootstrap_servers": broker.proxied_servers}
        async with scene(tmp_path, broker, "link cut for 60 s", seed=8, kafka=link) as on:
            await on.suffer(chaos.cut_link(proxy))


@pytest.mark.timeout(400)
@pytest.mark.fault("E28")
async def test_the_endpoint_fails_in_every_way(own_kafka: KafkaBroker, tmp_path: Path) -> None:
    """Dead, slow, resetting, lying, overloaded in turn, while workers die as well: records are held, and answered."""
    task = {"when_unavailable": "hold"}
    async with scene(tmp_path, own_kafka, "endpoint dead, slow, resetting, lying", seed=9, task=task) as on:
        for mode in ("reset", "hang", "garbage", "503", "429"):
            await on.suffer(chaos.endpoint(mode))
            await on.suffer(chaos.kill_worker)


@pytest.mark.timeout(400)
async def test_everything_at_once(own_kafka: KafkaBroker, tmp_path: Path) -> None:
    """A broker that dies in a rebalance that a killed worker started, while the model resets its connections."""
    async with scene(tmp_path, own_kafka, "several at once", workers=3, seed=10) as on:
        for _ in range(3):
            await on.suffer(together)


async def together(on: chaos.Scene) -> None:
    """Three faults within a second of each other."""
    on.stage.model.fail("reset", 4)
    await chaos.kill_worker(on)
    await asyncio.sleep(on.chance.uniform(0, 1))
    await chaos.kill_broker(on)
