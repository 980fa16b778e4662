"""`max_in_flight: auto` of one endpoint: cuts rounds by the wall clock, sums up what they measure, asks `goodput`."""

import math
from collections.abc import Callable

from workers.clock import wall_s
from workers.llm import goodput
from workers.llm.goodput import Reason, State
from workers.llm.tally import NOTHING, Tally

COUNTED = 0.6
"""Of a round, or all but its last latency: calls that begin later run under the limit of the next."""

IN_USE_RATIO = 0.9
"""Slots in use that are a backlog, and the share of the calls that must have seen one."""

OnDecision = Callable[[Reason, State, State, Tally], None]
"""Called with the reason, the state before and after, and what was measured."""


class _Cohort:
    """The calls that began in one round."""

    __slots__ = ("answers", "calls", "counted_to_s", "from_s", "full", "index", "lasted_s", "limit", "over", "squares")

    def __init__(
        self, *, index: int = 0, limit: int = 0, from_s: float = math.inf, counted_to_s: float = -math.inf
    ) -> None:
        self.index, self.limit = index, limit
        self.from_s, self.counted_to_s = from_s, counted_to_s
        self.calls = self.answers = self.over = self.full = 0
        self.lasted_s = self.squares = 0.0

    def add(self, lasted_s: float, *, answered: bool, full: bool, over: bool) -> None:
        self.calls += 1
        self.answers += answered
        self.lasted_s += lasted_s
        self.squares += lasted_s * lasted_s
        self.full += full
        self.over += over

    def tally(self) -> Tally:
        return Tally(
            limit=self.limit,
            calls=self.calls,
            answers=self.answers,
            lasted_s=self.lasted_s,
            squares_s2=self.squares,
            over=self.over,
        )


class AutoLimit:
    """Collects a round and says which limit to have. Times are monotonic; the wall clock only says where rounds begin.

    A call counts for the round in which it began, and a round is judged when the one after it ends: what has not
    ended by then took more than a round.
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
        self._ends_at_s = -math.inf
        self._ended = self._timeouts = 0
        self._now = self._before = _Cohort()
        self._unrefused: State | None = None

    @property
    def limit(self) -> int:
        """How many calls may run at once now."""
        return self.state.limit

    def ended(self, began_s: float, now_s: float, *, answered: bool, full: bool) -> None:
        """Take note of a call that ended, unless it was refused. `full`: until then no slot was free."""
        self._ended += 1
        lasted_s = now_s - began_s
        cohort = self._now if began_s >= self._now.from_s else self._before
        if cohort.from_s <= began_s <= cohort.counted_to_s:
            cohort.add(lasted_s, answered=answered, full=full, over=lasted_s > self._ceiling_s)
        if now_s >= self._ends_at_s:
            self._turn(now_s, lasted_s)

    def timed_out(self, began_s: float, now_s: float, *, full: bool) -> bool:
        """Take note of a call without an answer in time; return whether the limit must be cut at once."""
        self._timeouts += 1
        self.ended(began_s, now_s, answered=False, full=full)
        return goodput.too_many(self._timeouts, self._ended)

    def refused(self, limit: int, reason: Reason) -> None:
        """Take note that `limit` calls at once were too many: nothing of this round counts."""
        self._unrefused = self._unrefused or self.state
        self._decide(goodput.refused(self.state, limit), reason)
        self._begin_anew()

    def outage(self) -> None:
        """Take note that what looked like too many calls was an outage: it says nothing of the limit."""
        if self._unrefused is not None:
            self._decide(goodput.restored(self._unrefused), "restored")
            self._unrefused = None
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._now = self._before = _Cohort()
        self._ended = self._timeouts = 0

    def _turn(self, now_s: float, lasted_s: float) -> None:
        """Judge the round before the one that ended, and begin the one that the wall clock is in."""
        judged = self._before
        tally = judged.tally()
        mean_s = tally.mean_s if tally.calls else lasted_s
        wall_now_s = self._wall_clock_s()
        self._period_s = period_s = goodput.period_s(mean_s, self._period_s)
        began_s, index = now_s - wall_now_s % period_s, int(wall_now_s // period_s)
        full = judged.full >= IN_USE_RATIO * judged.calls
        if full and tally.calls:
            self._unrefused = None
        state, reason = goodput.after_round(self.state, tally, judged=judged.index, begins=index, full=full)
        self._decide(state, reason, tally)
        self._ends_at_s = began_s + period_s
        self._ended = self._timeouts = 0
        self._before = self._now
        counted_to_s = max(began_s + COUNTED * period_s, self._ends_at_s - mean_s)
        self._now = _Cohort(index=index, limit=self.state.limit, from_s=now_s, counted_to_s=counted_to_s)

    def _decide(self, state: State, reason: Reason | None, tally: Tally = NOTHING) -> None:
        before, self.state = self.state, state
        if reason == "settled" or (reason is not None and state.kept != before.kept):
            self._on_decision(reason, before, state, tally)
