"""A background task of aiokafka's that dies leaves its client stuck for ever: the worker ends instead."""

import asyncio

import pytest

from tests.support.embedded import EmbeddedKafka
from tests.support.memory import rig_settings, until
from workers.errors import EX_SOFTWARE, Exit
from workers.stream import client_tasks, clients
from workers.stream.client_tasks import background_tasks, watch
from workers.stream.outgoing import Outgoings

BOUND_S = 10.0


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_tasks, "LOOK_EVERY_S", 0.01)


async def _dies(*_: object) -> bool:
    raise RuntimeError("unable to perform operation on a closed transport")


async def _dead() -> "asyncio.Task[bool]":
    task = asyncio.create_task(_dies())
    await asyncio.wait({task})
    return task


async def test_a_task_that_died_ends_the_worker() -> None:
    """B2, mended: seen once after a broker restart; nothing in the process would have brought it back."""
    tasks = {"metadata": await _dead()}
    with pytest.raises(Exit, match=r"metadata task has died \(RuntimeError\)") as caught:
        await asyncio.wait_for(watch(lambda: tasks), BOUND_S)
    assert caught.value.code == EX_SOFTWARE


async def test_a_dead_task_that_is_replaced_is_no_reason() -> None:
    """The sender dies with its producer, and another producer is opened: each is seen dead once."""
    dead = [{"sender": await _dead()} for _ in range(5)]
    running = {"sender": asyncio.create_task(asyncio.sleep(60))}
    looks = iter([*dead, running])
    watching = asyncio.create_task(watch(lambda: next(looks, running)))
    await until(lambda: not list(looks) or watching.done())
    await asyncio.sleep(0.1)
    assert not watching.done()
    watching.cancel()
    running["sender"].cancel()


async def test_the_pinned_client_has_these_tasks(embedded: EmbeddedKafka) -> None:
    """The names are aiokafka's own: when this fails, a new version calls them otherwise. One that dies is seen."""
    embedded.create_topic("in", 2)
    settings = rig_settings({"bootstrap_servers": embedded.bootstrap_servers, "group_id": "g"}, {})
    consumer = clients.consumer(settings)
    consumer.subscribe(["in"])
    outgoings = Outgoings(settings.kafka, {"in": 2}, {})
    await outgoings.start()
    await consumer.start()
    try:
        tasks = background_tasks(consumer, outgoings)
        assert len(tasks) == 4
        assert not [name for name, task in tasks.items() if task.done()]

        consumer._client._metadata_update = _dies
        failing = consumer._client.force_metadata_update()
        with pytest.raises(Exit, match="the Kafka consumer's metadata task has died"):
            await asyncio.wait_for(watch(lambda: background_tasks(consumer, outgoings)), BOUND_S)
        failing.cancel()
    finally:
        consumer._client._sync_task = None  # its `stop` would raise what the task died of
        await consumer.stop()
        await outgoings.close()
