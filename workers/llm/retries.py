"""Whether a call that failed is made again, and after which pause."""

import asyncio
from dataclasses import dataclass

from workers.clock import monotonic_s
from workers.errors import Busy, Stale, Unavailable
from workers.llm.backoff import retry_s
from workers.llm.endpoint import Endpoint
from workers.llm.line import Line
from workers.llm.series import Series
from workers.records import Passage, Prompt
from workers.retry_budget import RetryBudget
from workers.settings.servers import ModelSettings

_LEAST_RATIO = 0.1
"""No further attempt with less than this share of `timeout_s` left: it would fail, and the endpoint be blamed."""


@dataclass(slots=True)
class Course:
    """How far one `complete` has come: what the next attempt has to know about the ones before."""

    prompt: Prompt
    passage: Passage
    wait_s: float
    failed: frozenset[Endpoint] = frozenset()
    last: bool = False
    failures: int = 0
    calls: int = 0


class Retries:
    """Of one model: at most a tenth of the first calls, whatever fails."""

    def __init__(self, settings: ModelSettings, line: Line, series: Series) -> None:
        self.least_s = _LEAST_RATIO * settings.timeout_s
        self.budget = RetryBudget()
        self._max_attempts = settings.max_attempts
        self._line = line
        self._series = series

    def pause_s(self, course: Course, error: Exception) -> float | bool:
        """Return the pause before the next attempt, False when there must be none (stamina's back-off hook).

        429 and 503 do not count as attempts and need no pause: the endpoint cools down, and the record waits in line.
        So they cost nothing: however many records are sent again, the cool-down and the halved slots pace them.
        """
        if not isinstance(error, Unavailable) or not error.retryable:
            return False
        pause_s, repeats = 0.0, False
        now_s = monotonic_s()
        if not isinstance(error, Busy):
            course.failures += 1
            if course.failures >= self._max_attempts:
                return False
            repeats = not self._line.another_works(course.failed, now_s)
            if repeats:
                pause_s = retry_s(course.failures)
        if course.passage.left_s(now_s) - pause_s < self.least_s:
            return False
        if repeats and not self._affordable():
            error.unretried = course.failures
            self._series.retry_refused()
            return False
        self._series.retried(error.reason)
        return pause_s

    def _affordable(self) -> bool:
        """Return whether a call may be repeated, and pay for it.

        Not asked for a call that may go to an endpoint that has not failed the record and works: an outage of one of
        two sends nobody down the ladder, and costs a record one call for each further endpoint. Free is what waits for
        a breaker, too: that lets in one trial at a time.
        """
        return not any(endpoint.breaker.closed for endpoint in self._line.endpoints) or self.budget.spend()

    async def afford(self, passage: Passage) -> None:
        """Wait until the call of a record that holds may be repeated. Its deadline does not run.

        Each pause earns as a first call does, or all that hold could wait for one another: so each of them is asked
        once in 20 s at the least.

        Raises:
            Stale: it grew too old meanwhile.
        """
        nth = 0
        while not self._affordable():
            nth += 1
            pause_s = retry_s(nth)
            if passage.stale_at_s is not None:
                pause_s = min(pause_s, passage.stale_at_s - monotonic_s())
                if pause_s <= 0:
                    raise Stale("older than max_age_s before it could be asked for again")
            await asyncio.sleep(pause_s)
            self.budget.earn()
