"""THE MODEL PORT over HTTP: admission, one call, the table, and another attempt as the errors allow."""

import asyncio
from functools import partial

import pybreaker
import stamina
import stamina.instrumentation
import structlog
from aiohttp.abc import AbstractResolver

from workers.clock import monotonic_s
from workers.errors import BadAnswer, DeadlineOver, NoAnswer, Unavailable
from workers.llm.admission import Admission
from workers.llm.auto_limit import AutoLimit
from workers.llm.breaker import Breaker
from workers.llm.dialects import Card, Completion
from workers.llm.endpoint import Endpoint, Grant
from workers.llm.goodput import Reason, State
from workers.llm.retries import Course, Retries
from workers.llm.series import Series
from workers.llm.server import Server
from workers.llm.tally import Tally
from workers.llm.transport import Target
from workers.llm.warm_up import IDLE_S, PROBE, warm_up
from workers.ports import Ask, Frame
from workers.records import Passage, Prompt, Reply
from workers.settings.servers import ModelSettings

_log = structlog.get_logger("penstock.llm")


class Client:
    """A `Model` (workers.ports) behind one or several URLs. For one event loop; `start` before, `close` after use."""

    def __init__(self, name: str, settings: ModelSettings, resolver: AbstractResolver | None = None) -> None:
        self.name = name
        self._settings = settings
        self._server = Server(name, settings, resolver)
        self._series = Series(name)
        self._targets: list[Target] = []
        self._endpoints: list[Endpoint] = []
        for index, endpoint in enumerate(settings.all_endpoints()):
            to = self._server.target(endpoint.url)
            breaker = Breaker(settings.breaker, partial(self._on_change, to.label))
            self._targets.append(to)
            auto = None
            if endpoint.max_in_flight == "auto":
                auto = AutoLimit(
                    endpoint.most_slots, endpoint.latency_ceiling_s, partial(self._on_slots_changed, to.label)
                )
            self._endpoints.append(Endpoint(index, to.label, endpoint.most_slots, breaker, auto=auto))
        self._admission = Admission(self._endpoints)
        self._retries = Retries(settings, self._admission.line, self._series)
        self._waking: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Make the connection pools; connects nowhere.

        Raises:
            Exit: 78, `ca_file` cannot be read.
        """
        await self._server.start()
        self._series.watch(self._endpoints)
        # Retries are counted in our own series; stamina would log each one, a thousand a second in an outage.
        stamina.instrumentation.set_on_retry_hooks([])

    async def warm_up(self) -> None:
        """Ask each endpoint for one token, until it answers or `warm_up_s` are over: a cold server loads its model now.

        Without `warm_up_s` nothing is asked. Never fails, and counts nothing: what is wrong is met by the first record.
        """
        if self._settings.warm_up_s is not None:
            ends_at_s = monotonic_s() + self._settings.warm_up_s
            warm = (warm_up(self.name, self._server, to, ends_at_s, insist=True) for to in self._targets)
            await asyncio.gather(*warm)
            for endpoint in self._endpoints:
                endpoint.last_used_s = monotonic_s()

    def _wake(self, warm_up_s: float) -> None:
        """Warm up the endpoints that were idle, while what comes waits in line: its deadline does not run there."""
        now_s = monotonic_s()
        for endpoint in self._endpoints:
            if endpoint.sleeps(now_s, IDLE_S):
                endpoint.waking = True
                to = self._targets[endpoint.index]
                task = asyncio.create_task(warm_up(self.name, self._server, to, now_s + warm_up_s, insist=False))
                self._waking.add(task)
                task.add_done_callback(self._waking.discard)
                task.add_done_callback(lambda _, endpoint=endpoint: self._admission.woken(endpoint))  # type: ignore[misc]

    async def close(self) -> None:
        """Close all connections. Calls that still run or wait have to be cancelled first, by their owners."""
        for task in self._waking:
            task.cancel()
        await asyncio.gather(*self._waking, return_exceptions=True)
        self._admission.close()
        await self._server.close()

    def frame(self, ask: Ask) -> Frame:
        """Return the body of a request; its hole takes the user's text as a JSON string, quotes included."""
        return self._server.frame(ask)

    async def complete(self, prompt: Prompt, passage: Passage, *, wait_s: float) -> Reply:
        """Return what the model says to `prompt`. The contract is in `workers.ports.Model`.

        When the deadline of a record ends while it waits after a failed attempt, that failure is raised, not
        DeadlineOver: it says why there was no time.
        """
        course = Course(prompt, passage, wait_s, failures=passage.unretried)
        if course.failures:
            await self._retries.afford(passage)
        try:
            return await self._attempt(course)
        except Unavailable as error:
            if not error.retryable:
                raise
            first = error
        return await self._again(course, first)

    async def probe(self, ask: Ask, text: str = PROBE) -> Reply:
        """Ask the first endpoint once, with a prompt of our own unless given: no waiting, no retries, nothing counted.

        Raises:
            NoAnswer: as `complete` does; the text adds what the server said.
        """
        to, began_s = self._targets[0], monotonic_s()
        said = await self._server.probe(to, self.frame(ask).around(text).body)
        return _reply(said, to, monotonic_s() - began_s, attempts=1)

    async def card(self) -> Card:
        """Return what the first endpoint says of itself. Never fails: what does not answer says nothing."""
        return await self._server.card(self._targets[0])

    @property
    def first_endpoint(self) -> str:
        """The label of the endpoint that `probe` asks."""
        return self._targets[0].label

    def answered_since(self, at_s: float) -> bool:
        """Return whether any call has succeeded since `at_s` (monotonic)."""
        return any(endpoint.breaker.last_answer_s >= at_s for endpoint in self._endpoints)

    def pace_per_s(self) -> float:
        """Return the rate of answers over all endpoints, as last measured; before that slots / timeout_s."""
        return sum(
            endpoint.breaker.rate_per_s() or endpoint.slots / self._settings.timeout_s for endpoint in self._endpoints
        )

    def held_reason(self) -> str | None:
        """Return why a person must act before this model answers, None while there is no such reason."""
        if all(endpoint.breaker.misconfigured for endpoint in self._endpoints):
            return f"misconfigured: {self._endpoints[0].breaker.why}"
        return None

    async def _attempt(self, course: Course) -> Reply:
        """Make one call, once there is a slot for it."""
        passage = course.passage
        if self._settings.warm_up_s is not None:
            self._wake(self._settings.warm_up_s)
        grant = self._admission.take(course.failed) or await self._admission.wait(
            passage, course.wait_s, failed=course.failed, last=course.last
        )
        to, began_s = self._targets[grant.endpoint.index], monotonic_s()
        try:
            timeout_s = self._begin(course, grant, began_s)
            said = await self._server.ask(to, course.prompt.body, timeout_s, records=course.prompt.records)
        except NoAnswer as error:
            error.endpoint = to.label
            if grant.held:
                course.failed, course.last = course.failed | {grant.endpoint}, grant.trial
                self._admission.settle(grant, error)
                self._series.failed(error, monotonic_s() - began_s)
            raise
        else:
            reply = _reply(said, to, monotonic_s() - began_s, attempts=passage.attempts)
            self._admission.settle(grant, None)
            self._series.answered(reply)
            return reply
        finally:
            passage.free()
            self._admission.release(grant)  # not settled: cancelled, which says nothing about the endpoint

    def _begin(self, course: Course, grant: Grant, began_s: float) -> float:
        """Start the record's deadline and count the call; return the seconds that it may take.

        Raises:
            DeadlineOver: too few are left; the slot was given back.
        """
        passage = course.passage
        begun = passage.ends_at_s is not None
        passage.begin(began_s)
        left_s = passage.left_s(began_s)
        if begun and left_s < self._retries.least_s:
            self._admission.release(grant)
            raise DeadlineOver("the deadline ended before another attempt could be made")
        if not course.calls and not course.failures:
            self._retries.budget.earn()
        course.calls += 1
        passage.attempts += 1
        passage.occupy()
        return min(self._settings.timeout_s, left_s)

    async def _again(self, course: Course, failed_by: Unavailable) -> Reply:
        """Go on after a first failure. stamina is entered only now: without a failure it would cost 39 us a record."""
        begun = False
        async for attempt in stamina.retry_context(
            on=lambda exc: self._retries.pause_s(course, exc), attempts=None, timeout=None
        ):
            with attempt:
                if not begun:
                    begun = True
                    raise failed_by  # the attempt that was made outside
                try:
                    return await self._attempt(course)
                except DeadlineOver:
                    # Why there was no time left says more, and `hold` must know that it was the model.
                    raise failed_by from failed_by.__cause__
                except Unavailable as error:
                    failed_by = error if error.retryable else failed_by
                    raise
        raise AssertionError("stamina ends by returning or raising")

    def _on_change(self, endpoint: str, old: str, new: str, reason: str) -> None:
        """Count and log a breaker's change; not each failed trial, which comes every second of an outage."""
        if old == pybreaker.STATE_CLOSED:
            self._series.opened(endpoint, reason)
            why = next(one.breaker.why for one in self._endpoints if one.label == endpoint)
            _log.warning("breaker_opened", model=self.name, endpoint=endpoint, reason=reason, why=why)
        elif new == pybreaker.STATE_CLOSED:
            _log.info("breaker_closed", model=self.name, endpoint=endpoint)

    def _on_slots_changed(self, endpoint: str, reason: Reason, before: State, after: State, measured: Tally) -> None:
        """Count and log a change of the slots that `auto` keeps to, with what it was decided by."""
        self._series.slots_changed(endpoint, reason)
        _log.info(
            "slots_changed",
            model=self.name,
            endpoint=endpoint,
            reason=reason,
            slots=after.kept,
            before=before.kept,
            measured_slots=measured.limit,
            per_s=round(measured.per_s, 1),
            mean_s=round(measured.mean_s, 3) if measured.calls else None,
        )


def _reply(said: Completion, to: Target, latency_s: float, *, attempts: int) -> Reply:
    return Reply(
        said.text,
        said.model,
        to.label,
        said.finish_reason,
        said.input_tokens,
        said.output_tokens,
        latency_s,
        attempts,
        members=tuple(_member(one, to, latency_s) for one in said.members) if said.members else (),
    )


def _member(said: Completion | BadAnswer, to: Target, latency_s: float) -> Reply | BadAnswer:
    """Return what one record of a batch got. The attempt is the batch's."""
    if isinstance(said, BadAnswer):
        said.endpoint = to.label
        return said
    return _reply(said, to, latency_s, attempts=0)
