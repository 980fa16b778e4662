"""One circuit breaker per endpoint: pybreaker keeps state and listeners, the rest is ours.

With asyncio pybreaker's own `call` counts every coroutine as a success, lets all callers through when half-open and
measures on the wall clock. So it is only told to open, half-open and close; admission, the one trial, the clock
(monotonic, passed in) and the decision when to trip are here. Cancellation is neutral.
"""

import math
from collections.abc import Callable

import pybreaker

from workers.errors import (
    BadAnswer,
    Busy,
    ConnectFailed,
    ConnectionLost,
    Misconfigured,
    PenstockError,
    QuotaSpent,
    TimedOut,
)
from workers.llm.window import Window
from workers.settings.servers import Breaker as BreakerSettings

_NEVER = 1e9  # pybreaker's own reset and counter are not used

IN_A_ROW = 10
"""So many failures in a row open it, or `min_calls` x `failure_ratio`, the fewest by which the ratio could, if more.

By chance once in 150 days at 764 calls/s of which a tenth fail; five in a row would be once in 2.5 minutes.
"""

DOUBT = 3
"""After so many failures without an answer, no more than so many calls at a time: until one is answered."""

OnChange = Callable[[str, str, str], None]
"""Called with the old state, the new state and the reason of a change."""


class Breaker:
    """Closed, open or half-open.

    It opens at >= `failure_ratio` failures of >= `min_calls` calls within `window_s` (`_ratio`), after
    `enough_in_a_row` failures in a row (which its endpoint counts, `streak`: a window full of answers would hide an
    outage for seconds), after `connect_failures` connection failures in a row, and at once for a fault of configuration
    or a spent quota. After `reset_timeout_s` one call is let in: the trial, which closes or reopens it.

    `epoch` grows with each change: a call that began under another epoch says nothing about the state now. While it is
    not closed, `why` is the text of the error that opened it, and `misconfigured` whether that was a fault of
    configuration.
    """

    def __init__(self, settings: BreakerSettings, on_change: OnChange) -> None:
        self._settings = settings
        self._on_change = on_change
        self._window = Window(settings.window_s, enough=settings.min_calls)
        self._circuit = pybreaker.CircuitBreaker(
            fail_max=int(_NEVER), reset_timeout=_NEVER, listeners=[_Listener(self)], throw_new_error_on_trip=False
        )
        self._reopens_at_s = 0.0
        self._connect_failures = 0
        self._unanswered = 0
        self._trial_runs = False
        self._reason = ""
        self.misconfigured = False
        self.why = ""
        self.closed = True
        self.epoch = 0
        self.last_answer_s = -math.inf

    @property
    def state(self) -> str:
        """`closed`, `half-open` or `open`."""
        return self._circuit.current_state

    @property
    def enough_in_a_row(self) -> int:
        """So many failures in a row open it."""
        return max(IN_A_ROW, math.ceil(self._settings.min_calls * self._settings.failure_ratio))

    @property
    def in_doubt(self) -> bool:
        """Whether the last calls to end have all failed: it may be an outage, or chance."""
        return self._unanswered >= DOUBT

    def admits(self, now_s: float) -> bool:
        """Return whether a call may be made now: any when closed, one when the pause after opening is over."""
        return self.closed or (not self._trial_runs and now_s >= self._reopens_at_s)

    def admits_from_s(self) -> float:
        """Return the moment from which it admits, infinity when only the end of the trial can tell."""
        if self.closed:
            return -math.inf
        return math.inf if self._trial_runs else self._reopens_at_s

    def enter(self) -> bool:
        """Begin a call that `admits` allowed; return whether it is the trial."""
        if self.closed:
            return False
        if self.state == pybreaker.STATE_OPEN:
            self._reason = "reset"
            self._circuit.half_open()
        self._trial_runs = True
        return True

    def abandon(self, epoch: int, *, trial: bool) -> None:
        """End a call without a verdict (cancelled): the next one may be the trial."""
        if trial and epoch == self.epoch:
            self._trial_runs = False

    def record(
        self, epoch: int, error: PenstockError | None, now_s: float, *, in_a_row: bool = False, running: int = 0
    ) -> None:
        """End a call with its error, None for an answer.

        `in_a_row`: with it enough have failed in a row. `running`: so many other calls have not ended yet.
        """
        answered = error is None or isinstance(error, BadAnswer)
        if answered:
            self.last_answer_s = now_s
        if epoch != self.epoch:
            return
        failed = error is not None and error.blames_endpoint
        if failed or answered:  # 429 and refusals of one request say neither that it works well nor that it is broken
            self._window.add(now_s, failed=failed, answered=answered)
        if error is not None and failed:
            self._count(error, now_s, in_a_row=in_a_row, running=running)
            return
        self._connect_failures = self._unanswered = 0
        if not self.closed:
            self._close()

    def rate_per_s(self) -> float | None:
        """Return the last measured rate of answers; what happens while it is open does not change it."""
        return self._window.rate_per_s()

    def _count(self, error: PenstockError, now_s: float, *, in_a_row: bool, running: int) -> None:
        refused = isinstance(error, ConnectFailed | ConnectionLost)
        self._connect_failures = self._connect_failures + 1 if refused else 0
        self._unanswered += not isinstance(error, Busy)  # which has a cool-down, and fewer slots
        if not self.closed or isinstance(error, Misconfigured | QuotaSpent):
            self._open(error, error.reason, now_s)
        elif self._connect_failures >= self._settings.connect_failures:
            self._open(error, "connect_failures", now_s)
        elif in_a_row:
            self._open(error, "failures_in_a_row", now_s)
        elif (
            self._window.calls >= self._settings.min_calls
            and self._ratio(error, running) >= self._settings.failure_ratio
        ):
            self._open(error, "failure_ratio", now_s)

    def _ratio(self, error: PenstockError, running: int) -> float:
        """Return the share of calls that failed. What still runs has not, where failures may end before answers do.

        Of 256 calls begun together the 26 that fail at once would be all of those that have ended. Nothing ends later
        than a timeout: beside one, what still runs says nothing.
        """
        unknown = 0 if isinstance(error, TimedOut) else running
        return self._window.failures / (self._window.calls + unknown)

    def _open(self, error: PenstockError, reason: str, now_s: float) -> None:
        self._reopens_at_s = now_s + self._settings.reset_timeout_s
        # Not the error itself: its traceback would keep a record's frames alive.
        self.misconfigured, self.why = isinstance(error, Misconfigured), str(error)
        self._reason = reason
        self._circuit.open()

    def _close(self) -> None:
        self.misconfigured, self.why = False, ""
        self._window.forget()
        self._reason = "recovered"
        self._circuit.close()

    def changed(self, old: str, new: str) -> None:
        """Take note of a change of state; called by pybreaker's listener only."""
        self.closed = new == pybreaker.STATE_CLOSED
        self._trial_runs = False
        self._connect_failures = self._unanswered = 0
        self.epoch += 1
        self._on_change(old, new, self._reason)


class _Listener(pybreaker.CircuitBreakerListener):
    """Forwards every change of state to its owner."""

    def __init__(self, owner: Breaker) -> None:
        self._owner = owner

    def state_change(
        self,
        cb: pybreaker.CircuitBreaker,  # noqa: ARG002 - pybreaker's signature
        old_state: pybreaker.CircuitBreakerState | None,
        new_state: pybreaker.CircuitBreakerState,
    ) -> None:
        if old_state is not None:
            self._owner.changed(old_state.name, new_state.name)
