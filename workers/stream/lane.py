"""A lane: one task at work. Takes delivered batches from the agent and runs each record, key by key, to its ack."""

import asyncio
import time
from collections.abc import Callable, Iterable

from workers import metrics
from workers.clock import monotonic_s, wall_s
from workers.errors import Internal, Paused, PromptFailed, Unwritable
from workers.log import get_logger
from workers.outcome import Deferred, Enriched, Erased, Fallback, Outcome, Rejected
from workers.pipeline import decide, finish
from workers.ports import Sink
from workers.records import OLDEST_TIMESTAMP_MS, Passage, Record
from workers.stream.ledger import Ledger
from workers.stream.window import Delivery, Window
from workers.task import Task

UNWRITABLE_RETRY_S = 10.0
HELD_CHECK_S = 1.0

HOLDS = ("guard", "unwritable", "misconfigured", "budget", "stopped")
"""The reasons for which a task is held."""

AS_CONFIGURED = frozenset({"budget"})
"""Holds that end by themselves, as the configuration wants it: `/readyz` stays as it is."""

log = get_logger(__name__)


class Lane:
    """One task, its window, and the asyncio tasks that run its records."""

    def __init__(self, task: Task, window: Window, sink: Sink, failed: Callable[[Exception], None]) -> None:
        """`failed` is told of a bug of ours outside the record's own pipeline: the process has to end."""
        self.task = task
        self.window = window
        self._sink = sink
        self._failed = failed
        self._unwritable = 0
        self._duration = metrics.RECORD_S.labels(task.name)
        self._age = metrics.RECORD_AGE_S.labels(task.name)
        self._outcomes: dict[tuple[str, str, str], Callable[[], None]] = {}

    def held_by(self) -> dict[str, str]:
        """Return why this task finishes no record: by reason (`HOLDS`) a sentence for a person."""
        name, holds = self.task.name, {}
        if (tripped_by := self.task.guard.tripped_by) is not None:
            holds["guard"] = f"task {name} is paused after too many rejects of its own making, the last {tripped_by}"
        if self._unwritable:
            holds["unwritable"] = f"task {name} holds {self._unwritable} records that can be written nowhere"
        holds |= self._held_by_budget()
        for model in self.task.models():
            if (reason := model.held_reason()) is not None:
                holds["misconfigured"] = f"task {name} waits for its model {model.name}: {reason}"
        return holds

    def reasons_not_ready(self) -> list[str]:
        """Return why a person has to look at this task."""
        return [why for hold, why in self.held_by().items() if hold not in AS_CONFIGURED]

    def _held_by_budget(self) -> dict[str, str]:
        name, budget = self.task.name, self.task.budget
        if budget is None:
            return {}
        if budget.stopped_by is not None:
            return {"stopped": f"task {name} has stopped until a restart, which counts anew: {budget.stopped_by}"}
        spent = self.task.holds_for_budget()
        return {"budget": f"task {name} holds its records: {budget.says(spent)}"} if spent is not None else {}

    def _may_start(self) -> bool:
        budget = self.task.budget
        stopped = budget is not None and budget.stopped_by is not None
        return self.task.guard.tripped_by is None and not self._unwritable and not stopped

    def delivery(self, record: Record, ledger: Ledger, *, offset: int | None = None, deferrals: int = 0) -> Delivery:
        """Return a delivery of the record, counted in the window; `offset` in the ledger, when not the record's own."""
        settings = self.task.settings
        stale_at_s = None
        if settings.max_age_s is not None and record.timestamp_ms >= OLDEST_TIMESTAMP_MS:
            stale_at_s = monotonic_s() + settings.max_age_s - (wall_s() - record.timestamp_ms / 1000)
        key = record.key if settings.order == "key" else b"" if settings.order == "partition" else None
        passage = Passage(settings.deadline_s, stale_at_s, deferrals=deferrals)
        delivery = Delivery(record, ledger, key, passage, offset)
        self.window.enter(delivery)
        return delivery

    def start(self, batch: Iterable[Delivery]) -> None:
        """Run deliveries, each the first of its key. Never raises: an agent must not crash."""
        create_task = asyncio.get_running_loop().create_task  # to find the loop is a system call each time (getpid)
        for delivery in batch:
            delivery.worker = create_task(self._run(delivery))

    async def _run(self, first: Delivery) -> None:
        """Run a delivery and then, one after the other, those of its key that waited for it.

        What belongs to a partition that leaves only leaves the window.
        """
        delivery: Delivery | None = first
        while delivery is not None:
            if not delivery.ledger.leaving:
                delivery.worker = first.worker
                self.window.started.add(delivery)
                try:
                    await self._one(delivery)
                except asyncio.CancelledError:  # revoked or stopping: it stays unacked, the next owner does it
                    self.window.leave(delivery)
                    return
                except Exception as error:  # unacked, so nothing is lost; but its partition would stand still
                    log.exception("record_left_unacked", **self._where(delivery))
                    self._failed(error)
            delivery = self.window.leave(delivery)

    async def _one(self, delivery: Delivery) -> None:
        if not self._may_start():
            await self._allowed()
        began_s = monotonic_s()
        outcome = await decide(delivery.record, self.task, delivery.passage)
        self._report_bug(delivery, outcome)
        written = await self._finished(delivery, outcome)
        if written is not None:
            if written is not outcome:
                self._report_bug(delivery, written)
            self._note(delivery, written, monotonic_s() - began_s)

    async def _allowed(self) -> None:
        """Wait while the task is held; a tripped guard is cleared only by a restart, so then for the cancellation."""
        while not self._may_start():  # noqa: ASYNC110 - rare, and two unlike things hold a task
            await asyncio.sleep(HELD_CHECK_S)

    async def _finished(self, delivery: Delivery, outcome: Outcome) -> Outcome | None:
        """Write the outcome, however long no topic will take it; park the record when the guard forbids it."""
        while True:
            try:
                return await finish(delivery, outcome, self.task, self._sink)
            except Paused as error:
                log.error("task_paused", reason=str(error), **self._where(delivery))  # noqa: TRY400 - the reason is all there is
                delivery.passage.busy = False
                await self._allowed()
            except Unwritable as error:
                log.error("record_unwritable", reason=str(error), **self._where(delivery))  # noqa: TRY400 - the reason is all there is
                delivery.passage.busy = False
                self._unwritable += 1
                try:
                    await asyncio.sleep(UNWRITABLE_RETRY_S)
                finally:
                    self._unwritable -= 1

    def _report_bug(self, delivery: Delivery, outcome: Outcome) -> None:
        if isinstance(outcome, Rejected) and isinstance(outcome.error, Internal):
            log.error("internal_error", exc_info=outcome.error.__cause__, **self._where(delivery))

    def _where(self, delivery: Delivery) -> dict[str, object]:
        record = delivery.record
        return {"task": self.task.name, "topic": record.topic, "partition": record.partition, "offset": record.offset}

    def _note(self, delivery: Delivery, outcome: Outcome, duration_s: float) -> None:
        """Count what was written and acked."""
        labels = _labels(outcome)
        count = self._outcomes.get(labels)
        if count is None:
            count = self._outcomes[labels] = metrics.RECORDS.labels(self.task.name, *labels).inc
        count()
        self._duration.observe(duration_s)
        if delivery.record.timestamp_ms >= OLDEST_TIMESTAMP_MS and not isinstance(outcome, Deferred):
            self._age.observe(max(0.0, time.time() - delivery.record.timestamp_ms / 1000))
        if isinstance(outcome, Rejected):
            error = outcome.error
            # Of a template's failure the text is fit for a log: line and name of the template, nothing of the record.
            why = {"why": str(error)} if isinstance(error, PromptFailed) else {}
            log.warning("dead_letter", stage=error.stage, reason=error.reason, **why, **self._where(delivery))

    def oldest_timestamp_ms(self, ledgers: Iterable[Ledger]) -> int | None:
        """Return the smallest credible Kafka timestamp among the oldest unfinished records of these partitions."""
        stamps = [next(iter(ledger.unfinished.values())) for ledger in ledgers if ledger.unfinished]
        return min((stamp for stamp in stamps if stamp >= OLDEST_TIMESTAMP_MS), default=None)

    # ------------------------------------------------------------------ when partitions leave, or the worker stops

    def drop_waiting(self, ledgers: Iterable[Ledger]) -> None:
        """Let nothing more of these partitions start; cancel what only waits (slot, back-off, hold)."""
        leaving = set(ledgers)
        for ledger in leaving:
            ledger.leaving = True
            self.window.drop_waiting(ledger)
        self._cancel_idle(leaving)

    def _cancel_idle(self, ledgers: set[Ledger]) -> None:
        for delivery in self.started_of(ledgers):
            if not delivery.passage.busy and delivery.worker is not None:
                delivery.worker.cancel()

    def started_of(self, ledgers: set[Ledger]) -> list[Delivery]:
        """Return the started deliveries of these partitions."""
        return [delivery for delivery in self.window.started if delivery.ledger in ledgers]

    async def settle(self, ledgers: set[Ledger], timeout_s: float) -> list[Delivery]:
        """After `drop_waiting`: wait for what is busy, at most `timeout_s`; return what still runs then."""
        ends_at_s = monotonic_s() + timeout_s
        while True:
            self._cancel_idle(ledgers)  # a call that failed would now wait for its next attempt
            running = self.started_of(ledgers)
            left_s = ends_at_s - monotonic_s()
            if not running or left_s <= 0:
                return running
            workers = {delivery.worker for delivery in running if delivery.worker is not None}
            await asyncio.wait(workers, timeout=min(left_s, 0.05))

    def abandon(self) -> None:
        """Cancel whatever still runs: the drain is over. What has not begun by now belongs to partitions that left."""
        for delivery in self.window.started:
            if delivery.worker is not None:
                delivery.worker.cancel()


def _labels(outcome: Outcome) -> tuple[str, str, str]:
    """Return the labels outcome, tier, reason: all from closed sets."""
    if isinstance(outcome, Enriched):
        return "enriched", "model", ""
    if isinstance(outcome, Fallback):
        return "fallback", outcome.tier, outcome.error.reason
    if isinstance(outcome, Erased):
        return "erased", "", ""
    if isinstance(outcome, Deferred):
        return "deferred", "", outcome.error.reason
    return "rejected", "", outcome.error.reason
