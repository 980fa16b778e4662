"""The demo's figures: exact percentiles, and what an outage has to show."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from workers.demo.figures import Outage, Spread, spread

OUTAGE = Outage(opened_at_s=100.0, closed_at_s=103.0, pace_per_s=40.0, left_unasked=120, answered_after=1)


def test_percentiles_are_durations_that_were_seen() -> None:
    """Nearest rank: of a hundred, the 50th, 95th and 99th; of four, the last; of one, itself; of none, none."""
    assert spread(n / 10 for n in range(100, 0, -1)) == Spread(records=100, p50_s=5.0, p95_s=9.5, p99_s=9.9)
    assert spread([1.0, 2.0, 3.0, 4.0]) == Spread(records=4, p50_s=2.0, p95_s=4.0, p99_s=4.0)
    assert spread([0.25]) == Spread(records=1, p50_s=0.25, p95_s=0.25, p99_s=0.25)
    assert spread([]) == Spread(records=0, p50_s=None, p95_s=None, p99_s=None)


@given(st.lists(st.integers(0, 10_000).map(lambda ms: ms / 1000), min_size=1))
def test_percentiles_are_in_order(durations_s: list[float]) -> None:
    """Whatever the durations, P50 <= P95 <= P99, and each is one of them."""
    found = spread(durations_s)
    assert found.p50_s is not None
    assert found.p95_s is not None
    assert found.p99_s is not None
    assert found.p50_s <= found.p95_s <= found.p99_s
    assert {found.p50_s, found.p95_s, found.p99_s} <= set(durations_s)


def test_leaving_faster_than_the_models_pace_is_a_problem() -> None:
    """As many as the pace allows may leave in an outage, some slack for measuring included; a drained backlog not."""
    assert OUTAGE.problems() == []
    assert replace(OUTAGE, left_unasked=155).problems() == []
    told = replace(OUTAGE, left_unasked=156).problems()
    assert told == ["156 records left down the ladder in 3.0 s, faster than the model's 40/s"]


def test_a_model_that_never_answers_again_is_a_problem() -> None:
    """A breaker that closed must be followed by answers."""
    assert replace(OUTAGE, answered_after=0).problems() == ["the model answered no record after its return"]
