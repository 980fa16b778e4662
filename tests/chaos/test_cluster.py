"""Three brokers, three replicas: the leader goes, once and again and again, and another takes over."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.kafka_cluster import REPLICAS, KafkaCluster
from tests.support.scene import Scene, scene
from tests.support.stage import TASK

AGAIN_WHOLE_S = 60.0
AWAY_S = 60.0
RESUMED_S = 10.0
PROGRESS_S = 60.0
"""Every partition has output again within this, after each fault."""


@pytest.fixture
def cluster(kafka_jars: Path, tmp_path: Path) -> Iterator[KafkaCluster]:
    """Three brokers for one test."""
    del kafka_jars
    with KafkaCluster(tmp_path / "kafka") as running:
        yield running


async def lose_leader(scene: Scene, cluster: KafkaCluster, how: Callable[[KafkaCluster, int], None]) -> None:
    """End the node that leads the first output partition, and start it again."""
    output = f"{scene.stage.topic}.{TASK}.enriched"
    leader = await cluster.leader(output, 0)
    await asyncio.to_thread(how, cluster, leader)
    await asyncio.sleep(scene.chance.uniform(0.1, 2))
    await asyncio.to_thread(cluster.start, leader)


async def whole(scene: Scene, cluster: KafkaCluster) -> None:
    """Wait until all replicas have caught up: with two nodes behind nothing may be written."""
    output = f"{scene.stage.topic}.{TASK}.enriched"
    async with asyncio.timeout(AGAIN_WHOLE_S):
        while await cluster.in_sync(output) < REPLICAS:  # noqa: ASYNC110 - a broker has no event to wait for
            await asyncio.sleep(0.2)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("how", [KafkaCluster.stop, KafkaCluster.kill], ids=["SIGTERM", "SIGKILL"])
@pytest.mark.fault("B2")
async def test_the_leader_goes_and_comes_back(
    how: Callable[[KafkaCluster, int], None], cluster: KafkaCluster, tmp_path: Path
) -> None:
    """B2, five times: another node leads within seconds, nothing lost, keys in order, commits tell the truth."""
    async with scene(tmp_path, cluster, f"leader of three brokers: {how.__name__}", seed=25) as on:
        for _ in range(5):
            await on.suffer(lambda scene: lose_leader(scene, cluster, how))
            await whole(on, cluster)
    assert max(on.figures.progress_s) <= PROGRESS_S


async def lose_all(scene: Scene, cluster: KafkaCluster) -> None:
    """No broker for a minute: every worker says that it is not ready, and none ends."""
    await asyncio.to_thread(cluster.kill_all)
    await asyncio.sleep(AWAY_S)
    for worker in scene.workers.values():
        assert (await asyncio.to_thread(worker.get, "/livez"))[0] == 200
        assert "no broker has answered" in await asyncio.to_thread(worker.not_ready)
    await asyncio.to_thread(cluster.start_all)


@pytest.mark.timeout(400)
@pytest.mark.fault("B1")
async def test_all_brokers_are_away_for_a_minute(cluster: KafkaCluster, tmp_path: Path) -> None:
    """B1: the workers wait, and are at work again within ten seconds of the brokers' return, the same processes."""
    async with scene(tmp_path, cluster, "three brokers away for 60 s", seed=30) as on:
        before = {name: worker.running.pid for name, worker in on.workers.items()}
        await on.suffer(lambda scene: lose_all(scene, cluster))
        assert {name: worker.running.pid for name, worker in on.workers.items()} == before
    assert max(on.figures.progress_s) <= RESUMED_S
