"""THE SEARCH for the number of calls a server runs well at once, by what their goodput says. Plain decisions, no time.

Goodput is answers per second. A server that batches gives more of it the more calls run, up to a knee; past the knee
only latency grows. Latency alone cannot find the knee: while batches grow it rises by design.

At first the limit doubles, as long as goodput rises by half as much or more. Then it swings around a centre by its
square root, a window above and a window below, and each pair of windows says how much of a change of the limit goodput
follows: the rise (1 below the knee, 0 on a plateau, negative past it). The centre goes up while the rise is above
`WORTH`, and down while it is below.

Several workers on one server must swing at the same moments (`swing` is the clock's: `auto_limit`). One that swings
alone gains from its neighbours what it adds, knee or no knee, and so would they: all would grow without end. Swinging
together they see what the server does. As the square root is a larger share of a small limit than of a large one, the
smaller gains then, the larger loses, and they meet.
"""

import math
from dataclasses import dataclass, replace
from enum import StrEnum

START = 4
"""Calls at once before anything is known."""

WORTH = 0.1
"""A further 10 % of calls has to bring 1 % of goodput. Measured on vLLM: 0.12 to 0.17 just below its knee, -0.03 past
it; 0.25 would stop at a quarter of the calls and three quarters of the goodput."""

FOLLOWS = 1 / 3
"""The limit doubles while goodput rises by so much of it: less, and a newcomer would push its neighbours aside."""

GAIN_MAX, STRIDE_MAX = 0.5, 0.25
NOISE_KEPT = 0.05
"""The centre's logarithm moves by gain x (rise - WORTH), the gain being NOISE_KEPT / (the rise's variance, of counts
that are as random as Poisson's): so chance alone moves it by a tenth or so, however few the answers."""

SWING = 1 / 3
"""Of the centre to the power of 3/4: 4 of 3 to 5, 64 of 56 to 72, 256 of 235 to 277."""

SLOW_RATIO = 0.05
"""So many answers may be slower than the user's ceiling."""

REFUSED_CUT, TIMEOUT_CUT, SLOW_CUT = 0.95, 0.7, 0.85
LID_LIFT = 1.003
"""What was refused is not tried again for some time: the lid rises by this in each window."""


class Reason(StrEnum):
    """Why the limit was changed: the label of the metric."""

    DOUBLED = "doubled"
    SETTLED = "settled"
    FOLLOWED = "followed"
    LAGGED = "lagged"
    LATENCY = "latency"
    REFUSED = "refused"
    TIMEOUTS = "timeouts"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one window saw: `limit` calls at once, all the time, while others waited for a slot."""

    limit: int
    lasted_s: float
    answers: int
    slow: int = 0

    @property
    def goodput_per_s(self) -> float:
        """Answers per second; what timed out or failed took a slot and brought none."""
        return self.answers / self.lasted_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """How far it has come. `before`: the window to compare with. `lid`: a limit that was refused lately."""

    centre: float = START
    doubling: bool = True
    before: Seen | None = None
    lid: float = math.inf


def limit_of(search: Search, most: int, *, above: bool) -> int:
    """Return how many calls may run at once in a window above or below the centre, from 1 to `most`."""
    if search.doubling:
        return _within(search.centre, most)
    swing = SWING * search.centre**0.75
    below = _within(search.centre - swing, most)
    if not above:
        return below
    highest = max(1, min(most, math.ceil(search.lid) - 1)) if search.lid < math.inf else most
    return min(highest, max(below + 1, _within(search.centre + swing, most)))


def judged(search: Search, seen: Seen, most: int) -> tuple[Search, Reason | None]:
    """Return the search after a window, and why its centre was changed, None when it was not."""
    search = replace(search, lid=search.lid * LID_LIFT)
    if seen.slow > SLOW_RATIO * seen.answers:
        return _cut(search, SLOW_CUT), Reason.LATENCY
    before = search.before
    search = replace(search, before=seen)
    if search.doubling:
        return _doubled(search, before, seen, most)
    if before is None or before.limit == seen.limit:
        return search, None
    stride = _gain(before, seen) * (rise(before, seen) - WORTH)
    stride = max(-STRIDE_MAX, min(STRIDE_MAX, stride))
    moved = replace(search, centre=min(float(most), search.lid, max(1.0, search.centre * math.exp(stride))))
    if moved.centre == search.centre:
        return moved, None
    return moved, Reason.FOLLOWED if moved.centre > search.centre else Reason.LAGGED


def rise(before: Seen, now: Seen) -> float:
    """Return how much of a change of the limit goodput followed, in logarithms: 1 is all of it, 0 nothing."""
    if not before.answers or not now.answers:
        return 0.0
    return math.log(now.goodput_per_s / before.goodput_per_s) / math.log(now.limit / before.limit)


def _gain(before: Seen, now: Seen) -> float:
    if not before.answers or not now.answers:
        return GAIN_MAX
    variance = (1 / before.answers + 1 / now.answers) / math.log(now.limit / before.limit) ** 2
    return min(GAIN_MAX, NOISE_KEPT / variance)


def refused(search: Search, limit: int) -> Search:
    """Return the search after a 429 or 503 to one of `limit` calls that ran at once."""
    return replace(_cut(search, REFUSED_CUT), lid=max(2.0, min(search.lid, float(limit))))


def timed_out(search: Search) -> Search:
    """Return the search after too many calls timed out."""
    return _cut(search, TIMEOUT_CUT)


def _doubled(search: Search, before: Seen | None, seen: Seen, most: int) -> tuple[Search, Reason | None]:
    followed = math.inf if before is None or before.limit == seen.limit else rise(before, seen)
    if followed >= FOLLOWS and search.centre < most:
        return replace(search, centre=min(float(most), 2 * search.centre)), Reason.DOUBLED
    centre = before.limit if before is not None and followed < WORTH else search.centre
    return replace(search, doubling=False, centre=float(centre), before=None), Reason.SETTLED


def _cut(search: Search, ratio: float) -> Search:
    """Return the search with a lower centre; what was measured above it says nothing about it."""
    return replace(search, centre=max(1.0, search.centre * ratio), doubling=False, before=None)


def _within(limit: float, most: int) -> int:
    return max(1, min(most, round(limit)))
