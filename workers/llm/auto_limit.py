"""`max_in_flight: auto` of one endpoint: cuts rounds by the wall clock, sums up what they measure, asks `goodput`."""

import math
from collections.abc import Callable

from workers.clock import wall_s
from workers.llm import goodput
from workers.llm.goodput import Reason, State, Tally

COUNTED = 0.6
"""Of a round: calls that begin later run for the most part under the limit of the next."""

IN_USE_RATIO = 0.9
"""Slots in use that are a backlog, and the share of the calls that must have seen one."""

OnDecision = Callable[[Reason, State, State, Tally], None]
"""Called with the reason, the state before and after, and what was measured."""


class _Cohort:
    """The calls that began in one round."""

    __slots__ = ("answers", "calls", "counted_to_s", "from_s", "full", "lasted_s", "limit", "over", "squares_s2")

    def __init__(self, from_s: float, counted_to_s: float, limit: int) -> None:
        self.from_s, self.counted_to_s, self.limit = from_s, counted_to_s, limit
        self.calls = self.answers = self.over = self.full = 0
        self.lasted_s = self.squares_s2 = 0.0

    def tally(self) -> Tally:
        return Tally(
            limit=self.limit,
            calls=self.calls,
            answers=self.answers,
            lasted_s=self.lasted_s,
            squares_s2=self.squares_s2,
            over=self.over,
        )


class AutoLimit:
    """Collects a round and says which limit to have. Times are monotonic; `wall_s` only says where rounds begin.

    A call counts for the round in which it began, and rounds are judged one round later: what has not ended by then
    took more than 1.4 rounds.
    """

    def __init__(
        self,
        most: int,
        latency_ceiling_s: float | None = None,
        on_decision: OnDecision = lambda *_: None,
        wall_clock_s: Callable[[], float] = wall_s,
    ) -> None:
        self.state = goodput.begin(most)
        self._ceiling_s = math.inf if latency_ceiling_s is None else latency_ceiling_s
        self._on_decision = on_decision
        self._wall_clock_s = wall_clock_s
        self._period_s = 0.0
        self._index = 0
        self._ends_at_s = -math.inf
        self._ended = self._timeouts = 0
        self._now = self._before = _Cohort(math.inf, -math.inf, 0)

    @property
    def limit(self) -> int:
        """How many calls may run at once now."""
        return self.state.limit

    def ended(self, began_s: float, now_s: float, *, answered: bool, full: bool) -> None:
        """Take note of a call that ended, however it did. `full`: until then no slot was free."""
        self._ended += 1
        cohort = self._now if began_s >= self._now.from_s else self._before
        if cohort.from_s <= began_s <= cohort.counted_to_s:
            lasted_s = now_s - began_s
            cohort.calls += 1
            cohort.answers += answered
            cohort.lasted_s += lasted_s
            cohort.squares_s2 += lasted_s * lasted_s
            cohort.over += lasted_s > self._ceiling_s
            cohort.full += full
        if now_s >= self._ends_at_s:
            self._turn(now_s, now_s - began_s)

    def timed_out(self) -> bool:
        """Take note of a call without an answer in time; return whether there are too many of them."""
        self._timeouts += 1
        return goodput.too_many(self._timeouts, self._ended)

    def refused(self, limit: int, reason: Reason) -> None:
        """Take note that `limit` calls at once were too many: nothing of this round counts."""
        self._decide(goodput.refused(self.state, limit, reason), goodput.NOTHING)
        self._now = self._before = _Cohort(math.inf, -math.inf, 0)

    def _turn(self, now_s: float, lasted_s: float) -> None:
        """End the round and begin the one that the wall clock is in."""
        judged = self._before
        tally = judged.tally()
        if judged.calls and now_s < self._ends_at_s + self._period_s:
            full = judged.full >= IN_USE_RATIO * judged.calls
            self._decide(goodput.after_round(self.state, tally, index=self._index, full=full), tally)
        self._begin(now_s, tally.mean_s if tally.calls else lasted_s)

    def _begin(self, now_s: float, mean_s: float) -> None:
        wall_now_s = self._wall_clock_s()
        self._period_s = goodput.period_s(mean_s, self._period_s)
        self._index = int(wall_now_s // self._period_s)
        began_s = now_s - wall_now_s % self._period_s
        self._ends_at_s = began_s + self._period_s
        self._ended = self._timeouts = 0
        self._before = self._now
        counted_to_s = max(began_s + COUNTED * self._period_s, self._ends_at_s - mean_s)
        self._now = _Cohort(now_s, counted_to_s, self.state.limit)

    def _decide(self, decided: tuple[State, Reason | None], tally: Tally) -> None:
        before, (self.state, reason) = self.state, decided
        if reason is not None:
            self._on_decision(reason, before, self.state, tally)
