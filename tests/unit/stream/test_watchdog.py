"""The watchdog over the Kafka client: it ends the worker when only a new process helps, and never because of Kafka."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from aiokafka.errors import KafkaConnectionError

from tests.support.embedded import EmbeddedKafka
from tests.support.memory import Rig, rig_settings
from workers.errors import EX_SOFTWARE, Exit
from workers.stream import cluster
from workers.stream.lag import Lag
from workers.stream.watchdog import LOOK_EVERY_S, STUCK_S, Watchdog

REQUEST_TIMEOUT_S = 50.0
PATIENCE_S = STUCK_S + REQUEST_TIMEOUT_S


@dataclass
class Scene:
    """A worker's intake in memory, a lag that is as silent as the test says, and a cluster that is as well."""

    rig: Rig
    now_s: float = 1_000.0
    well: bool = True
    asked: int = 0

    def __post_init__(self) -> None:
        """Put the watchdog over them."""
        self.lag = Lag(self.rig.consumer, self.rig.assignment, self.rig.intake, clock=self.clock)  # type: ignore[arg-type]
        self.watchdog = Watchdog(self.rig.assignment, self.lag, self.answers, REQUEST_TIMEOUT_S, clock=self.clock)

    def clock(self) -> float:
        """Return the time."""
        return self.now_s

    async def answers(self) -> None:
        """What a fresh client gets."""
        self.asked += 1
        if not self.well:
            raise KafkaConnectionError

    async def looks(self, for_s: float, *, silent: bool = True) -> None:
        """Let it look every 5 s for so long; the worker's own client gets no answer meanwhile when it is `silent`."""
        for _ in range(int(for_s / LOOK_EVERY_S)):
            self.now_s += LOOK_EVERY_S
            if not silent:
                await self.lag._reach()
            await self.watchdog.look()


@asynccontextmanager
async def scene(*partitions: int) -> AsyncIterator[Scene]:
    """A worker with these partitions."""
    async with Rig() as rig:
        if partitions:
            await rig.assign(*partitions)
        yield Scene(rig)


async def test_a_client_without_answers_ends_the_worker_when_a_fresh_one_has_them() -> None:
    """B1, mended: seen once after a broker restart; nothing in the process would have brought it back."""
    async with scene(0) as on:
        with pytest.raises(Exit, match="stuck") as caught:
            await on.looks(2 * PATIENCE_S)
    assert caught.value.code == EX_SOFTWARE


async def test_no_assignment_for_so_long_is_the_same() -> None:
    """A join that is never answered: without partitions nothing else is asked, so nothing else is silent."""
    async with scene() as on:
        with pytest.raises(Exit, match="stuck"):
            await on.looks(2 * PATIENCE_S, silent=False)


@pytest.mark.fault("B1")
async def test_kafka_away_for_an_hour_restarts_nobody() -> None:
    """A fresh client gets no answer either: a new process would be no better off."""
    async with scene(0) as on:
        on.well = False
        await on.looks(3_600)
        assert on.asked


async def test_a_cluster_that_is_back_leaves_the_client_its_time_to_find_it() -> None:
    """The silence of the outage does not count: only what follows does, and the client has answers by then."""
    async with scene(0) as on:
        on.well = False
        await on.looks(3_600)
        on.well = True
        await on.looks(PATIENCE_S - LOOK_EVERY_S)
        await on.looks(3_600, silent=False)
        await on.looks(PATIENCE_S - LOOK_EVERY_S)  # it begins anew


async def test_a_cluster_that_comes_and_goes_is_no_reason() -> None:
    """It must have been well at every look."""
    async with scene(0) as on:
        for _ in range(10):
            on.well = True
            await on.looks(PATIENCE_S / 2)
            on.well = False
            await on.looks(LOOK_EVERY_S)


async def test_rebalances_one_after_another_are_no_reason() -> None:
    """Each generation has its own time to settle."""
    async with scene() as on:
        for _ in range(10):
            await on.looks(PATIENCE_S / 2, silent=False)
            await on.rig.revoke()


async def test_as_long_as_there_are_answers_nobody_else_is_asked() -> None:
    """No second client in ordinary times."""
    async with scene(0) as on:
        await on.looks(600, silent=False)
        assert not on.asked


async def test_a_cluster_that_answers_nobody_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client asks a coordinator that is away without end."""
    monkeypatch.setattr("workers.stream.watchdog.ANSWER_MAX_S", 0.01)
    async with scene(0) as on:
        on.watchdog._answers = asyncio.Event().wait
        await on.looks(100)


async def test_a_fresh_client_is_answered_by_a_broker_that_is_well(embedded: EmbeddedKafka) -> None:
    """And raises while it is away."""
    embedded.create_topic("in", 2)
    kafka = rig_settings({"bootstrap_servers": embedded.bootstrap_servers, "group_id": "g"}, {}).kafka
    await asyncio.wait_for(cluster.answers(kafka, ["in"], {"in": 2}), 30)
    embedded.down()
    with pytest.raises(KafkaConnectionError):
        await asyncio.wait_for(cluster.answers(kafka, ["in"], {"in": 2}), 30)
