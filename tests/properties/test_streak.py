"""Failures in a row: what opens a breaker soon, and what never does. Servers and their load are simulated, no clock."""

import heapq
import itertools
import math
import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from workers.errors import PenstockError, ServerFault, TimedOut
from workers.llm.breaker import DOUBT, IN_A_ROW, Breaker
from workers.llm.endpoint import Endpoint, Grant
from workers.llm.streak import Call, Streak
from workers.settings.servers import Breaker as BreakerSettings

ENOUGH = 4
LATENCY_S, TIMEOUT_S = 0.2, 1.0
OUTAGE_S = 20.1
WARM_UP = 2_000
"""Calls that are answered before anything fails: a window that is all but empty decides by ratio, and soon."""
RATE_PER_S = 764.0
CALLS = 100_000
USELESS = 20
"""Calls that an outage may cost, of those that begin in it."""

Fate = Callable[[float], tuple[float, PenstockError | None]]


class Load:
    """An endpoint under load. `fate` says how long a call takes that begins then, and its error.

    Calls come at random, `per_s` of them, as many as there are slots wait; without it one begins whenever it may.
    """

    def __init__(self, fate: Fate, slots: int, per_s: float | None = None) -> None:
        self.opened: list[str] = []
        self.begun_s: list[float] = []
        self.now_s = 0.0
        self._fate = fate
        self._endpoint = Endpoint(
            0, "m", slots, Breaker(BreakerSettings(), lambda *change: self.opened.append(change[2]))
        )
        self._running: list[tuple[float, int, Grant, PenstockError | None]] = []
        chance = random.Random(1)
        pauses_s = iter(lambda: 0.0 if per_s is None else chance.expovariate(per_s), None)
        self._comes_s = itertools.accumulate(pauses_s)
        self._waiting = 0

    def run(self, calls: int, until_s: float = math.inf) -> "Load":
        """Let so many calls come, or until then, or until the breaker opens."""
        for comes_s in itertools.islice(self._comes_s, calls):
            while self._running and (self._running[0][0] <= comes_s or self._waiting >= self._endpoint.slots):
                self._end_one()
                if self.opened:
                    return self
            self.now_s = max(self.now_s, comes_s)
            self._waiting += 1
            self._let_in()
            if self.opened or self.now_s >= until_s:
                break
        return self

    def _end_one(self) -> None:
        self.now_s, _, grant, error = heapq.heappop(self._running)
        self._endpoint.settle(grant, error, self.now_s)
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting and not self.opened and self._endpoint.admits(self.now_s):
            self._waiting -= 1
            took_s, error = self._fate(self.now_s)
            grant = self._endpoint.enter(self.now_s)
            self.begun_s.append(self.now_s)
            heapq.heappush(self._running, (self.now_s + took_s, len(self.begun_s), grant, error))


def hanging(from_s: float, until_s: float) -> Fate:
    """Return the fate of calls at a server that does no work in this time, and goes on with it afterwards."""

    def fate(begun_s: float) -> tuple[float, PenstockError | None]:
        done_s = begun_s + LATENCY_S
        if done_s > from_s and begun_s < until_s:
            done_s += until_s - max(from_s, begun_s)
        return (TIMEOUT_S, TimedOut("slow")) if done_s - begun_s >= TIMEOUT_S else (done_s - begun_s, None)

    return fate


def by_chance(share: float, answered_s: tuple[float, float], failed_s: float, error: type[PenstockError]) -> Fate:
    """Return the fate of calls of which a share fails, each by itself."""
    chance, numbers = random.Random(764), itertools.count()

    def fate(_: float) -> tuple[float, PenstockError | None]:
        if next(numbers) >= WARM_UP and chance.random() < share:
            return failed_s, error("by chance")
        return chance.uniform(*answered_s), None

    return fate


@pytest.mark.parametrize("slots", [1, 3, 8, 64, 256])
@pytest.mark.parametrize("per_s", [2.0, 48.0, RATE_PER_S])
def test_a_server_that_fails_at_once_is_found_out_after_ten_calls(slots: int, per_s: float) -> None:
    """Whatever its load, and however many answers the window is full of: ten calls, and those beside the tenth."""

    def fate(begun_s: float) -> tuple[float, PenstockError | None]:
        return (0.002, ServerFault("500")) if begun_s >= OUTAGE_S else (LATENCY_S, None)

    load = Load(fate, slots, per_s).run(20_000)
    assert load.opened == ["failures_in_a_row"]
    assert IN_A_ROW <= sum(begun_s >= OUTAGE_S for begun_s in load.begun_s) < USELESS


@pytest.mark.parametrize("slots", [8, 9, 16, 64, 256])
def test_a_server_that_hangs_is_found_out_at_its_second_timeout(slots: int) -> None:
    """Those in flight cannot be saved; hardly a further call begins, and the first of them that fails opens it."""
    load = Load(hanging(OUTAGE_S, math.inf), slots).run(200 * slots)
    assert load.opened == ["failures_in_a_row"]
    assert load.now_s <= OUTAGE_S + 2 * TIMEOUT_S
    assert sum(begun_s >= OUTAGE_S for begun_s in load.begun_s) <= DOUBT + max(IN_A_ROW - slots, 1)


@pytest.mark.parametrize("slots", [1, 2, 4])
def test_with_few_slots_a_server_that_hangs_is_found_out_at_the_tenth_timeout(slots: int) -> None:
    """The ratio never would: not even 20 of its timeouts fall into its window."""
    load = Load(hanging(OUTAGE_S, math.inf), slots).run(200 * slots)
    assert load.opened == ["failures_in_a_row"]
    assert sum(begun_s >= OUTAGE_S for begun_s in load.begun_s) < IN_A_ROW + DOUBT


@given(st.floats(0.1, 2 * (TIMEOUT_S - LATENCY_S) - 0.01), st.sampled_from([8, 64]), st.floats(20.0, 20.3))
def test_one_stall_never_opens_it(stall_s: float, slots: int, from_s: float) -> None:
    """Though all slots time out together: nothing that began after the first of them ended has failed."""
    load = Load(hanging(from_s, from_s + stall_s), slots).run(1_000_000, until_s=from_s + stall_s + 3)
    assert load.opened == []
    assert load.begun_s[-1] > from_s + stall_s + 2, "it did not go on"


@pytest.mark.parametrize("slots", [64, 256])
@pytest.mark.parametrize(
    ("answered_s", "failed_s", "error"),
    [((0.02, 0.1), 0.002, ServerFault), ((0.1, 0.3), 0.002, ServerFault), ((0.02, 0.1), 0.5, TimedOut)],
    ids=["quick failures", "quick failures among slow answers", "timeouts"],
)
def test_failures_by_chance_do_not_open_it(
    slots: int, answered_s: tuple[float, float], failed_s: float, error: type[PenstockError]
) -> None:
    """A tenth of 764 calls a second, each by itself. By the order of their ends quick failures would seem in a row."""
    load = Load(by_chance(0.1, answered_s, failed_s, error), slots, RATE_PER_S).run(CALLS)
    assert load.opened == []
    assert len(load.begun_s) > CALLS - 2 * slots


@pytest.mark.parametrize("slots", [64, 256, 1024])
@pytest.mark.parametrize("answered_s", [(0.1, 0.3), (1.0, 3.0)])
@pytest.mark.parametrize("share", [0.1, 0.3])
def test_failures_that_end_before_any_answer_do_not_open_it(
    slots: int, answered_s: tuple[float, float], share: float
) -> None:
    """All slots begin at once, at a start or after a pause: of what has ended then, next to all has failed."""
    chance = random.Random(764)

    def fate(_: float) -> tuple[float, PenstockError | None]:
        return (0.002, ServerFault("500")) if chance.random() < share else (chance.uniform(*answered_s), None)

    load = Load(fate, slots).run(8 * slots)
    assert load.opened == []


@pytest.mark.parametrize(("answered_s", "timeout_s"), [((0.1, 0.3), 1.0), ((1.0, 3.0), 5.0)])
def test_timeouts_of_most_calls_open_it(answered_s: tuple[float, float], timeout_s: float) -> None:
    """Two in three time out, too few for ten in a row; what still runs is no excuse, most of it ends so."""
    chance = random.Random(764)

    def fate(begun_s: float) -> tuple[float, PenstockError | None]:
        if begun_s >= OUTAGE_S and chance.random() < 0.65:
            return timeout_s, TimedOut("slow")
        return chance.uniform(*answered_s), None

    load = Load(fate, 64).run(100_000, until_s=OUTAGE_S + 30)
    assert load.opened == ["failure_ratio"]
    assert load.now_s < OUTAGE_S + 12


def test_doubt_costs_next_to_nothing() -> None:
    """Three failures in a row by chance are forgotten at the next answer: the load goes through as it comes."""
    slots = 32  # all in use four fifths of the time
    loads = [Load(by_chance(share, (0.02, 0.05), 0.03, ServerFault), slots).run(CALLS) for share in (0.0, 0.1)]
    assert loads[1].now_s == pytest.approx(loads[0].now_s, rel=0.03)


def found(calls: Sequence[Call], answered: int) -> bool:
    """Return whether there is a streak among calls in the order in which they began: the definition, word by word."""
    after = [call for call in calls if call.number > answered]
    for block in (list(calls) for runs, calls in itertools.groupby(after, lambda c: c.ended_s == math.inf) if not runs):
        for last in range(ENOUGH - 1, len(block)):
            for first in range(last):
                alike = block[first].reason == block[last].reason
                if alike and block[first].ended_s <= block[last].began_s:
                    return True
    return False


STEPS = st.tuples(
    st.sampled_from(["begin"] * 4 + ["again"] + ["a", "b"] * 4 + ["answer", "leave out"]), st.integers(0, 3)
)


ONE_MOMENT_AFTER_A_FAILURE = [("begin", 0), ("a", 0), *[("begin", 0)] * (1 + ENOUGH), *[("a", 1)] * ENOUGH]
"""The call between them still runs: what failed before it says nothing about how long those after it have failed."""

A_STALL_AFTER_A_FAILURE_BY_CHANCE = [("begin", 0), ("a", 0), *[("begin", 0)] * ENOUGH, *[("b", 0)] * ENOUGH]
"""The first has nothing to do with the others."""


ONE_LEFT_OUT_BETWEEN_FAILURES = [
    ("begin", 0),
    ("a", 0),
    *[("begin", 0)] * ENOUGH,
    ("leave out", 0),
    *[("a", 0)] * ENOUGH,
]
"""It is as if it had not been made, though it stands there until there are more of its kind."""


@given(st.lists(STEPS, max_size=80))
@example(ONE_LEFT_OUT_BETWEEN_FAILURES)
@example(A_STALL_AFTER_A_FAILURE_BY_CHANCE)
@example(ONE_MOMENT_AFTER_A_FAILURE)
def test_it_is_found_as_it_is_defined(steps: list[tuple[str, int]]) -> None:
    """Against a list of all calls: any order of ends, repeats and calls without a verdict left out as if never made."""
    streak, running, kept, answered = Streak(ENOUGH), list[Call](), list[Call](), 0
    for at, (step, which) in enumerate(steps):
        if step in {"begin", "again"}:
            running.append(streak.begin(float(at), again=step == "again"))
            kept.append(running[-1])
            continue
        if not running:
            continue
        call = running.pop(which % len(running))
        if step == "answer":
            streak.answer(call)
            answered = max(answered, call.number)
        elif step == "leave out":
            streak.leave_out(call)
            kept.remove(call)
        else:
            said = streak.fail(call, step, float(at))
            if not call.counts:
                kept.remove(call)
            assert said == found(kept, answered)


def test_it_keeps_no_more_calls_than_it_needs() -> None:
    """Years of answers, refusals and repeats leave nothing behind; nor does a record that fails for ever."""
    streak = Streak(ENOUGH)
    poison = streak.begin(0.0, again=False)
    streak.fail(poison, "500", 0.0)
    for at in range(1000):
        streak.leave_out(streak.begin(float(at), again=False))
        assert not streak.fail(streak.begin(float(at), again=True), "500", float(at))
        assert len(streak._calls) <= 2
    streak.answer(streak.begin(1000.0, again=False))
    assert not streak._calls
