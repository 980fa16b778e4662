"""The assignment: which partitions are ours, in which generation, with which ledgers; how they come and how they go."""

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition

from workers import metrics
from workers.clock import monotonic_s
from workers.log import get_logger
from workers.settings.model import Settings
from workers.stream import clients
from workers.stream.commits import Commits
from workers.stream.feed import Feed
from workers.stream.lane import Lane
from workers.stream.ledger import Ledger
from workers.stream.offsets import Offsets
from workers.stream.window import Delivery

REVOKE_COMMIT_S = 5.0
STOP_COMMIT_S = 2.0

log = get_logger(__name__)


class Assignment(ConsumerRebalanceListener):
    """The group's view of this consumer, and the calls that outlive their generation (orphans).

    aiokafka does not await `on_partitions_assigned` before it delivers (kafka.md (c)): the gate stays shut until the
    ledgers of the new generation stand.
    """

    def __init__(
        self, settings: Settings, consumer: AIOKafkaConsumer, feeds: Mapping[str, Feed], commits: Commits
    ) -> None:
        self._settings = settings
        self._consumer = consumer
        self.feeds = feeds
        self._lanes = list(dict.fromkeys(feed.lane for feed in feeds.values()))
        self.commits = commits
        self.offsets = Offsets(settings.kafka, consumer, commits)
        self.settled = False
        """Whether the last rebalance is over (also with no partition): the ledgers of the generation stand."""
        self.gate = asyncio.Event()
        """Shut until they do; nobody waits at it once the worker stops."""
        self.generation = 0
        """How many generations have ended."""
        self.ledgers: dict[TopicPartition, Ledger] = {}
        self.partitions: Counter[Lane] = Counter()
        """How many each lane has of them."""
        self.stopping = False
        """Nothing more may be fetched."""
        self.failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Fails with what must end the process."""
        self._loading: asyncio.Task[None] | None = None
        self._orphans: dict[tuple[str, int, int], tuple[Lane, Delivery]] = {}

    @property
    def offered(self) -> bool:
        """Whether the group has given us anything yet (also no partition)."""
        return self._loading is not None

    # ------------------------------------------------------------------ they go

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Finish what is busy for a bounded time, commit, and let go. Heartbeats go on meanwhile."""
        self.settled = False
        self.gate.clear()
        self.generation += 1
        if self._loading is not None:
            self._loading.cancel()
        began_s = monotonic_s()
        left = 0
        try:
            left = await self.settle(self._settings.worker.revoke_wait_s)
            if revoked:
                await self._last_commit(REVOKE_COMMIT_S)
        except Exception as error:  # noqa: BLE001 - aiokafka would log it and go on
            self._fail(error)
        finally:
            self._let_go()
        if revoked:
            log.info("partitions_revoked", count=len(revoked), took_s=round(monotonic_s() - began_s, 2), orphans=left)

    async def settle(self, timeout_s: float) -> int:
        """Drop what waits and let what is busy finish, at most `timeout_s`. What then still runs becomes an orphan."""
        leaving = set(self.ledgers.values())
        for lane in self._lanes:
            lane.drop_waiting(leaving)
        running = await asyncio.gather(*(lane.settle(leaving, timeout_s) for lane in self._lanes))
        for lane, deliveries in zip(self._lanes, running, strict=True):
            for delivery in deliveries:
                ledger = delivery.ledger
                self._orphans[ledger.topic, ledger.partition, delivery.offset] = (lane, delivery)
        return sum(map(len, running))

    def _let_go(self) -> None:
        """End the generation: from here on nothing of it is sent, acked or committed."""
        for ledger in self.ledgers.values():
            ledger.leaving = ledger.closed = True
        self.ledgers = {}
        self.commits.forget()

    async def _last_commit(self, timeout_s: float) -> None:
        """Commit before the partitions go; a broker that does not answer must not hold the rebalance."""
        try:
            await asyncio.wait_for(self.commits.commit(list(self.ledgers.values())), timeout_s)
        except TimeoutError:
            log.warning("commit_left_behind", after_s=timeout_s)
        except Exception as error:  # noqa: BLE001 - whatever it is, the partitions go
            self._fail(error)

    # ------------------------------------------------------------------ they come

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Start loading the ledgers; heartbeats wait for this callback, so it does not."""
        self._loading = asyncio.create_task(self._load(list(assigned), self.generation))

    async def _load(self, assigned: list[TopicPartition], generation: int) -> None:
        try:
            ledgers = await self.offsets.ledgers_for(assigned)
        except Exception as error:  # noqa: BLE001 - whatever it is, without ledgers nothing may be delivered
            self._fail(error)
            return
        if generation != self.generation:
            return
        for tp, ledger in ledgers.items():
            self._consumer.seek(tp, ledger.next_offset)
        self.ledgers = ledgers
        self.partitions = Counter(self.feeds[tp.topic].lane for tp in ledgers)
        self._share_budgets()
        for at, (_, orphan) in list(self._orphans.items()):
            if TopicPartition(at[0], at[1]) not in ledgers:
                del self._orphans[at]
                _cancel(orphan)
        self.settled = True
        self.gate.set()
        log.info("partitions_assigned", count=len(assigned), skip=sum(len(ledger.skip) for ledger in ledgers.values()))

    def _share_budgets(self) -> None:
        """A replica has as much of a task's budget as it has of the partitions that the task reads."""
        for task in (lane.task for lane in self._lanes):
            if task.budget is not None:
                topics = [topic for topic, feed in self.feeds.items() if feed.lane.task.name == task.name]
                every = sum(len(self._consumer.partitions_for_topic(topic) or ()) for topic in topics)
                task.budget.take_share(sum(tp.topic in topics for tp in self.ledgers), every)

    def adopted(self, ledger: Ledger, offset: int) -> bool:
        """Return whether a call that outlived its generation goes on for this record, delivered again."""
        if not self._orphans or (orphan := self._orphans.pop((ledger.topic, ledger.partition, offset), None)) is None:
            return False
        lane, delivery = orphan
        if delivery in lane.window.started and lane.window.adopt(delivery, ledger):
            metrics.ADOPTED.labels(ledger.topic).inc()
            return True
        _cancel(delivery)
        return False

    def start_over(self, tp: TopicPartition, next_offset: int) -> Ledger:
        """Give a partition a new ledger: other records lie under old offsets, and within a ledger offsets only rise."""
        old = self.ledgers[tp]
        self.feeds[tp.topic].lane.drop_waiting([old])
        old.closed = True
        new = self.ledgers[tp] = Ledger(tp.topic, tp.partition, next_offset)
        return new

    # ------------------------------------------------------------------ the end

    def stop(self) -> None:
        """Fetch no more."""
        self.stopping = True
        self.gate.set()

    async def last_commit(self) -> None:
        """Commit what is finished and let go of all partitions, in bounded time."""
        await self._last_commit(STOP_COMMIT_S)
        self._let_go()

    async def leave(self) -> None:
        """Leave the group; bounded by whoever calls."""
        if self.settled:
            await self._consumer.stop()
        else:
            await clients.stop_in_rebalance(self._consumer)

    def _fail(self, error: Exception) -> None:
        if not self.failure.done():
            self.failure.set_exception(error)


def _cancel(orphan: Delivery) -> None:
    if orphan.gone and orphan.worker is not None:
        orphan.worker.cancel()
