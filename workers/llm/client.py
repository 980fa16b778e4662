"""THE MODEL PORT over HTTP: admission, one call, the table, and another attempt as the errors allow."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import pybreaker
import stamina
import stamina.instrumentation
import structlog
from aiohttp.abc import AbstractResolver
from pydantic import SecretStr

from workers.clock import monotonic_s
from workers.errors import BadAnswer, BadEnvelope, Busy, DeadlineOver, NoAnswer, Unavailable, WrongModel
from workers.llm.admission import Admission
from workers.llm.backoff import retry_s
from workers.llm.breaker import Breaker
from workers.llm.dialects import DIALECTS, Completion
from workers.llm.endpoint import Endpoint, Grant
from workers.llm.scrub import quote
from workers.llm.series import Series
from workers.llm.status import error_for, words_of
from workers.llm.transport import Target, Transport, target
from workers.ports import Ask, Frame
from workers.records import Passage, Prompt, Reply
from workers.settings.checks.secrets import fits_header
from workers.settings.secret_file import reread
from workers.settings.servers import ModelSettings

_log = structlog.get_logger("penstock.llm")

_OK = 200
_KEY_REFUSED = (401, 403)

_LEAST_RATIO = 0.1
"""No further attempt with less than this share of `timeout_s` left: it would fail, and the endpoint be blamed."""

_PROBE = "This is a connection test. Answer with a short example in the form that you were asked for."


_WARM_UP = Ask(name="warm_up", system="", schema=None, max_tokens=1, temperature=0.0)
_WARM_UP_PAUSE_S = 1.0


@dataclass(slots=True)
class _Course:
    """How far one `complete` has come: what the next attempt has to know about the ones before."""

    prompt: Prompt
    passage: Passage
    wait_s: float
    avoid: Endpoint | None = None
    last: bool = False
    failures: int = 0


class Client:
    """A `Model` (workers.ports) behind one or several URLs. For one event loop; `start` before, `close` after use."""

    def __init__(self, name: str, settings: ModelSettings, resolver: AbstractResolver | None = None) -> None:
        self.name = name
        self._settings = settings
        self._dialect = DIALECTS[settings.dialect]
        self._least_s = _LEAST_RATIO * settings.timeout_s
        self._key = settings.api_key
        self._transport = Transport(settings, resolver)
        self._series = Series(name)
        self._targets: list[Target] = []
        self._endpoints: list[Endpoint] = []
        for index, endpoint in enumerate(settings.all_endpoints()):
            to = target(endpoint.url, self._dialect.path)
            breaker = Breaker(settings.breaker, partial(self._on_change, to.label))
            self._targets.append(to)
            self._endpoints.append(Endpoint(index, to.label, endpoint.max_in_flight, breaker))
        self._admission = Admission(self._endpoints)

    async def start(self) -> None:
        """Make the connection pools; connects nowhere.

        Raises:
            Exit: 78, `ca_file` cannot be read.
        """
        await self._transport.start()
        self._series.watch(self._endpoints)
        # Retries are counted in our own series; stamina would log each one, a thousand a second in an outage.
        stamina.instrumentation.set_on_retry_hooks([])

    async def warm_up(self) -> None:
        """Ask each endpoint for one token, until it answers or `warm_up_s` are over: a cold server loads its model now.

        Without `warm_up_s` nothing is asked. Never fails, and counts nothing: what is wrong is met by the first record.
        """
        if self._settings.warm_up_s is not None:
            ends_at_s = monotonic_s() + self._settings.warm_up_s
            await asyncio.gather(*(self._warm_up(to, ends_at_s) for to in self._targets))

    async def _warm_up(self, to: Target, ends_at_s: float) -> None:
        body = self.frame(_WARM_UP).around(_PROBE).body
        began_s = monotonic_s()
        while True:
            try:
                self._read(to, *await self._transport.post(to, body, ends_at_s - monotonic_s()))
            except BadAnswer:
                pass  # one token is no answer, but the model is there
            except NoAnswer as error:
                pause_s = (error.retry_after_s if isinstance(error, Busy) else None) or _WARM_UP_PAUSE_S
                if not error.retryable or monotonic_s() + pause_s >= ends_at_s:
                    _log.warning("warm_up_failed", model=self.name, endpoint=to.label, reason=error.reason)
                    return
                await asyncio.sleep(pause_s)
                continue
            _log.info("warmed_up", model=self.name, endpoint=to.label, took_s=round(monotonic_s() - began_s, 3))
            return

    async def close(self) -> None:
        """Close all connections. Calls that still run or wait have to be cancelled first, by their owners."""
        self._admission.close()
        await self._transport.close()

    def frame(self, ask: Ask) -> Frame:
        """Return the body of a request; its hole takes the user's text as a JSON string, quotes included."""
        return self._dialect.frame(self._settings.model, ask)

    async def complete(self, prompt: Prompt, passage: Passage, *, wait_s: float) -> Reply:
        """Return what the model says to `prompt`. The contract is in `workers.ports.Model`.

        When the deadline of a record ends while it waits after a failed attempt, that failure is raised, not
        DeadlineOver: it says why there was no time.
        """
        course = _Course(prompt, passage, wait_s)
        try:
            return await self._attempt(course)
        except Unavailable as error:
            if not error.retryable:
                raise
            first = error
        return await self._again(course, first)

    async def probe(self, ask: Ask, text: str = _PROBE) -> Reply:
        """Ask the first endpoint once, with a prompt of our own unless given: no waiting, no retries, nothing counted.

        Raises:
            NoAnswer: as `complete` does; the text adds what the server said.
        """
        began_s = monotonic_s()
        to = self._targets[0]
        status, headers, body = await self._transport.post(
            to, self.frame(ask).around(text).body, self._settings.timeout_s
        )
        try:
            said = self._read(to, status, headers, body)
        except NoAnswer as error:
            secret = self._key.get_secret_value() if self._key is not None else None
            if status != _OK and (words := words_of(body, secret)):
                raise type(error)(f"{error}; it says: {words}") from error
            raise
        return _reply(said, to, monotonic_s() - began_s, attempts=1)

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

    async def _attempt(self, course: _Course) -> Reply:
        """Make one call, once there is a slot for it."""
        passage = course.passage
        grant = self._admission.take(course.avoid) or await self._admission.wait(
            passage, course.wait_s, avoid=course.avoid, last=course.last
        )
        began_s = monotonic_s()
        try:
            return await self._call(course, grant, began_s)
        except NoAnswer as error:
            error.endpoint = grant.endpoint.label
            if grant.held:
                course.avoid, course.last = grant.endpoint, grant.trial
                self._admission.settle(grant, error)
                self._series.failed(error.reason, monotonic_s() - began_s)
            raise
        finally:
            passage.busy = False
            self._admission.release(grant)  # not settled: cancelled, which says nothing about the endpoint

    async def _call(self, course: _Course, grant: Grant, began_s: float) -> Reply:
        passage, to = course.passage, self._targets[grant.endpoint.index]
        passage.begin(began_s)
        left_s = passage.left_s(began_s)
        if passage.attempts and left_s < self._least_s:
            self._admission.release(grant)
            raise DeadlineOver("the deadline ended before another attempt could be made")
        passage.attempts += 1
        passage.busy = True
        status, headers, body = await self._post(to, course.prompt.body, min(self._settings.timeout_s, left_s))
        reply = _reply(self._read(to, status, headers, body), to, monotonic_s() - began_s, attempts=passage.attempts)
        self._admission.settle(grant, None)
        self._series.answered(reply)
        return reply

    async def _post(self, to: Target, body: bytes, timeout_s: float) -> tuple[int, Mapping[str, str], bytes]:
        """Post once; once more when the key was refused and a newer one can be had (rotated while we ran)."""
        key, began_s = self._key, monotonic_s()
        answer = await self._transport.post(to, body, timeout_s)
        if answer[0] in _KEY_REFUSED and key is not None and self._renewed(key):
            left_s = timeout_s - (monotonic_s() - began_s)
            if left_s > 0:
                return await self._transport.post(to, body, left_s)
        return answer

    def _renewed(self, refused: SecretStr) -> bool:
        """Return whether the key is another than the refused one by now, reading its file again if need be."""
        if self._key is refused:
            fresh = reread(refused)
            if fresh is refused or not fits_header(fresh):
                return False
            self._key = fresh
            self._transport.authorize(fresh)
            _log.info("api_key_read_again", model=self.name)
        return True

    def _read(self, to: Target, status: int, headers: Mapping[str, str], body: bytes) -> Completion:
        """Return the completion, or raise what the answer is instead."""
        if status != _OK:
            raise error_for(status, headers, body, to.label)
        kind = headers.get("Content-Type", "")
        if kind.partition(";")[0].strip().lower() != "application/json":
            raise BadEnvelope(f"200 from {to.label} is {quote(kind) or 'untyped'}: a login page, or no model server")
        if headers.get("Content-Encoding", "identity").lower() != "identity":
            raise BadEnvelope(f"200 from {to.label} is compressed, and was asked not to be")
        try:
            said = self._dialect.read(body)
        except BadEnvelope as error:
            raise BadEnvelope(f"{to.label}: {error}") from error.__cause__
        if self._settings.strict_model and said.model != self._settings.model:
            raise WrongModel(f"{to.label} ran {quote(said.model) or 'a model without a name'}, and strict_model is set")
        return said

    async def _again(self, course: _Course, failed_by: Unavailable) -> Reply:
        """Go on after a first failure. stamina is entered only now: without a failure it would cost 39 us a record."""
        begun = False
        async for attempt in stamina.retry_context(
            on=lambda exc: self._pause_s(course, exc), attempts=None, timeout=None
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

    def _pause_s(self, course: _Course, error: Exception) -> float | bool:
        """Return the pause before the next attempt, False when there must be none (stamina's back-off hook).

        429 and 503 do not count as attempts and need no pause: the endpoint cools down, and the record waits in line.
        """
        if not isinstance(error, Unavailable) or not error.retryable:
            return False
        pause_s = 0.0
        if not isinstance(error, Busy):
            course.failures += 1
            if course.failures >= self._settings.max_attempts:
                return False
            if not self._other_admits(course.avoid):
                pause_s = retry_s(course.failures)
        if course.passage.left_s(monotonic_s()) - pause_s < self._least_s:
            return False
        self._series.retried(error.reason)
        return pause_s

    def _other_admits(self, than: Endpoint | None) -> bool:
        now_s = monotonic_s()
        return any(endpoint is not than and endpoint.admits(now_s) for endpoint in self._endpoints)

    def _on_change(self, endpoint: str, old: str, new: str, reason: str) -> None:
        """Count and log a breaker's change; not each failed trial, which comes every second of an outage."""
        if old == pybreaker.STATE_CLOSED:
            self._series.opened(endpoint, reason)
            why = next(one.breaker.why for one in self._endpoints if one.label == endpoint)
            _log.warning("breaker_opened", model=self.name, endpoint=endpoint, reason=reason, why=why)
        elif new == pybreaker.STATE_CLOSED:
            _log.info("breaker_closed", model=self.name, endpoint=endpoint)


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
    )
