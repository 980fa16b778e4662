"""THE WAITING LINE of a model: who is let in, who goes on waiting, who is turned away. Plain decisions, no awaiting.

A call waits here for a slot, for a cool-down, or (those that hold) for the trial of a breaker. A record that has begun
stands before those that have not: it came earlier, and its deadline runs. Otherwise first come, first served, and a
free slot is handed over to whoever is next, so that nobody who comes later can take it.

A call that failed at one endpoint waits for another one that works, though the first has slots: those behind take them.
"""

import asyncio
import heapq
import math
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from workers.errors import BreakerOpen, DeadlineOver, Misconfigured, PenstockError, Stale
from workers.llm.endpoint import Endpoint, Grant
from workers.records import Passage


@dataclass(slots=True, eq=False)
class Waiter:
    """One call that waits. Its future gets a grant, or the error that turns it away.

    `failed` are the endpoints that have failed it: not asked again while `another_works`. `last` puts it
    behind everybody: a trial that failed, so that one poisonous record is not the trial for ever.
    """

    future: asyncio.Future[Grant | PenstockError]
    passage: Passage
    wait_s: float
    since_s: float
    failed: Collection[Endpoint] = ()
    last: bool = False
    grant: Grant | None = None

    def ends_at_s(self, broken_since_s: float | None) -> float:
        """Return the moment until which it may wait: `wait_s` counts only while the model is broken."""
        ends_s = math.inf if self.passage.ends_at_s is None else self.passage.ends_at_s
        if self.passage.stale_at_s is not None:
            ends_s = min(ends_s, self.passage.stale_at_s)
        if broken_since_s is not None:
            ends_s = min(ends_s, max(broken_since_s, self.since_s) + self.wait_s)
        return ends_s


class Line:
    """The line over all endpoints of one model. Every method takes the time (monotonic) and returns at once.

    `wake_at_s` is the next moment at which time alone changes something: call `advance` then.
    """

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self.endpoints = endpoints
        self.wake_at_s = math.inf
        self._begun: OrderedDict[Waiter, None] = OrderedDict()
        self._fresh: OrderedDict[Waiter, None] = OrderedDict()
        self._broken_since_s: float | None = None
        # When each waiter's time ends, soonest first. An entry may be out of date (let in, cancelled, not broken any
        # more), so it is checked when its time comes; an outage makes thousands wait, each for its own turn.
        self._ends: list[tuple[float, int, Waiter]] = []
        self._watched = 0

    def __len__(self) -> int:
        return len(self._begun) + len(self._fresh)

    def __iter__(self) -> Iterator[Waiter]:
        yield from self._begun
        yield from self._fresh

    def another_works(self, failed: Collection[Endpoint], now_s: float) -> bool:
        """Return whether some endpoint has not failed this call and works, though it may have no slot free now."""
        return any(endpoint.works(now_s) and endpoint not in failed for endpoint in self.endpoints)

    def take(self, failed: Collection[Endpoint], now_s: float) -> Grant | None:
        """Return a slot if one is free and nobody waits for it."""
        if self._begun or self._fresh:
            return None
        endpoint = self._choose(failed, now_s)
        return None if endpoint is None else endpoint.enter(now_s, again=bool(failed))

    def join(self, waiter: Waiter, now_s: float) -> None:
        """Line up; may be let in or turned away at once."""
        begun = waiter.passage.ends_at_s is not None and not waiter.last
        (self._begun if begun else self._fresh)[waiter] = None
        self.advance(now_s)
        if not waiter.future.done() and waiter.ends_at_s(self._broken_since_s) < math.inf:
            self._watch(waiter)
            self._turn_away(now_s)
            self._set_wake(now_s)

    def leave(self, waiter: Waiter, now_s: float) -> None:
        """Stop waiting (cancelled); a slot that was handed over in the same moment goes to the next."""
        self._remove(waiter)
        if waiter.grant is not None:
            waiter.grant.endpoint.release(waiter.grant)
        self.advance(now_s)

    def release(self, grant: Grant, now_s: float) -> None:
        """Give a slot back without a verdict. Without effect when it was settled."""
        grant.endpoint.release(grant)
        self.advance(now_s)

    def settle(self, grant: Grant, error: PenstockError | None, now_s: float) -> None:
        """Give a slot back after a call that ended with `error`, None for an answer."""
        grant.endpoint.settle(grant, error, now_s)
        self.advance(now_s)

    def advance(self, now_s: float) -> None:
        """Let in whom the endpoints admit, turn away whose time is over."""
        if not self._begun and not self._fresh:  # with slots enough that is always so
            self._ends.clear()
            self._broken_since_s, self.wake_at_s = None, math.inf
            return
        self._turn_away(now_s)
        self._let_in(now_s)
        self._note_broken(now_s)
        self._set_wake(now_s)

    def _choose(self, failed: Collection[Endpoint], now_s: float) -> Endpoint | None:
        """Return the endpoint with the smallest share of its slots in use among those that admit, None if none does.

        At equal share one that needs a trial comes first: otherwise it would stay open as long as the load is low.
        """
        barred = failed if failed and self.another_works(failed, now_s) else ()
        best: Endpoint | None = None
        for each in self.endpoints:
            if (
                each.admits(now_s)
                and each not in barred
                and (best is None or _rank(each, failed) < _rank(best, failed))
            ):
                best = each
        return best

    def _let_in(self, now_s: float) -> None:
        while (first := self._next(now_s)) is not None:
            waiter, endpoint = first
            self._remove(waiter)
            if endpoint is not None:
                waiter.grant = endpoint.enter(now_s, again=bool(waiter.failed))
                waiter.future.set_result(waiter.grant)

    def _next(self, now_s: float) -> tuple[Waiter, Endpoint | None] | None:
        """Return the first who can be let in, and where; None for where: he was cancelled, his task has not run yet."""
        nearest = self._choose((), now_s)
        if nearest is None:
            return None
        for waiters in (self._begun, self._fresh):
            for waiter in waiters:
                if waiter.future.done():
                    return waiter, None
                endpoint = self._choose(waiter.failed, now_s) if waiter.failed else nearest
                if endpoint is not None:
                    return waiter, endpoint
        return None

    def _note_broken(self, now_s: float) -> None:
        """Start or stop the clock of `wait_s`: it runs while no endpoint's breaker is closed, trials included."""
        for endpoint in self.endpoints:
            if endpoint.breaker.closed:
                self._broken_since_s = None
                return
        if not len(self):
            self._broken_since_s = None
        elif self._broken_since_s is None:
            self._broken_since_s = now_s
            self._watch_all()
            self._turn_away(now_s)

    def _turn_away(self, now_s: float) -> None:
        while self._ends:
            ends_s, _, waiter = self._ends[0]
            waits = waiter in self._begun or waiter in self._fresh
            if waits and ends_s > now_s:
                return
            heapq.heappop(self._ends)
            if waits and waiter.ends_at_s(self._broken_since_s) <= now_s:
                self._refuse(waiter, now_s)
            elif waits:
                self._watch(waiter)

    def _watch(self, waiter: Waiter) -> None:
        if len(self._ends) > 2 * len(self) + 64:
            self._watch_all()
        elif (ends_s := waiter.ends_at_s(self._broken_since_s)) < math.inf:
            self._watched += 1  # breaks ties, waiters have no order
            heapq.heappush(self._ends, (ends_s, self._watched, waiter))

    def _watch_all(self) -> None:
        self._ends = []
        for waiter in self:
            self._watch(waiter)

    def _set_wake(self, now_s: float) -> None:
        self.wake_at_s = math.inf
        if not len(self):
            return
        if self._ends:
            self.wake_at_s = self._ends[0][0]
        for endpoint in self.endpoints:
            # Who waits beside an endpoint that admits now waits for another: time changes nothing at that one.
            if now_s < (admits_from_s := endpoint.admits_from_s()) < self.wake_at_s:
                self.wake_at_s = admits_from_s

    def _refuse(self, waiter: Waiter, now_s: float) -> None:
        self._remove(waiter)
        if not waiter.future.done():
            waiter.future.set_result(self._refusal(waiter.passage, now_s))

    def _refusal(self, passage: Passage, now_s: float) -> PenstockError:
        if passage.stale_at_s is not None and passage.stale_at_s <= now_s:
            return Stale("older than max_age_s before a model slot was free")
        if passage.ends_at_s is not None and passage.ends_at_s <= now_s:
            return DeadlineOver("the deadline ended before another attempt could be made")
        why = self.endpoints[0].breaker.why
        if all(endpoint.breaker.misconfigured for endpoint in self.endpoints):
            return Misconfigured(why)
        return BreakerOpen(f"not asked, the breaker is open: {why}")

    def _remove(self, waiter: Waiter) -> None:
        self._begun.pop(waiter, None)
        self._fresh.pop(waiter, None)


def _rank(endpoint: Endpoint, failed: Collection[Endpoint]) -> tuple[bool, float, bool]:
    return endpoint in failed, endpoint.in_use / endpoint.room, endpoint.breaker.closed
