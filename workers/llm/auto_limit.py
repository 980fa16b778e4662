"""`max_in_flight: auto` of one endpoint: the windows in which calls are counted. What they mean is in `goodput`.

Windows begin and end at round moments of the wall clock, in spans of 1, 2, 4, ... s (the first that is three times the
latency), above and below the centre in turn: so all workers of one server swing together, without a word between them.
Clocks that differ by a tenth of the span do no harm.

Only a window that says something is judged: somebody waited for a slot whenever one became free, no call was refused,
and every slot was used at least once after the change had settled (one latency).
"""

import math
from collections.abc import Callable

from workers.errors import BadAnswer, PenstockError, TimedOut
from workers.llm.goodput import Reason, Search, Seen, judged, limit_of, refused, timed_out

SPAN_MIN_S, SPAN_MAX_S = 1.0, 128.0
RENEWALS_PER_SPAN, ANSWERS_PER_SPAN = 3.0, 30

TIMEOUT_RATIO, TIMEOUTS_MIN = 0.2, 3
"""More timeouts than this share of the calls of a window cut the limit at once; fewer only lower goodput."""

IDLE_RATIO = 0.02
"""So many calls of a window may end with nobody waiting for their slot."""

OnLimit = Callable[[Reason, int, int], None]
"""Called with the reason, the limit before and the limit now."""


class AutoLimit:
    """`limit`: calls that may run at once as far as the search goes, up to `most`. Times are monotonic.

    `wall_offset_s`: what the wall clock is ahead of the monotonic one.
    """

    def __init__(self, most: int, max_latency_s: float | None, wall_offset_s: float, on_limit: OnLimit) -> None:
        self.most = most
        self._max_latency_s = math.inf if max_latency_s is None else max_latency_s
        self._wall_offset_s = wall_offset_s
        self._on_limit = on_limit
        self._search = Search()
        self._renewal_s = 0.0
        self._span_s = SPAN_MIN_S
        self.limit = limit_of(self._search, most, above=True)
        self._open(0.0, -math.inf)

    def ended(self, began_s: float, error: PenstockError | None, now_s: float, *, said: bool) -> None:
        """Count a call that ended; `said` is whether that says something: others waited and all slots were in use."""
        if now_s >= self._ends_at_s:
            self._turn(now_s)
        self._calls += 1
        self._idle += not said
        if error is None or isinstance(error, BadAnswer):
            latency_s = now_s - began_s
            self._answers += 1
            self._latency_sum_s += latency_s
            self._latency_squares += latency_s * latency_s
            if now_s >= self._counts_from_s:
                self._counted += 1
                self._slow += latency_s > self._max_latency_s
        elif isinstance(error, TimedOut):
            self._timeouts += 1

    def cut_by_timeouts(self) -> bool:
        """Return whether too many calls of this window have timed out, having cut the limit."""
        if self._timeouts < max(TIMEOUTS_MIN, TIMEOUT_RATIO * self._calls):
            return False
        self._change(timed_out(self._search), Reason.TIMEOUTS)
        return True

    def cut_by_refusal(self) -> None:
        """Cut the limit: the server said 429 or 503."""
        self._change(refused(self._search, self.limit), Reason.REFUSED)

    def spoil(self) -> None:
        """Let this window say nothing: an outage, or a limit that is not used to the full."""
        self._idle = self._calls = self._calls + 1

    def _turn(self, now_s: float) -> None:
        """End a window, judge it if it says something, and open the next."""
        late = now_s >= self._ends_at_s + self._span_s
        opened_before = self._ends_at_s
        if self._latency_sum_s:
            renewal_s = self._latency_squares / self._latency_sum_s
            self._renewal_s += (0.5 if self._renewal_s else 1.0) * (renewal_s - self._renewal_s)
        lasted_s = self._ends_at_s - self._counts_from_s
        search, reason = self._search, None
        if late or self._idle > IDLE_RATIO * self._calls or lasted_s <= 0 or self._counted < self.limit:
            search = Search(centre=search.centre, doubling=search.doubling, lid=search.lid)
        else:
            seen = Seen(limit=self.limit, lasted_s=lasted_s, answers=self._counted, slow=self._slow)
            search, reason = judged(search, seen, self.most)
        rate_per_s = self._counted / lasted_s if lasted_s > 0 else math.inf
        self._span_s = _span_s(self._settle_s(), rate_per_s)
        self._search = search
        self._open(now_s, now_s if late else opened_before)
        self._tell(reason)

    def _open(self, now_s: float, opened_at_s: float) -> None:
        nth = math.floor((now_s + self._wall_offset_s) / self._span_s)
        self._above = nth % 2 == 0
        self._ends_at_s = -math.inf if opened_at_s == -math.inf else (nth + 1) * self._span_s - self._wall_offset_s
        self._begin(opened_at_s)

    def _begin(self, at_s: float) -> None:
        self._counts_from_s = at_s + self._settle_s()
        self._calls = self._idle = self._answers = self._counted = self._slow = self._timeouts = 0
        self._latency_sum_s = self._latency_squares = 0.0

    def _settle_s(self) -> float:
        """Return how long the calls of another limit still take part: twice as long when it may double their latency."""
        return self._renewal_s * (2 if self._search.doubling else 1)

    def _change(self, search: Search, reason: Reason) -> None:
        self._search = search
        self._begin(math.inf)  # the rest of this window says nothing
        self._tell(reason)

    def _tell(self, reason: Reason | None) -> None:
        before, self.limit = self.limit, limit_of(self._search, self.most, above=self._above)
        if reason is not None:
            self._on_limit(reason, before, self.limit)


def _span_s(renewal_s: float, rate_per_s: float) -> float:
    needed_s = max(RENEWALS_PER_SPAN * renewal_s, renewal_s + (ANSWERS_PER_SPAN / rate_per_s if rate_per_s else 0.0))
    span_s = SPAN_MIN_S
    while span_s < min(needed_s, SPAN_MAX_S):
        span_s *= 2
    return span_s
