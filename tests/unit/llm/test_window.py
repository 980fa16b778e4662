"""Counting over the last seconds: nothing forgotten, nothing kept too long, and a pace that outlives an outage."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.llm.window import Window


@given(st.lists(st.tuples(st.sampled_from(["failed", "answered", "neither"]), st.floats(0, 3)), max_size=60))
def test_the_sums_are_those_of_the_calls_in_the_window(calls: list[tuple[str, float]]) -> None:
    """Against a plain list of calls: every call of the last 9 s counts, none older than 11 s."""
    window, now_s, past = Window(10.0, enough=1), 50.0, []
    for kind, pause_s in calls:
        now_s += pause_s
        past.append((now_s, kind))
        window.add(now_s, failed=kind == "failed", answered=kind == "answered")
        for count, kinds in ((window.calls, None), (window.failures, "failed"), (window.answers, "answered")):
            fits = [at_s for at_s, was in past if kinds in (None, was)]
            assert sum(at_s > now_s - 9 for at_s in fits) <= count <= sum(at_s > now_s - 11.001 for at_s in fits)


def test_a_pace_is_measured_from_enough_answers_on() -> None:
    """A handful of answers is no measurement."""
    window = Window(10.0, enough=20)
    for at in range(19):
        window.add(at / 10, answered=True)
    assert window.rate_per_s() is None
    window.add(1.9, answered=True)
    assert window.rate_per_s() == pytest.approx(20 / 1.9)


def test_failures_and_silence_do_not_pull_the_pace_down() -> None:
    """Seconds without an answer, then a restart of the counting, leave the measured pace."""
    window = Window(10.0, enough=20)
    for at in range(500):
        window.add(at / 100, answered=True)
    for at in range(100):
        window.add(5.0 + at / 5, failed=True)
    window.forget()
    window.add(100.0, answered=True)
    assert window.rate_per_s() == pytest.approx(100, rel=0.05)
    assert window.calls == 1
