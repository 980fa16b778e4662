"""What is done to a scene: each function is one fault, and returns when the fault is over."""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from aiokafka import AIOKafkaConsumer
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor

from tests.support.deployment import WorkerProcess
from tests.support.scene import Scene
from tests.support.tcp_proxy import TcpProxy

Fault = Callable[[Scene], Awaitable[None]]


def chosen(scene: Scene) -> str:
    """A worker by chance, none of the spared."""
    return scene.chance.choice(sorted(set(scene.workers) - scene.spared))


async def kill_worker(scene: Scene) -> None:
    """`kill -9` one worker; its supervisor starts it again at once."""
    name = chosen(scene)
    scene.workers[name].kill()
    await scene.sampler.now()
    scene.start(name)


async def freeze_worker(scene: Scene, for_s: float = 10.0) -> None:
    """SIGSTOP for longer than a session: the group goes on without it, and it wakes up not knowing."""
    worker = scene.workers[chosen(scene)]
    worker.running.send_signal(signal.SIGSTOP)
    await asyncio.sleep(for_s)
    worker.running.send_signal(signal.SIGCONT)


async def kill_broker(scene: Scene) -> None:
    """SIGKILL the broker, and start it on the same data."""
    await asyncio.to_thread(scene.stage.broker.kill)
    await asyncio.sleep(scene.chance.uniform(0.1, 2))
    await asyncio.to_thread(scene.stage.broker.start)


async def freeze_broker(scene: Scene, for_s: float = 15.0) -> None:
    """SIGSTOP the broker for longer than a session: connections stay open, nothing answers."""
    scene.stage.broker.pause()
    await asyncio.sleep(for_s)
    scene.stage.broker.cont()


async def rebalance(scene: Scene) -> None:
    """Another member joins the group, gets partitions, and leaves: everybody's are revoked twice."""
    async with member(scene):
        await asyncio.sleep(scene.chance.uniform(0.1, 1.0))


@contextlib.asynccontextmanager
async def member(scene: Scene) -> AsyncIterator[AIOKafkaConsumer]:
    """A member that fetches nothing and commits nothing."""
    consumer = AIOKafkaConsumer(
        scene.stage.topic,
        bootstrap_servers=scene.stage.broker.bootstrap_servers,
        group_id=scene.stage.group,
        enable_auto_commit=False,
        partition_assignment_strategy=[StickyPartitionAssignor],  # the workers' own: a group has one in common
        session_timeout_ms=6_000,
        heartbeat_interval_ms=500,
    )
    await asyncio.wait_for(consumer.start(), 60)  # returns when it has its partitions
    try:
        yield consumer
    finally:
        await consumer.stop()


def cut_link(proxy: TcpProxy, for_s: float = 60.0) -> Fault:
    """Workers and broker live, and nothing passes between them."""

    async def cut(_: Scene) -> None:
        proxy.cut()
        await asyncio.sleep(for_s)
        proxy.heal()

    return cut


def endpoint(mode: str, for_s: float = 8.0) -> Fault:
    """The model fails in one way for a while: `reset`, `hang`, `garbage`, `503`, `429`."""

    async def fails(scene: Scene) -> None:
        scene.stage.model.fail(mode, for_s)
        await asyncio.sleep(for_s)

    return fails


async def storm(scene: Scene, for_s: float = 60.0) -> None:
    """Toggle 60 % of the members, one at most every 500 ms: what runs is killed, frozen or told to leave."""
    members = [Toggled(scene, name) for name in sorted(scene.workers)[: max(1, round(0.6 * len(scene.workers)))]]
    ends_at_s = time.monotonic() + for_s
    while time.monotonic() < ends_at_s:
        await asyncio.sleep(scene.chance.uniform(0.1, 0.5))
        scene.chance.choice(members).toggle()
    for member in members:
        await member.settle()


@dataclass
class Toggled:
    """A member of a storm."""

    scene: Scene
    name: str
    state: Literal["runs", "sleeps", "leaves"] = "runs"

    @property
    def worker(self) -> WorkerProcess:
        """Its process of now."""
        return self.scene.workers[self.name]

    def toggle(self) -> None:
        """Start what has ended, wake what sleeps, and do one of three things to what runs; let go what is leaving."""
        if self.worker.running.poll() is not None:
            self.scene.start(self.name)
            self.state = "runs"
        elif self.state == "sleeps":
            self.worker.running.send_signal(signal.SIGCONT)
            self.state = "runs"
        elif self.state == "runs":
            number = self.scene.chance.choice((signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP))
            self.worker.running.send_signal(number)
            self.state = "sleeps" if number is signal.SIGSTOP else "leaves"
        else:
            return
        self.scene.figures.faults += 1

    async def settle(self) -> None:
        """Bring it back for good."""
        self.worker.running.send_signal(signal.SIGCONT)
        if self.state == "leaves":
            await asyncio.to_thread(self.worker.running.wait, 60)
            self.scene.start(self.name)
