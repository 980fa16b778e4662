"""Rounds of `workers.llm.goodput` on a server without noise: what comes of them, without a worker or time."""

from collections.abc import Callable, Iterator, Sequence

from workers.llm import goodput
from workers.llm.goodput import Reason, State
from workers.llm.tally import NOTHING, Tally

Curve = Callable[[int], float]
"""Latency by the number of calls at once."""


def tally_of(limit: int, latency_s: float, calls: int = 100, *, answers: int | None = None, over: int = 0) -> Tally:
    """Return what calls that all take the same come to."""
    return Tally(
        limit=limit,
        calls=calls,
        answers=calls if answers is None else answers,
        lasted_s=calls * latency_s,
        squares_s2=calls * latency_s**2,
        over=over,
    )


def rounds(state: State, curve: Curve, count: int, first: int = 0) -> Iterator[tuple[State, Reason | None]]:
    """Yield the state of each of `count` rounds, and why `kept` changed. A round is judged when the next one ends."""
    before, now = 0, state.limit
    for index in range(first, first + count):
        tally = tally_of(before, curve(before)) if before else NOTHING
        state, reason = goodput.after_round(state, tally, judged=index - 1, begins=index + 1, full=True)
        before, now = now, state.limit
        yield state, reason


def after(state: State, curve: Curve, count: int = 400, first: int = 0) -> State:
    """Return the state after so many rounds."""
    for each, _ in rounds(state, curve, count, first):
        state = each
    return state


def together(states: Sequence[State], curve: Curve, count: int, first: int = 0) -> list[State]:
    """Return the states of workers that share a server, and the clock, after so many rounds."""
    workers = list(states)
    before, now = [0] * len(workers), [state.limit for state in workers]
    for index in range(first, first + count):
        latency_s = curve(max(1, sum(before)))
        for n, limit in enumerate(before):
            tally = tally_of(limit, latency_s) if limit else NOTHING
            workers[n], _ = goodput.after_round(workers[n], tally, judged=index - 1, begins=index + 1, full=True)
        before, now = now, [state.limit for state in workers]
    return workers


def knee(calls: int, alone_s: float = 0.3, knee_at: int = 128) -> float:
    """Return the latency of a server whose goodput rises to a knee and falls slowly from there on."""
    load = calls / knee_at
    return alone_s * (1 + load) if load <= 1 else alone_s * 2 * load**1.14


def queue(slots: int, alone_s: float = 0.2) -> Curve:
    """Return the latencies of a server that works on so many calls at once, and lets the others wait."""
    return lambda calls: alone_s * max(1.0, calls / slots)
