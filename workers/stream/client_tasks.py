"""The background tasks of aiokafka's clients: one that dies is at best logged, and its client is stuck."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer

from workers.errors import EX_SOFTWARE, Exit
from workers.stream.outgoing import Outgoings

LOOK_EVERY_S = 2.0

Tasks = Mapping[str, "asyncio.Task[Any]"]


def background_tasks(consumer: AIOKafkaConsumer, outgoings: Outgoings) -> Tasks:
    """Return the tasks that must run as long as their clients do, by name.

    aiokafka has no public way to them; the version is pinned, and a test holds these names. A coordinator's or a
    heartbeat's error comes up at the next fetch by itself.
    """
    found = {
        "consumer's metadata": consumer._client._sync_task,  # noqa: SLF001 - see above
        "consumer's fetcher": consumer._fetcher and consumer._fetcher._fetch_task,  # noqa: SLF001 - see above
    }
    for number, producer in enumerate(outgoings.producers()):
        found[f"producer's ({number}) metadata"] = producer.client._sync_task  # noqa: SLF001 - see above
        found[f"producer's ({number}) sender"] = producer._sender.sender_task  # noqa: SLF001 - see above
    return {name: task for name, task in found.items() if task is not None}


async def watch(tasks: Callable[[], Tasks]) -> None:
    """Look for ever.

    Raises:
        Exit: 70 when a task is dead at two looks in a row: in between, a spent producer may have been replaced.
    """
    seen: set[asyncio.Task[Any]] = set()
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        dead = {task: name for name, task in tasks().items() if task.done()}
        for task in seen & dead.keys():
            error = "cancelled" if task.cancelled() else type(task.exception()).__name__
            raise Exit(EX_SOFTWARE, f"the Kafka {dead[task]} task has died ({error}): only a restart helps")
        seen = set(dead)
