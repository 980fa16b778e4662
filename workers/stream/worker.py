"""The worker: starts everything in order, waits for a reason to stop, and stops in an order that loses nothing."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from workers import garbage, metrics
from workers.errors import EX_CONFIG, EX_SOFTWARE, Exit
from workers.llm import Client
from workers.log import get_logger
from workers.loop_lag import watch_loop_lag
from workers.probes import Probes, set_build_info
from workers.settings.model import Settings
from workers.settings.slots import window_of
from workers.stream import app as faust_app
from workers.stream import client_tasks, clients, cluster
from workers.stream.assignment import Assignment
from workers.stream.commits import Commits
from workers.stream.intake import Intake
from workers.stream.lag import Lag
from workers.stream.lane import Lane
from workers.stream.outgoing import Outgoings
from workers.stream.watchdog import Watchdog
from workers.stream.window import Window
from workers.task import Task

CLOSE_S = 2.5
"""What each part gets to close, all at the same time; with the last commit (2 s) the end comes within drain_s + 5 s."""

EXIT_AT_ONCE = 128 + signal.SIGTERM

log = get_logger(__name__)


class Worker:
    """One process of a deployment. `run` returns its exit code."""

    def __init__(self, settings: Settings, tasks: Sequence[Task], models: Sequence[Client]) -> None:
        self._settings = settings
        self._tasks = tasks
        self._models = models
        self._lanes: dict[str, Lane] = {}
        self._outgoings: Outgoings | None = None
        self._assignment: Assignment | None = None
        self._lag: Lag | None = None
        self._app: faust_app.App | None = None
        self._terminate = asyncio.Event()
        self._signals = 0
        self._failed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._failed.add_done_callback(lambda failed: failed.exception())  # it may also come too late to be awaited
        self._probes = Probes(settings.worker.http.host, settings.worker.http.port, self)

    # ------------------------------------------------------------------ health, for the probes

    def reasons_not_ready(self) -> list[str]:
        """Return every reason why this replica does not do its work now."""
        if self._terminate.is_set():
            return ["draining"]
        if self._assignment is None or not self._assignment.settled:
            return ["waiting for the group's assignment"]
        reasons = [reason for lane in self._lanes.values() for reason in lane.reasons_not_ready()]
        if self._outgoings is not None and self._outgoings.pending_s() > self._settings.kafka.send_timeout_s:
            reasons.append(self._outgoings.oldest())
        if self._lag is not None and self._lag.silent_s() > self._settings.kafka.send_timeout_s:
            reasons.append(f"no broker has answered for {self._lag.silent_s():.0f} s")
        return reasons

    def stuck(self) -> str | None:
        """Return why only a restart can help: never Kafka, never the model."""
        return f"failed: {self._failed.exception()}" if self._failed.done() else None

    # ------------------------------------------------------------------ life

    async def run(self) -> int:
        """Work until SIGTERM or SIGINT (0), or until something ends it (its code). A second signal ends it at once."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)
        terminated: asyncio.Future[Any] = asyncio.ensure_future(self._terminate.wait())
        starting: asyncio.Future[Any] = asyncio.ensure_future(self._start())
        loop_lag = asyncio.ensure_future(watch_loop_lag())
        loop_lag.add_done_callback(self._part_failed)
        code = 0
        try:
            await asyncio.wait([starting, terminated, self._failed], return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                await starting
                log.info("started", tasks=[task.name for task in self._tasks], http_port=self._probes.port)
            await asyncio.wait([terminated, self._failed], return_when=asyncio.FIRST_COMPLETED)
            if self._failed.done():
                await self._failed
        except Exit as error:
            log.error("stopping", reason=str(error), code=error.code)  # noqa: TRY400 - the text is for a person
            code = error.code
        except Exception:
            log.exception("stopping", reason="an internal error", code=EX_SOFTWARE)
            code = EX_SOFTWARE
        finally:
            self._terminate.set()
            loop_lag.cancel()
            await _cancelled(starting)
            await self._stop()
        log.info("stopped", code=code)
        return code

    def _signalled(self) -> None:
        self._signals += 1
        if self._signals > 1:
            os._exit(EXIT_AT_ONCE)
        log.info("draining", drain_s=self._settings.worker.drain_s)
        self._terminate.set()

    def _fail(self, error: BaseException) -> None:
        if not self._failed.done():
            self._failed.set_exception(error)

    def _part_failed(self, failure: "asyncio.Future[None]") -> None:
        if not failure.cancelled() and (error := failure.exception()) is not None:
            self._fail(error)

    async def _start(self) -> None:
        """Bring up probes, cluster view, models, producer, app, and join the group last.

        Raises:
            Exit: with the code and a sentence for a person.
        """
        set_build_info()
        await self._probes.start()
        kafka = self._settings.kafka
        inputs = [topic for task in self._tasks for topic in task.settings.input]
        outputs = [name for task in self._tasks for topics in task.outputs.values() for name in topics.names()]
        found = await cluster.look_at(kafka, inputs, outputs)
        await cluster.settle_start(kafka, inputs, found.partitions)
        for model in self._models:
            await model.start()
        await asyncio.gather(*(model.warm_up() for model in self._models))
        self._outgoings = outgoings = Outgoings(kafka, found.partitions, found.max_bytes)
        await clients.until_reachable(kafka, outgoings.start)
        metrics.SENDS_PENDING.set_function(lambda: outgoings.pending)
        self._app = app = faust_app.build("penstock")
        consumer = clients.consumer(self._settings)
        commits = Commits(consumer, found.cluster_id)
        feeds = {}
        for task in self._tasks:
            lane = self._lanes[task.name] = Lane(task, self._window(task), outgoings, self._fail)
            feed = faust_app.add_agent(app, lane, self._fail)
            feeds.update(dict.fromkeys(task.settings.input, feed))
            feeds.update(dict.fromkeys(task.retry_topics(), replace(feed, delay_s=task.settings.retry_delay_s)))
        self._assignment = assignment = Assignment(self._settings, consumer, feeds, commits)
        assignment.failure.add_done_callback(self._part_failed)
        intake = Intake(consumer, assignment)
        self._lag = Lag(consumer, assignment, intake)
        watchdog = Watchdog(
            assignment,
            self._lag,
            partial(cluster.answers, kafka, inputs, found.partitions),
            clients.request_timeout_s(self._settings),
        )
        faust_app.add_intake_service(
            app,
            {
                "pump": intake.pump,
                "commits": lambda: commits.run(kafka.commit_interval_s, lambda: list(assignment.ledgers.values())),
                "lag": self._lag.run,
                "watchdog": watchdog.run,
                "garbage": garbage.collect,
                "client tasks": lambda: client_tasks.watch(partial(client_tasks.background_tasks, consumer, outgoings)),
            },
            self._fail,
        )
        app.finalize()
        await app.start()
        app.flow_control.resume()
        garbage.spare_what_is_there()  # before the group counts on this loop
        consumer.subscribe(list(feeds), listener=assignment)
        await self._join(consumer)

    async def _join(self, consumer: AIOKafkaConsumer) -> None:
        kafka = self._settings.kafka
        try:
            await clients.until_reachable(kafka, consumer.start)
        except KafkaError as exc:
            # A plain KafkaError is how aiokafka gives what it has no name for: of joins, FENCED_INSTANCE_ID (KIP-345).
            if type(exc) is not KafkaError or kafka.group_instance_id is None:
                raise
            raise Exit(
                EX_CONFIG, f"the group refused this member ({exc}): is kafka.group_instance_id unique for each replica?"
            ) from exc

    def _window(self, task: Task) -> Window:
        return Window(
            max_in_flight=window_of(task.settings, self._settings.models),
            max_bytes=self._settings.worker.max_in_flight_bytes // len(self._tasks),
            max_span=task.settings.max_span,
        )

    async def _stop(self) -> None:
        """No more fetches, drain, last commit, and then everything else at once; each step bounded, none skipped."""
        parts: dict[str, Callable[[], Awaitable[object]]] = {"probes": self._probes.close}
        parts |= {f"model {model.name}": model.close for model in self._models}
        if self._outgoings is not None:
            parts["producer"] = self._outgoings.close
        if self._app is not None:
            parts["app"] = self._app.stop
        if self._assignment is not None:
            parts["consumer"] = self._assignment.leave
            self._assignment.stop()
            left = await self._assignment.settle(self._settings.worker.drain_s)
            await self._assignment.last_commit()
            for lane in self._lanes.values():
                lane.abandon()
            log.info("drained", left=left)
        await asyncio.gather(*(_closed(part, close) for part, close in parts.items()))


async def _closed(part: str, close: Callable[[], Awaitable[object]]) -> None:
    """Close a part in bounded time: one that hangs, fails or swallows its cancellation must not hold up the others."""
    closing = asyncio.ensure_future(close())
    done, _ = await asyncio.wait({closing}, timeout=CLOSE_S)
    if not done:
        closing.cancel()
        log.warning("left_behind", part=part)
    elif closing.cancelled():  # aiokafka awaits tasks that it has cancelled, and so ends as one when a broker is away
        log.warning("stop_failed", part=part, error="cancelled")
    elif (error := closing.exception()) is not None:
        log.warning("stop_failed", part=part, error=type(error).__name__)


async def _cancelled(task: "asyncio.Future[object]") -> None:
    """Cancel, and wait for the end in bounded time (mode swallows cancellations)."""
    task.cancel()
    done, _ = await asyncio.wait({task}, timeout=CLOSE_S)
    if done and not task.cancelled():
        task.exception()  # looked at: it was reported, or does not matter any more
