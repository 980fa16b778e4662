"""The Faust app: one agent per task over a channel, and the intake as a service. Its own Kafka side is left off.

Faust's consumer commits past unfinished work and hangs on SIGTERM behind one stuck record, so Faust carries the app,
the agents and the services here, and offsets are ours. `BootStrategy` is the public seam for that.
"""

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Mapping
from typing import Any

import faust
from faust.app.base import BootStrategy
from mode import Service

from workers.log import get_logger
from workers.stream.feed import Feed
from workers.stream.lane import Lane
from workers.stream.window import Delivery

CHANNEL_MAX_BATCHES = 64

log = get_logger(__name__)


class _Boot(BootStrategy):
    """Agents and services only."""

    enable_kafka = False
    enable_web = False
    enable_sensors = False


class App(faust.App):
    """A Faust app that touches neither Kafka nor the disk: it runs on a read-only root."""

    BootStrategy = _Boot

    def _create_directories(self) -> None:
        """Faust would make `<id>-data/` in the current directory."""


def build(app_id: str) -> App:
    """Return the app. It gets no broker URL: Faust would print it, password included."""
    return App(app_id, web_enabled=False, topic_disable_leader=True, autodiscover=False)


def add_agent(app: App, lane: Lane, failed: Callable[[Exception], None]) -> Feed:
    """Give a lane its agent and channel; return what the intake puts its batches on.

    A bug in the agent is handed to `failed`: mode would start the agent again, and the batch would never be done.
    """
    channel = app.channel(maxsize=CHANNEL_MAX_BATCHES)

    async def enrich(batches: AsyncIterable[list[Delivery]]) -> None:
        async for batch in batches:
            try:
                lane.start(batch)
            except Exception as error:
                log.exception("agent_failed", task=lane.task.name)
                failed(error)

    app.agent(channel, name=lane.task.name)(enrich)

    async def put(batch: list[Delivery]) -> None:
        await channel.put(batch)

    return Feed(lane, put, channel.queue.qsize)


def add_intake_service(
    app: App, loops: Mapping[str, Callable[[], Coroutine[Any, Any, None]]], failed: Callable[[Exception], None]
) -> None:
    """Run the intake's endless loops (pump, commits, lag) as a Faust service.

    A loop that ends with an exception is handed to `failed`; a crashing service would make mode restart or hang.
    """

    @app.service
    class Intake(Service):
        async def on_started(self) -> None:
            for name, loop in loops.items():
                self.add_future(_watched(name, loop, failed))


async def _watched(name: str, loop: Callable[[], Awaitable[None]], failed: Callable[[Exception], None]) -> None:
    try:
        await loop()
    except asyncio.CancelledError:
        raise
    except Exception as error:  # a dead loop must end the process, never go unseen
        log.exception("loop_failed", loop=name)
        failed(error)
