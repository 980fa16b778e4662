"""Queue lag from committed offsets, what is in flight, and the watchdog over a consumer that has gone quiet."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from workers import metrics
from workers.clock import monotonic_s, wall_s
from workers.errors import EX_SOFTWARE, Exit
from workers.log import get_logger
from workers.stream.assignment import Assignment
from workers.stream.intake import Intake
from workers.stream.lane import HOLDS

INTERVAL_S = 2.0
ANSWER_MAX_S = 10.0
STALLED_S = 120.0
"""Records wait, there is room, the broker answers, and yet nothing is delivered for this long: aiokafka's fetcher can
die silently (kafka.md (d)), and then only a restart helps."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Reach:
    """Offsets of one partition: its end, and the next to be read."""

    end: int
    position: int


class Lag:
    """Samples the queue every 2 s, also while the worker is full and when nothing arrives."""

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        assignment: Assignment,
        intake: Intake,
        *,
        clock: Callable[[], float] = monotonic_s,
    ) -> None:
        self._consumer = consumer
        self._assignment = assignment
        self._feeds = assignment.feeds
        self._intake = intake
        self._clock = clock
        self._shown: set[TopicPartition] = set()
        self._quiet_since_s: float | None = None
        self._answered_at_s = clock()

    def silent_s(self) -> float:
        """Return for how long the broker has not told us where our partitions end."""
        return self._clock() - self._answered_at_s

    async def run(self) -> None:
        """Sample for ever.

        Raises:
            Exit: 70 when the consumer is stalled.
        """
        while True:
            await asyncio.sleep(INTERVAL_S)
            self._sample_lanes()
            reach = await self._reach()
            self._sample_lag(reach)
            self._watch(reach)

    async def _reach(self) -> Mapping[TopicPartition, Reach]:
        """Return how far each partition reaches and has been read; nothing while the broker does not answer."""
        asking = asyncio.ensure_future(self._asked(list(self._assignment.ledgers)))
        done, _ = await asyncio.wait({asking}, timeout=ANSWER_MAX_S)
        if not done:
            asking.cancel()
            return {}
        if (error := asking.exception()) is not None:
            if not isinstance(error, KafkaError):
                raise error
            return {}
        self._answered_at_s = self._clock()
        return asking.result()

    async def _asked(self, assigned: list[TopicPartition]) -> Mapping[TopicPartition, Reach]:
        ends = await self._consumer.end_offsets(assigned) if assigned else {}
        return {tp: Reach(end, await self._consumer.position(tp)) for tp, end in ends.items()}

    def _sample_lag(self, reach: Mapping[TopicPartition, Reach]) -> None:
        self._sample_retries(reach)
        ledgers = {tp: ledger for tp, ledger in self._assignment.ledgers.items() if self._delay_s(tp) is None}
        for tp in self._shown - set(ledgers):
            metrics.LAG.remove(tp.topic, str(tp.partition))
            metrics.COMMIT_GAP.remove(tp.topic, str(tp.partition))
        known = ledgers.keys() & reach.keys()
        self._shown = self._shown & set(ledgers) | known
        for tp in known:
            committed = self._assignment.commits.committed.get(tp, ledgers[tp].position)
            metrics.LAG.labels(tp.topic, str(tp.partition)).set(max(0, reach[tp].end - committed))
            metrics.COMMIT_GAP.labels(tp.topic, str(tp.partition)).set(ledgers[tp].gap())

    def _delay_s(self, tp: TopicPartition) -> float | None:
        """Return the delay of a retry topic, None for an input."""
        return self._feeds[tp.topic].delay_s

    def _sample_retries(self, reach: Mapping[TopicPartition, Reach]) -> None:
        """What waits in retry topics is there on purpose: it has series of its own, and is no lag."""
        ledgers = {tp: ledger for tp, ledger in self._assignment.ledgers.items() if self._delay_s(tp) is not None}
        for feed in self._feeds.values():
            if feed.delay_s is None:
                continue
            name = feed.lane.task.name
            mine = {tp: ledger for tp, ledger in ledgers.items() if self._feeds[tp.topic].lane is feed.lane}
            oldest_ms = feed.lane.oldest_timestamp_ms(mine.values())
            overdue_s = wall_s() - oldest_ms / 1000 - feed.delay_s if oldest_ms else 0.0
            metrics.RETRY_OVERDUE_S.labels(name).set(max(0.0, overdue_s))
            if mine.keys() <= reach.keys():
                committed = {tp: self._assignment.commits.committed.get(tp, at.position) for tp, at in mine.items()}
                metrics.RETRY_LAG.labels(name).set(sum(max(0, reach[tp].end - committed[tp]) for tp in mine))

    def _sample_lanes(self) -> None:
        ledgers = self._assignment.ledgers
        feeds = {feed.lane: feed for feed in self._feeds.values()}
        for lane, feed in feeds.items():
            name, window = lane.task.name, lane.window
            inputs = {topic for topic, feed in self._feeds.items() if feed.lane is lane and feed.delay_s is None}
            mine = [ledger for tp, ledger in ledgers.items() if tp.topic in inputs]
            oldest_ms = lane.oldest_timestamp_ms(mine)
            metrics.OLDEST_UNFINISHED_S.labels(name).set(max(0.0, wall_s() - oldest_ms / 1000) if oldest_ms else 0.0)
            metrics.IN_FLIGHT.labels(name).set(window.count)
            metrics.IN_FLIGHT_BYTES.labels(name).set(window.bytes)
            metrics.CHANNEL_DEPTH.labels(name).set(feed.depth())
            metrics.CHAIN_DEPTH.labels(name).set(window.waiting())
            metrics.HOT_KEY_CHAIN.labels(name).set(window.longest_chain())
            holds = lane.held_by()
            for reason in HOLDS:
                metrics.TASK_HELD.labels(name, reason).set(reason in holds)
            metrics.GUARD_BUDGET.labels(name).set(lane.task.guard.budget)
            if lane.task.budget is not None:
                for kind, ratio in lane.task.budget.spent_ratios().items():
                    metrics.BUDGET_SPENT_RATIO.labels(name, kind).set(ratio)
        for topic in self._feeds:
            metrics.ASSIGNED_PARTITIONS.labels(topic).set(sum(tp.topic == topic for tp in ledgers))

    def _watch(self, reach: Mapping[TopicPartition, Reach]) -> None:
        """Only what nothing else explains counts: the broker answered, there is room, and records wait.

        The consumer's own position decides: markers of transactions at the end are no records that wait.
        """
        now_s = self._clock()
        waiting = any(at.end > at.position and self._intake.room(tp) > 0 for tp, at in reach.items())
        if not waiting or self._intake.delivered_at_s > now_s - INTERVAL_S:
            self._quiet_since_s = None
            return
        self._quiet_since_s = self._quiet_since_s or now_s
        if now_s - self._quiet_since_s > STALLED_S:
            raise Exit(
                EX_SOFTWARE, f"records wait and nothing was delivered for {STALLED_S:g} s: the consumer is stalled"
            )
