"""The breaker: opens when it should and only then, lets one trial in, forgets what was asked before a change."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.errors import (
    AnswerEmpty,
    Busy,
    ConnectFailed,
    ConnectionLost,
    Declined,
    Misconfigured,
    Overloaded,
    PenstockError,
    QuotaSpent,
    ServerFault,
    TimedOut,
)
from workers.llm.breaker import DOUBT, Breaker
from workers.settings.servers import Breaker as BreakerSettings

SETTINGS = BreakerSettings(reset_timeout_s=1.0, failure_ratio=0.5, min_calls=20, window_s=10.0, connect_failures=5)
BLAMED: list[PenstockError] = [ServerFault("500"), TimedOut("slow"), Misconfigured("401"), ConnectFailed("refused")]
NEUTRAL: list[PenstockError] = [Declined("400"), Busy("429")]


def silent(_old: str, _new: str, _reason: str) -> None:
    """Take no note of a change."""


def opened(now_s: float = 0.0) -> Breaker:
    """Return a breaker that has just opened."""
    breaker = Breaker(SETTINGS, silent)
    breaker.record(breaker.epoch, Misconfigured("401"), now_s)
    assert breaker.state == "open"
    return breaker


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 0.5)), max_size=200))
def test_it_opens_exactly_at_the_ratio(calls: list[tuple[bool, float]]) -> None:
    """Against a naive count over the same one-second buckets: open at >= 50 % failures of >= 20 calls in 10 s."""
    breaker = Breaker(SETTINGS, silent)
    now_s = 1000.0
    buckets: dict[int, list[bool]] = {}
    for failed, pause_s in calls:
        now_s += pause_s
        if int(now_s) not in buckets:  # old buckets are dropped when a second sees its first call
            buckets = {second: faults for second, faults in buckets.items() if second > now_s - SETTINGS.window_s}
        buckets.setdefault(int(now_s), []).append(failed)
        breaker.record(breaker.epoch, ServerFault("500") if failed else None, now_s)
        recent = [fault for faults in buckets.values() for fault in faults]
        assert (breaker.state == "open") == (failed and len(recent) >= 20 and sum(recent) * 2 >= len(recent))
        if breaker.state == "open":
            return


def test_ten_percent_failures_never_open_it() -> None:
    """A 10 % tail, several failures in a row among it, is no outage."""
    breaker = Breaker(SETTINGS, silent)
    for at in range(20_000):
        breaker.record(breaker.epoch, TimedOut("slow") if at % 100 < 10 else None, at / 764)
        assert at < 100 or breaker.state == "closed"


def test_connection_failures_in_a_row_open_it_at_once() -> None:
    """Five in a row suffice, however few calls there were; an answer or a timeout in between starts the count anew."""
    changes: list[tuple[str, str, str]] = []
    breaker = Breaker(SETTINGS, lambda *change: changes.append(change))
    lost, slow = [ConnectionLost("reset")] * 4, [TimedOut("slow")]
    for error in [*lost, None, *lost, *slow, *lost]:
        breaker.record(breaker.epoch, error, 1.0)
    assert breaker.state == "closed"
    breaker.record(breaker.epoch, ConnectFailed("refused"), 1.0)
    assert changes == [("closed", "open", "connect_failures")]


@pytest.mark.parametrize(
    ("changes", "enough"), [({}, 10), ({"min_calls": 4}, 10), ({"failure_ratio": 0.7}, 14), ({"min_calls": 999}, 500)]
)
def test_as_many_failures_in_a_row_open_it_as_the_ratio_would_take(changes: dict[str, float], enough: int) -> None:
    """Who wants more failures to be seen gets that here, too; ten is the least: fewer come by chance."""
    assert Breaker(SETTINGS.model_copy(update=changes), silent).enough_in_a_row == enough


def test_failures_in_a_row_open_it_though_the_window_is_full_of_answers() -> None:
    """Its endpoint counts them; a wrong key and an empty account need no second call to say so."""
    for error, reason in (
        (ServerFault("500"), "failures_in_a_row"),
        (Misconfigured("401"), "misconfigured"),
        (QuotaSpent("402"), "quota_spent"),
    ):
        changes: list[tuple[str, str, str]] = []
        breaker = Breaker(SETTINGS, lambda *change, changes=changes: changes.append(change))  # type: ignore[misc]
        for _ in range(100):
            breaker.record(breaker.epoch, None, 1.0)
        breaker.record(breaker.epoch, error, 1.0)
        assert breaker.closed == isinstance(error, ServerFault)
        if breaker.closed:
            breaker.record(breaker.epoch, error, 1.0, in_a_row=True)
        assert changes == [("closed", "open", reason)]
        breaker.record(breaker.epoch - 1, error, 1.0, in_a_row=True)
        assert len(changes) == 1


def test_it_is_in_doubt_while_nothing_but_failures_ends() -> None:
    """From the third on; a sign of life or a change of state ends it, a 503 is neither here nor there."""
    breaker = Breaker(SETTINGS, silent)
    signs = (None, AnswerEmpty("null"), Declined("400"), Busy("429"))
    for sign in signs:
        for error in (TimedOut("slow"), ServerFault("500"), Overloaded("503"), Overloaded("503")):
            breaker.record(breaker.epoch, error, 1.0)
            assert not breaker.in_doubt
        breaker.record(breaker.epoch, TimedOut("slow"), 1.0)
        assert breaker.in_doubt
        breaker.record(breaker.epoch, sign, 1.0)
        assert not breaker.in_doubt
        breaker = Breaker(SETTINGS, silent)
    for _ in range(DOUBT):
        breaker.record(breaker.epoch, TimedOut("slow"), 1.0)
    breaker.record(breaker.epoch, Misconfigured("401"), 1.0)
    assert not breaker.in_doubt


def test_a_fault_of_configuration_opens_it_at_once_and_says_why() -> None:
    """One 401 is enough: nobody else need be refused."""
    breaker = opened()
    assert breaker.misconfigured
    assert breaker.why == "401"


@given(st.lists(st.sampled_from([*NEUTRAL, AnswerEmpty("null"), None]), max_size=100))
def test_answers_and_refusals_of_one_request_never_open_it(errors: list[PenstockError | None]) -> None:
    """400, 429 and useless answers come from an endpoint that works."""
    breaker = Breaker(SETTINGS, silent)
    for error in errors:
        breaker.record(breaker.epoch, error, 1.0)
    assert breaker.state == "closed"


@pytest.mark.fault("P5")
@given(st.sampled_from([*BLAMED, *NEUTRAL, AnswerEmpty("null"), None]))
def test_one_trial_decides(error: PenstockError | None) -> None:
    """After the pause exactly one call is let in; its end closes the breaker or opens it for another pause."""
    breaker = opened(now_s=5.0)
    assert not breaker.admits(5.9)
    assert breaker.admits_from_s() == 6.0
    assert breaker.admits(6.0)
    assert breaker.enter()
    assert not breaker.admits(60.0)
    breaker.record(breaker.epoch, error, 7.0)
    if error is not None and error.blames_endpoint:
        assert breaker.state == "open"
        assert breaker.admits_from_s() == 8.0
        assert breaker.misconfigured == isinstance(error, Misconfigured)
    else:
        assert breaker.state == "closed"
        assert not breaker.misconfigured


def test_a_cancelled_trial_says_nothing() -> None:
    """After a cancelled trial the next call is the trial, at once."""
    breaker = opened()
    assert breaker.enter()
    breaker.abandon(breaker.epoch, trial=True)
    assert breaker.state == "half-open"
    assert breaker.admits(1.0)


def test_the_end_of_an_older_call_changes_nothing() -> None:
    """Calls that began before the breaker opened neither close it nor prolong it, but their answers are known of."""
    breaker = Breaker(SETTINGS, silent)
    before = breaker.epoch
    breaker.record(before, Misconfigured("401"), 1.0)
    breaker.record(before, None, 1.5)
    assert breaker.state == "open"
    assert breaker.last_answer_s == 1.5
    assert breaker.enter()
    breaker.record(before, ServerFault("500"), 2.0)
    assert breaker.state == "half-open"


def test_the_pace_survives_an_outage() -> None:
    """The rate measured before the failures is the rate after ten minutes of them."""
    breaker = Breaker(SETTINGS, silent)
    assert breaker.rate_per_s() is None
    for at in range(1000):
        breaker.record(breaker.epoch, None, at / 100)
    for at in range(2000):
        breaker.record(breaker.epoch, TimedOut("slow"), 10.0 + at / 100)
    assert breaker.state == "open"
    for at in range(600):
        if breaker.admits(40.0 + at):
            breaker.enter()
        breaker.record(breaker.epoch, TimedOut("slow"), 40.5 + at)
    rate = breaker.rate_per_s()
    assert rate is not None
    assert 90 <= rate <= 110
