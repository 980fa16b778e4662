"""The model's metrics, with kept children: finding a child by its labels costs four times as much as using it."""

from collections.abc import Iterable
from functools import partial

import pybreaker

from workers import metrics
from workers.errors import BadAnswer, NoAnswer
from workers.llm.auto_limit import AutoLimit
from workers.llm.endpoint import Endpoint
from workers.records import Reply

_STATE_VALUE = {pybreaker.STATE_CLOSED: 0, pybreaker.STATE_HALF_OPEN: 1, pybreaker.STATE_OPEN: 2}


class Series:
    """Counts calls as they end; slots, running calls and breakers are read when somebody scrapes."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._calls = metrics.CALLS.labels(model, "ok")
        self._call_s = metrics.CALL_S.labels(model, "ok")
        self._input_tokens = metrics.TOKENS.labels(model, "input")
        self._output_tokens = metrics.TOKENS.labels(model, "output")

    def watch(self, endpoints: Iterable[Endpoint]) -> None:
        """Export the state of the endpoints."""
        for endpoint in endpoints:
            labels = (self._model, endpoint.label)
            metrics.CALLS_RUNNING.labels(*labels).set_function(partial(_running, endpoint))
            metrics.SLOTS.labels(*labels).set_function(partial(_slots, endpoint))
            metrics.BREAKER_STATE.labels(*labels).set_function(partial(_state, endpoint))
            if endpoint.auto is not None:
                metrics.SLOTS_FOUND.labels(*labels).set_function(partial(_found, endpoint.auto))

    def answered(self, reply: Reply) -> None:
        """Count a call that brought a completion."""
        self._calls.inc()
        self._call_s.observe(reply.latency_s)
        self._used(reply)

    def failed(self, error: NoAnswer, lasted_s: float) -> None:
        """Count a call that did not."""
        metrics.CALLS.labels(self._model, error.reason).inc()
        metrics.CALL_S.labels(self._model, error.reason).observe(lasted_s)
        if isinstance(error, BadAnswer):
            self._used(error)

    def _used(self, said: Reply | BadAnswer) -> None:
        if said.input_tokens or said.output_tokens:
            self._input_tokens.inc(said.input_tokens)
            self._output_tokens.inc(said.output_tokens)

    def retried(self, reason: str) -> None:
        """Count an attempt after the first."""
        metrics.RETRIES.labels(self._model, reason).inc()

    def retry_refused(self) -> None:
        """Count an attempt that the retry budget did not allow."""
        metrics.RETRIES_REFUSED.labels(self._model).inc()

    def slots_changed(self, endpoint: str, reason: str) -> None:
        """Count a change of the slots that `auto` keeps to."""
        metrics.SLOTS_CHANGED.labels(self._model, endpoint, reason).inc()

    def opened(self, endpoint: str, reason: str) -> None:
        """Count a breaker that opened."""
        metrics.BREAKER_OPENED.labels(self._model, endpoint, reason).inc()


def _running(endpoint: Endpoint) -> float:
    return endpoint.in_use


def _slots(endpoint: Endpoint) -> float:
    return endpoint.limit


def _found(auto: AutoLimit) -> float:
    return auto.state.kept


def _state(endpoint: Endpoint) -> float:
    return _STATE_VALUE[endpoint.breaker.state]
