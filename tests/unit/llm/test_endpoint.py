"""Slots and cool-downs of one endpoint: one congestion is one cut, answers give the slots back."""

import pytest

from workers.errors import Busy, Declined, Overloaded, PenstockError, ServerFault, TimedOut
from workers.llm.breaker import DOUBT, IN_A_ROW, Breaker
from workers.llm.endpoint import Endpoint, Grant
from workers.settings.servers import Breaker as BreakerSettings


def endpoint_with(slots: int) -> Endpoint:
    """Return an endpoint with a closed breaker."""
    return Endpoint(0, "http://m", slots, Breaker(BreakerSettings(), lambda *_: None))


def test_calls_refused_together_cut_the_slots_once() -> None:
    """Eight 429 to eight calls that ran side by side halve the limit; the next congestion halves it again."""
    endpoint = endpoint_with(8)
    for grant in [endpoint.enter(1.0) for _ in range(8)]:
        endpoint.settle(grant, Busy("429", 2.0), 1.5)
    assert endpoint.limit == 4
    assert endpoint.admits_from_s() == 3.5
    endpoint.settle(endpoint.enter(3.5), None, 3.55)
    endpoint.settle(endpoint.enter(3.56), Overloaded("503", 1.0), 3.6)
    assert endpoint.limit == 2
    assert endpoint.cool_until_s == pytest.approx(4.6)


def test_refused_again_one_call_finds_out() -> None:
    """With no answer in between, the next wave is a single call, not a quarter of the slots."""
    endpoint = endpoint_with(64)
    for grant in [endpoint.enter(1.0) for _ in range(64)]:
        endpoint.settle(grant, Busy("429", 1.0), 1.5)
    for grant in [endpoint.enter(2.5) for _ in range(32)]:
        endpoint.settle(grant, Busy("429", 1.0), 2.6)
    assert endpoint.limit == 1
    endpoint.settle(endpoint.enter(3.6), Busy("429", 1.0), 3.7)
    assert endpoint.limit == 1


def test_one_slot_always_remains() -> None:
    """However long it goes on, one call may still ask."""
    endpoint = endpoint_with(4)
    for at in range(10):
        endpoint.settle(endpoint.enter(float(at)), Busy("429", 0.1), at + 0.5)
    assert endpoint.limit == 1


@pytest.mark.parametrize("slots", [1, 4])
def test_cool_downs_without_a_time_double_and_answers_end_that(slots: int) -> None:
    """A server that gives no time is left alone for longer each time it refuses in a row, until it answers."""
    endpoint = endpoint_with(slots)
    now_s, pauses_s = 0.0, []
    for error in (Busy("429"), Busy("429"), Busy("429"), None, Busy("429")):
        endpoint.settle(endpoint.enter(now_s), error, now_s)
        if error is not None:
            pauses_s.append(endpoint.cool_until_s - now_s)
            now_s = endpoint.cool_until_s
    for pause_s, full_s in zip(pauses_s, (0.5, 1.0, 2.0, 0.5), strict=True):
        assert 0.75 * full_s <= pause_s <= full_s


@pytest.mark.parametrize(("asked_s", "next_trial_s"), [(None, 1.0), (7.0, 7.0)])
def test_an_open_breaker_needs_no_cool_down_of_ours(asked_s: float | None, next_trial_s: float) -> None:
    """Trials that end in 503 go on once per `reset_timeout_s`, unless the server asks for more: it may be back."""
    endpoint = Endpoint(0, "http://m", 4, Breaker(BreakerSettings(min_calls=1, reset_timeout_s=1.0), lambda *_: None))
    now_s = 0.0
    for _ in range(6):
        endpoint.settle(endpoint.enter(now_s), Overloaded("503", asked_s), now_s)
        assert endpoint.admits_from_s() == now_s + next_trial_s
        now_s = endpoint.admits_from_s()


def test_after_an_outage_the_slots_are_back_within_a_few_calls_each() -> None:
    """503s that open the breaker cut once, its failed trials not at all; then each answer gives one slot back."""
    endpoint = Endpoint(0, "http://m", 64, Breaker(BreakerSettings(min_calls=20, reset_timeout_s=1.0), lambda *_: None))
    for grant in [endpoint.enter(0.0) for _ in range(64)]:
        endpoint.settle(grant, Overloaded("503", 0.1), 0.1)
    for at in range(2, 12):
        endpoint.settle(endpoint.enter(float(at)), Overloaded("503"), float(at))
    assert endpoint.limit == 32
    for answers in range(1, 34):
        endpoint.settle(endpoint.enter(20.0), None, 20.2)
        assert endpoint.limit == min(64, 32 + answers)


@pytest.mark.parametrize(("refusals", "after_20_answers"), [(1, 32), (2, 16), (3, 21), (4, 21)])
def test_a_congestion_is_recovered_from_slowly_and_a_server_that_refused_everything_quickly(
    refusals: int, after_20_answers: int
) -> None:
    """One or two refusals in a row say that there were too many calls; from the third on, that nobody was served."""
    endpoint = endpoint_with(64)
    for at in range(refusals):
        endpoint.settle(endpoint.enter(float(at)), Overloaded("503", 0.1), float(at))
    for _ in range(20):
        endpoint.settle(endpoint.enter(22.0), None, 22.2)
    assert endpoint.limit == after_20_answers


def test_answers_give_slots_back_up_to_what_is_configured() -> None:
    """`limit` answers buy one slot; the configured number is never exceeded; other failures change nothing."""
    endpoint = endpoint_with(4)
    endpoint.settle(endpoint.enter(0.0), Busy("429", 0.1), 0.0)
    endpoint.settle(endpoint.enter(1.0), ServerFault("500"), 1.0)
    limits = []
    for at in range(10):
        endpoint.settle(endpoint.enter(2.0 + at), None, 2.0 + at)
        limits.append(endpoint.limit)
    assert limits == [2, 3, 3, 3, 4, 4, 4, 4, 4, 4]


def test_a_grant_is_given_back_once() -> None:
    """Releasing what was settled or released has no effect."""
    endpoint = endpoint_with(2)
    first, second = endpoint.enter(0.0), endpoint.enter(0.0)
    endpoint.settle(first, None, 1.0)
    endpoint.release(first)
    endpoint.release(second)
    endpoint.release(second)
    assert endpoint.in_use == 0


def fail_one(endpoint: Endpoint, at_s: float, *, again: bool = False, error: PenstockError | None = None) -> None:
    """Let a call begin and fail."""
    endpoint.settle(endpoint.enter(at_s, again=again), error or ServerFault("500"), at_s + 0.1)


def busy_endpoint() -> Endpoint:
    """Return an endpoint whose window is full of answers."""
    endpoint = endpoint_with(64)
    for _ in range(500):
        endpoint.settle(endpoint.enter(0.0), None, 0.5)
    return endpoint


def test_in_doubt_there_is_room_for_three_calls_until_one_is_answered() -> None:
    """After three failures calls that run go on, but no further one begins beside them; an answer ends that."""
    endpoint = busy_endpoint()
    running = [endpoint.enter(1.0) for _ in range(8)]
    for grant in running[:DOUBT]:
        assert endpoint.admits(2.0)
        endpoint.settle(grant, TimedOut("slow"), 2.0)
    assert (endpoint.room, endpoint.limit, endpoint.in_use) == (3, 64, 5)
    assert not endpoint.admits(2.0)
    assert endpoint.admits_from_s() == float("inf")
    for grant in running[DOUBT:6]:
        endpoint.settle(grant, TimedOut("slow"), 2.0)
    assert endpoint.admits(2.0)
    assert endpoint.admits_from_s() < 2.0
    endpoint.settle(running[6], None, 2.1)
    assert endpoint.room == 64


def test_doubt_gives_no_room_that_a_congestion_has_taken() -> None:
    """The slots that 429 and 503 have cut stay cut."""
    endpoint = endpoint_with(4)
    for at in (0.0, 1.0):
        fail_one(endpoint, at, error=Busy("429", 0.1))
    for at in range(DOUBT):
        fail_one(endpoint, 2.0 + at)
    assert endpoint.room == endpoint.limit == 1


@pytest.mark.parametrize("between", [Busy("429", 0.0), Overloaded("503", 0.0), "cancelled", "again"])
def test_what_says_nothing_about_the_server_neither_counts_in_a_row_nor_ends_it(between: PenstockError | str) -> None:
    """Refusals that ask for time, cancelled calls, and repeats of a record that may itself be to blame."""
    endpoint = busy_endpoint()
    for nth in range(IN_A_ROW):
        assert endpoint.breaker.closed
        for _ in range(3):
            if between == "again":
                fail_one(endpoint, 1.0 + nth, again=True)
            elif isinstance(between, PenstockError):
                endpoint.settle(endpoint.enter(1.0 + nth), between, 1.0 + nth)
            else:
                endpoint.release(endpoint.enter(1.0 + nth))
        fail_one(endpoint, 1.0 + nth)
    assert endpoint.breaker.state == "open"


@pytest.mark.parametrize("sign", [None, Declined("400")])
def test_an_answer_ends_the_row_for_what_began_before_it(sign: PenstockError | None) -> None:
    """Not for what began later: answers to calls from before an outage come during it."""
    endpoint = busy_endpoint()
    old: list[Grant] = [endpoint.enter(0.9) for _ in range(IN_A_ROW)]
    for nth in range(IN_A_ROW - 1):
        fail_one(endpoint, 1.0 + nth / 10)
        endpoint.settle(old[nth], sign, 1.05 + nth / 10)
    late = endpoint.enter(2.0)
    fail_one(endpoint, 2.0)
    assert endpoint.breaker.closed, "a call between them still runs"
    endpoint.settle(late, sign, 2.5)
    for nth in range(IN_A_ROW - 2):
        fail_one(endpoint, 3.0 + nth / 10)
    assert endpoint.breaker.closed
    fail_one(endpoint, 4.0)
    assert endpoint.breaker.state == "open"


def test_after_it_was_open_failures_in_a_row_are_counted_anew() -> None:
    """Calls from before it opened that fail after it closed do not open it again."""
    endpoint = busy_endpoint()
    old = [endpoint.enter(0.9) for _ in range(IN_A_ROW)]
    for nth in range(IN_A_ROW):
        fail_one(endpoint, 1.0 + nth / 10)
    assert endpoint.breaker.state == "open"
    endpoint.settle(endpoint.enter(9.0), None, 9.1)
    assert endpoint.breaker.closed
    for nth in range(IN_A_ROW - 1):
        fail_one(endpoint, 10.0 + nth / 10)
        endpoint.settle(old[nth], TimedOut("slow"), 10.0 + nth / 10)
    assert endpoint.breaker.closed
    fail_one(endpoint, 12.0)
    assert endpoint.breaker.state == "open"


def test_an_outage_leaves_nothing_behind() -> None:
    """However long it was, and though the trial that ends it is told to wait: nine failures then are nine."""
    endpoint = busy_endpoint()
    for at in range(1, 1000):
        if endpoint.admits(float(at)):
            fail_one(endpoint, float(at), error=TimedOut("slow"))
    assert endpoint.breaker.state == "open"
    assert len(endpoint._streak._calls) < IN_A_ROW
    endpoint.settle(endpoint.enter(1001.0), Busy("429", 0.0), 1001.0)
    assert endpoint.breaker.closed
    for nth in range(IN_A_ROW - 1):
        fail_one(endpoint, 1002.0 + nth)
    assert endpoint.breaker.closed
    fail_one(endpoint, 1012.0)
    assert endpoint.breaker.state == "open"
