"""HOW MANY CALLS AT ONCE, where nobody said: what a round measured -> the limit of the next. Plain decisions.

More calls are worth it while goodput still rises by a tenth as much as they do (`WORTH`). Past the knee of a server
that batches, goodput hardly moves and latency is what grows; before it latency grows too, and goodput follows.

Rounds are cut by the wall clock and a limit is tried in the same rounds by everybody: workers that share a server try
the next limit together. One that tried it alone would see goodput rise at any load, taken from the others.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

from workers.llm.tally import ENOUGH, NOTHING, Tally

FIRST = 4
"""Where a search begins: what a small server runs at once."""

FOLLOWS = 1.25
"""Goodput after twice as many calls, for the next doubling."""

MUCH = 0.5
"""Of what the calls have grown by: goodput that rises by that is far from its top."""

CROWDED = 1.75
"""Times the first latency: from there on the server is full for the most part, and doubling would overshoot."""

SURE = 1.5
"""Standard errors of a difference that decide, as they follow from how much the calls differ."""

SURE_ROUNDS = 1.0
"""The same, as it follows from how much rounds of one limit differ."""

TRIES = 12
"""Of one limit without a clear result: then the less clear one decides."""

SHORTEST_S = 0.5
"""A shorter round is more of timers than of calls."""

LATENCIES = 2.5
"""Of a round: calls begin in one and a half, and end in the last one, before the limit changes."""

SHRINKS = 0.35
"""A round stays as long as it is until so much of it would be enough: not to change at each turn."""

ROUNDS = 4
"""Of one try: as it was, as it was, the other limit, as it was."""

TRIED = 2
"""The round of the four that has the other limit."""

REMEMBERS = 0.25
"""The weight of the latest pair of rounds in what is known of how far apart they may be."""

BACK_OFF = 0.875
"""Of a limit that was refused: what is asked for from then on."""

BARRED_ROUNDS = 512
"""For so long a refused limit is not tried again."""

TIMEOUTS, TIMEOUTS_RATIO = 2, 0.1
"""Calls that timed out within a round, and their share of those that ended, that cut the limit at once."""

Mode = Literal["start", "steady"]
Reason = Literal[
    "doubled",
    "halved",
    "settled",
    "raised",
    "lowered",
    "refused",
    "timed_out",
    "restored",
    "latency_ceiling",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tries:
    """What a limit came to when it was tried, and what `kept` came to in the rounds before each try.

    In pairs: the load of a server moves with what others do, and a try may be compared with nothing older.
    """

    tried: Tally = NOTHING
    base: Tally = NOTHING

    def doubt(self, moves: float) -> float:
        """Return how far apart the logarithms of both goodputs may be by chance, with `moves` of `State`."""
        by_calls = self.tried.variance + self.base.variance
        by_rounds = moves * (1 / self.tried.rounds + 1 / self.base.rounds)
        return max(SURE * math.sqrt(by_calls), SURE_ROUNDS * math.sqrt(by_rounds))

    def and_then(self, tried: Tally, base: Tally) -> "Tries":
        """Return all tries with another one; that alone when it was of another limit."""
        if tried.limit != self.tried.limit:
            return Tries(tried=tried, base=base)
        return Tries(tried=self.tried + tried, base=self.base + base)


UNTRIED = Tries()


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What is known of an endpoint. `limit` is asked for now: `kept`, or a try of another."""

    most: int
    kept: int
    limit: int
    mode: Mode = "start"
    first_s: float | None = None
    """The latency of the first limit that was measured."""
    best: Tally = NOTHING
    """The limit before the last doubling or halving."""
    base: Tally = NOTHING
    """Of `kept`: since it was doubled or halved; when steady, in the rounds before the next try."""
    poor: Tally = NOTHING
    """The first measure of a limit that would end the search: it is measured twice."""
    moves: float | None = None
    """The variance of the logarithm of a round's goodput, as seen between rounds of one limit. All calls of a round
    may be slow together, as the server's host was: that does not show in how much they differ from each other."""
    up: Tries = UNTRIED
    down: Tries = UNTRIED
    stride: int = 1
    """Steps up at once: two after one that was worth it, as the larger step is the clearer one; and twice as many while
    goodput follows, so that a search that ended too early goes on as it began."""
    barred: int | None = None
    """A limit that was refused."""
    barred_rounds: int = 0


def begin(most: int) -> State:
    """Return the state of an endpoint of which nothing is known."""
    first = min(FIRST, most)
    return State(most=most, kept=first, limit=first)


def step(limit: int) -> int:
    """Return how far the next limit up or down is: a quarter for 16 calls, an eighth for 256.

    Less than in proportion: of several workers that try together those with many calls change their share less than
    those with few, and so come closer to each other.
    """
    return max(1, round(0.5 * math.pow(limit, 0.75)))


def after_round(state: State, tally: Tally, *, judged: int, begins: int, full: bool) -> tuple[State, Reason | None]:
    """Return the state for the round that begins, and why `kept` changed, if it did.

    `judged` and `begins` are numbers of rounds, by the wall clock; `tally` is of the calls that began in `judged`.
    `full`: the slots were in use; without a backlog nothing is learnt, and nothing tried.
    """
    if state.barred is not None:
        left = state.barred_rounds - 1
        state = replace(state, barred=state.barred if left > 0 else None, barred_rounds=max(0, left))
    if not full:
        return replace(state, limit=state.kept, base=NOTHING, up=UNTRIED, down=UNTRIED), None
    if state.mode == "start":
        return _start(state, tally)
    state, reason = _steady(state, tally, judged)
    tries = begins % ROUNDS == TRIED
    return replace(state, limit=_other(state, up=_is_up(begins)) if tries else state.kept), reason


def refused(state: State, limit: int) -> State:
    """Return the state after calls were refused, or timed out, while `limit` ran: less is asked for from now on."""
    kept = max(1, min(state.kept, int(limit * BACK_OFF)))
    barred = max(kept + 1, min(limit, state.barred or limit))
    return replace(settled(state, kept), barred=barred, barred_rounds=BARRED_ROUNDS)


def restored(before: State) -> State:
    """Return the state from before calls were refused: it was an outage, which says nothing of the limit."""
    return replace(before, limit=before.kept, base=NOTHING, up=UNTRIED, down=UNTRIED)


def too_many(timeouts: int, calls: int) -> bool:
    """Return whether timeouts, among the calls that ended in a round, mean that too much is asked for.

    Two, and a tenth: one call in a thousand that hangs says nothing of the load.
    """
    return timeouts >= TIMEOUTS and timeouts >= TIMEOUTS_RATIO * calls


def settled(state: State, kept: int) -> State:
    """Return the state that keeps a limit, with nothing measured of it."""
    return replace(state, mode="steady", kept=kept, limit=kept, base=NOTHING, up=UNTRIED, down=UNTRIED, stride=1)


def period_s(mean_s: float, now_s: float = 0.0) -> float:
    """Return the length of a round: a power of two, at least two and a half latencies; `now_s`, as long as that fits.

    A power of two, so that workers that see the same latency cut the same rounds, and rounds of another length begin
    with one of them.
    """
    least_s = max(SHORTEST_S, LATENCIES * mean_s)
    if SHRINKS * now_s < least_s <= now_s:
        return now_s
    return float(2.0 ** math.ceil(math.log2(least_s)))


def _start(state: State, tally: Tally) -> tuple[State, Reason | None]:
    """Double while goodput follows; where the first doubling brought nothing, halve while it does not fall."""
    if tally.limit != state.limit:
        return state, None
    state = replace(state, base=state.base + tally)
    if not state.base.enough:
        return state, None
    if state.base.too_slow:
        return settled(state, max(1, state.limit // 2)), "latency_ceiling"
    state = replace(state, first_s=state.first_s or state.base.mean_s)
    following = _following(state, state.base, state.best)
    if following is None or following < state.limit:
        if state.poor.limit != state.limit:
            return replace(state, poor=state.base, base=NOTHING), None
        state = replace(state, base=max(state.base, state.poor, key=lambda one: one.per_s))
        following = _following(state, state.base, state.best)
    if following is None:
        best = max(state.base, state.best, key=lambda one: (one.utility, -one.limit))
        return settled(state, best.limit), "settled"
    best = state.base if state.base.utility > state.best.utility else state.best
    reason: Reason = "doubled" if following > best.limit else "halved"
    return replace(state, kept=following, limit=following, best=best, base=NOTHING), reason


def _following(state: State, base: Tally, best: Tally) -> int | None:
    """Return the limit to measure after `base`, None when the search is over."""
    worse = base.utility <= best.utility
    if base.limit < best.limit:  # on its way down
        return None if worse or base.limit == 1 else base.limit // 2
    if worse:  # the first step up brought nothing
        down = best.limit == min(FIRST, state.most) < base.limit and best.limit > 1
        return best.limit // 2 if down else None
    follows = base.per_s >= FOLLOWS * best.per_s and base.mean_s < CROWDED * (state.first_s or math.inf)
    wider = min(2 * base.limit, _ceiling(state))
    return wider if follows and wider > base.limit else None


def _ceiling(state: State) -> int:
    return state.most if state.barred is None else min(state.most, state.barred - 1)


def _steady(state: State, tally: Tally, judged: int) -> tuple[State, Reason | None]:
    """Try a little more, then a little less, and keep what is better."""
    if judged % ROUNDS == TRIED:
        return _compared(state, tally, up=_is_up(judged))
    if judged % ROUNDS > TRIED or tally.limit != state.kept:
        return state, None
    moves = _moves(state.moves, state.base, tally)
    state = replace(state, base=state.base + tally, moves=moves)
    return _lowered(state) if state.base.enough and state.base.too_slow else (state, None)


def _moves(known: float | None, one: Tally, other: Tally) -> float | None:
    """Return what is known of how far apart two rounds of one limit may be, with two more.

    Two rounds alone: half of the square holds for them. Rounds that change their length may leave a sum of several.
    """
    if one.rounds != 1 or not (one.per_s and other.per_s):
        return known
    apart = math.log(one.per_s / other.per_s) ** 2 / 2
    return apart if known is None else known + REMEMBERS * (apart - known)


def _lowered(state: State) -> tuple[State, Reason]:
    """Return the state after too many calls were above the user's ceiling."""
    return settled(state, max(1, state.kept - step(state.kept))), "latency_ceiling"


def _compared(state: State, tally: Tally, *, up: bool) -> tuple[State, Reason | None]:
    """Return the state after a try: with the better limit, if it is clear by now which that is."""
    if tally.limit != _other(state, up=up) or state.base.limit != state.kept:
        return replace(state, base=NOTHING), None
    tries = (state.up if up else state.down).and_then(tally, state.base)
    if tries.base.enough and tries.base.too_slow:
        return _lowered(state)
    state = replace(state, base=NOTHING)
    verdict = _verdict(tries, state.moves or 0.0)
    if verdict is True and tally.limit != state.kept:
        stride = (2 * state.stride if _follows(tries, state.moves or 0.0) else 2) if up else 1
        return replace(settled(state, tally.limit), stride=stride), "raised" if up else "lowered"
    if verdict is not None:
        tries, state = UNTRIED, replace(state, stride=1 if up else state.stride)
    return (replace(state, up=tries) if up else replace(state, down=tries)), None


def _verdict(tries: Tries, moves: float) -> bool | None:
    """Return whether the limit that was tried is the better one; None when that is not clear yet."""
    tried, base = tries.tried, tries.base
    if tried.calls < ENOUGH or not base.enough:
        return None
    gain, doubt = tried.utility - base.utility, tries.doubt(moves)
    if tried.too_slow or gain < -doubt:
        return False
    return gain > 0 if gain > doubt or tried.rounds >= TRIES else None


def _follows(tries: Tries, moves: float) -> bool:
    """Return whether goodput rose by half as much as the calls did, beyond doubt: far from the knee."""
    tried, base = tries.tried, tries.base
    return math.log(tried.per_s / base.per_s) - tries.doubt(moves) >= MUCH * math.log(tried.limit / base.limit)


def _is_up(index: int) -> bool:
    return index // ROUNDS % 2 == 0


def _other(state: State, *, up: bool) -> int:
    if up:
        wider = min(state.kept + state.stride * step(state.kept), 2 * state.kept)
        return min(wider, max(state.kept, _ceiling(state)))
    return max(1, state.kept - step(state.kept))
