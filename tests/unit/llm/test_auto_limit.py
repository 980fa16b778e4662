"""`max_in_flight: auto` of one endpoint: rounds by the wall clock, which calls count for which, what cuts at once."""

from collections.abc import Callable

import pytest

from workers.errors import AnswerEmpty, Busy, ConnectionLost, Overloaded, PenstockError, ServerFault, TimedOut
from workers.llm import goodput
from workers.llm.auto_limit import AutoLimit
from workers.llm.breaker import Breaker
from workers.llm.endpoint import Endpoint, Grant
from workers.llm.goodput import Reason, State
from workers.llm.tally import Tally
from workers.settings.servers import Breaker as BreakerSettings

Decision = tuple[Reason, int, int]


class Scene:
    """An endpoint with `auto`, a clock of its own, and calls that wait for it without end."""

    def __init__(
        self,
        latency_s: Callable[[int], float] = lambda _: 0.3,
        *,
        most: int = 64,
        ceiling_s: float | None = None,
        ahead_s: float = 1_000.0,
        backlog: float = 1.0,
    ) -> None:
        self.now_s = 0.0
        self.decisions: list[Decision] = []
        self.tallies: list[Tally] = []
        self.ahead_s = ahead_s
        self.auto = AutoLimit(most, ceiling_s, self._decided, lambda: self.now_s + self.ahead_s)
        self.endpoint = Endpoint(0, "m", most, Breaker(BreakerSettings(window_s=2.0), lambda *_: None), auto=self.auto)
        self.latency_s = latency_s
        self.backlog = backlog
        self.running: list[tuple[float, Grant]] = []
        self.limits: list[tuple[float, int]] = []

    def _decided(self, reason: Reason, before: State, after: State, measured: Tally) -> None:
        self.decisions.append((reason, before.kept, after.kept))
        self.tallies.append(measured)

    def fill(self) -> None:
        """Begin as many calls as may run, or that share of them."""
        while self.endpoint.admits(self.now_s) and self.endpoint.in_use < self.backlog * self.endpoint.limit:
            grant = self.endpoint.enter(self.now_s)
            self.running.append((self.now_s + self.latency_s(self.endpoint.in_use), grant))

    def run(self, until_s: float, error: Callable[[float], PenstockError | None] = lambda _: None) -> None:
        """Let calls begin and end until then; `error` says what a call that ends at a moment comes to."""
        while True:
            self.fill()
            if not self.running:
                self.now_s = max(self.now_s, self.endpoint.admits_from_s())
                if self.now_s >= until_s:
                    return
                continue
            ends_s, grant = min(self.running, key=lambda one: one[0])
            if ends_s > until_s:
                self.now_s = until_s
                return
            self.running.remove((ends_s, grant))
            self.now_s = ends_s
            self.endpoint.settle(grant, error(ends_s), ends_s)
            if not self.limits or self.limits[-1][1] != self.endpoint.limit:
                self.limits.append((ends_s, self.endpoint.limit))


def test_an_endpoint_gets_the_slots_that_auto_asks_for() -> None:
    """Four at first, and more while goodput follows; never more than the most."""
    scene = Scene(most=40)
    assert (scene.endpoint.slots, scene.endpoint.limit) == (4, 4)
    scene.run(60.0)
    assert scene.auto.state.kept == 40
    assert max(limit for _, limit in scene.limits) == 40
    assert [reason for reason, *_ in scene.decisions] == ["doubled", "doubled", "doubled", "doubled", "settled"]


def test_what_was_measured_is_told_with_a_decision() -> None:
    """Of how many calls at once, and how long they took: the reason in figures."""
    scene = Scene()
    scene.run(20.0)
    first = scene.tallies[0]
    assert first.limit == 4
    assert first.mean_s == pytest.approx(0.3)
    assert first.per_s == pytest.approx(4 / 0.3)


def test_rounds_begin_where_the_wall_clock_says() -> None:
    """All workers change in the same moments, whenever they began: at whole rounds since the epoch."""
    times = []
    for ahead_s in (1_000.0, 1_000.37):
        scene = Scene(lambda n: 0.02 * max(1.0, n / 16), most=64, ahead_s=ahead_s)
        scene.run(60.0)
        tries = [at_s + ahead_s for at_s, limit in scene.limits if at_s > 30 and limit > scene.auto.state.kept]
        assert len(tries) > 4
        times.append(tries)
    for at_s in times[0] + times[1]:
        assert at_s % 0.5 < 0.03
        assert int(at_s // 0.5) % (2 * goodput.ROUNDS) == goodput.TRIED


def test_without_a_backlog_it_stays() -> None:
    """Calls that do not fill the slots say nothing of more slots."""
    scene = Scene(backlog=0.5)
    scene.run(60.0)
    assert (scene.auto.state.kept, scene.decisions) == (4, [])


def test_a_refusal_cuts_at_once_and_is_remembered() -> None:
    """The limit halves as for fixed slots; it grows back to an eighth below what was refused."""
    scene = Scene(most=64)
    scene.run(60.0)
    assert scene.endpoint.limit == 64
    refused_at_s = scene.now_s
    scene.run(60.5, lambda _: Busy("429", 1.0))
    assert (scene.endpoint.limit, scene.endpoint.slots) == (32, 56)
    assert scene.endpoint.cool_until_s > refused_at_s
    assert scene.decisions[-1] == ("refused", 64, 56)
    seen = len(scene.limits)
    scene.run(120.0)
    assert scene.endpoint.limit == 63
    later = [limit for _, limit in scene.limits[seen:]]
    assert later[:24] == [*range(33, 57)]
    assert max(later) == 63


@pytest.mark.parametrize("count", [1, 2])
def test_few_timeouts_among_many_calls_change_nothing(count: int) -> None:
    """It may be the records that are to blame. They count as calls without an answer."""
    scene = Scene(most=16)
    scene.run(60.0)
    assert scene.endpoint.limit == 16
    late = iter([None] * 28 + [TimedOut("late")] * count)
    scene.run(60.95, lambda _: next(late, None))
    counted = scene.auto._before, scene.auto._now
    assert sum(each.calls - each.answers for each in counted) == count
    assert (scene.endpoint.limit, [reason for reason, *_ in scene.decisions]) == (16, ["doubled", "doubled", "settled"])


def test_many_timeouts_cut_at_once() -> None:
    """Once for the calls that ran together; those that began after the cut would be another one."""
    scene = Scene(most=16)
    scene.run(60.0)
    scene.run(60.31, lambda _: TimedOut("late"))
    assert scene.decisions[-1] == ("timed_out", 16, 14)
    assert (scene.endpoint.limit, scene.endpoint.slots) == (8, 14)
    assert [reason for reason, *_ in scene.decisions].count("timed_out") == 1


def test_an_outage_that_looked_like_congestion_costs_nothing() -> None:
    """Refused three times in a row: nobody was served, so nothing is said of the limit, and it is what it was."""
    scene = Scene(most=16)
    scene.run(60.0)
    scene.run(60.4, lambda _: Busy("429", 0.1))
    assert (scene.auto.state.kept, scene.auto.state.barred) == (14, 16)
    scene.run(62.0, lambda _: Busy("429", 0.1))
    assert (scene.auto.state.kept, scene.auto.state.barred) == (16, None)
    assert scene.endpoint.slots == 16
    scene.run(70.0)
    assert scene.endpoint.limit == 16


@pytest.mark.parametrize("error", [Overloaded("503", 0.1), ConnectionLost("reset"), TimedOut("late")])
def test_after_the_breaker_opened_calls_come_back_one_per_answer(error: PenstockError) -> None:
    """A server that begins anew is not met by all at once; then all are back, to what they were."""
    scene = Scene(most=32)
    scene.run(60.0)
    scene.run(64.0, lambda _: error)
    assert not scene.endpoint.breaker.closed
    seen = len(scene.limits)
    scene.run(70.0)
    ramp = [limit for _, limit in scene.limits[seen:] if limit > 1]
    assert ramp[:3] == [2, 3, 4]
    assert scene.endpoint.limit == scene.auto.state.kept == 32


def test_a_refusal_before_the_last_backlog_is_no_part_of_an_outage() -> None:
    """The limit was learnt since: an outage gives back what was known before it, not before a congestion long ago."""
    scene = Scene(most=64)
    scene.run(60.0)
    scene.run(60.4, lambda _: Busy("429", 0.1))
    scene.run(100.0)
    assert scene.auto.state.kept < 64
    scene.run(104.0, lambda _: ConnectionLost("reset"))
    scene.run(110.0)
    assert scene.auto.state.barred == 64
    assert scene.auto.state.kept < 64
    assert "restored" not in [reason for reason, *_ in scene.decisions]


def test_calls_that_failed_are_no_goodput_and_bad_answers_are() -> None:
    """A limit at which half of the calls fail is half as good; what an answer says is not the load's doing."""
    for error, answers in ((ServerFault("500"), 0), (AnswerEmpty("nothing"), 16)):
        scene = Scene(most=4)
        scene.run(60.0)
        index = len(scene.tallies)
        scene.run(61.9, lambda _, error=error: error)  # type: ignore[misc]
        assert index == len(scene.tallies)
        before = scene.auto._before
        assert before.calls > 0
        assert (before.answers > 0) is (answers > 0)


def test_the_users_ceiling_is_kept_to() -> None:
    """A slower answer than that for more than a twentieth of the calls: fewer slots, though goodput would follow."""
    scene = Scene(lambda n: 0.1 + 0.01 * n, ceiling_s=0.45)
    scene.run(300.0)
    assert 25 <= scene.auto.state.kept <= 35
    free = Scene(lambda n: 0.1 + 0.01 * n)
    free.run(300.0)
    assert free.auto.state.kept > 35


def test_what_changes_nothing_is_not_told() -> None:
    """A ceiling that no limit keeps to ends with one call; that is said once, not each time it is seen."""
    scene = Scene(lambda _: 0.02, ceiling_s=0.01)
    scene.run(30.0)
    assert scene.decisions == [("latency_ceiling", 4, 2), ("latency_ceiling", 2, 1)]


def test_a_call_counts_for_the_round_in_which_it_began() -> None:
    """One that begins in the last part of a round, or began before it, ran under another limit for the most part."""
    auto = AutoLimit(64, wall_clock_s=lambda: 0.0)
    told: list[Tally] = []
    auto._on_decision = lambda *said: told.append(said[-1])
    auto.ended(-0.1, 0.0, answered=True, full=True)  # the first round begins, 0.5 s long
    for began_s in (-0.1, 0.0, 0.1, 0.4, 0.41, 0.49):
        auto.ended(began_s, 0.499, answered=True, full=True)
    assert auto._now.calls == 3
    auto.ended(0.2, 0.5, answered=True, full=True)  # it ends, but what began in it still counts
    auto.ended(0.3, 0.6, answered=True, full=True)
    assert (auto._before.calls, auto._now.calls) == (5, 0)


def test_refused_calls_are_no_calls() -> None:
    """They took no time and say nothing of how long calls take: the cut is what they do."""
    scene = Scene(most=8)
    scene.run(60.0)
    scene.run(60.4, lambda _: Busy("429", 0.1))
    assert (scene.auto._now.calls, scene.auto._before.calls, scene.auto._ended) == (0, 0, 0)


def test_a_pause_between_rounds_is_survived() -> None:
    """Nothing came for minutes: what was measured before counts, or not, but no limit is kept that nobody tried."""
    scene = Scene(most=16)
    scene.run(20.0)
    kept = scene.auto.state.kept
    scene.running.clear()
    scene.endpoint.in_use = 0
    scene.now_s = 500.0
    scene.run(560.0)
    assert scene.auto.state.kept == kept == 16


def test_the_search_goes_on_after_an_outage() -> None:
    """One that hit the search at eight calls does not end it there."""
    scene = Scene(most=64)
    scene.run(4.0)
    assert scene.auto.state.mode == "start"
    kept = scene.auto.state.kept
    scene.run(8.0, lambda _: Overloaded("503", 0.1))
    scene.run(12.0)
    assert scene.auto.state.kept >= kept
    scene.run(80.0)
    assert scene.auto.state.kept == 64
