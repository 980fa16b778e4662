"""`max_in_flight: auto`: whatever a server does, the limit stays in bounds; where goodput has a top, it is found."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.goodput_rounds import after, knee, queue, tally_of, together
from workers.llm import goodput
from workers.llm.goodput import State
from workers.llm.tally import NOTHING, Tally

tallies = st.builds(
    Tally,
    limit=st.integers(0, 300),
    calls=st.integers(0, 500),
    answers=st.integers(0, 500),
    lasted_s=st.floats(0, 1e4, allow_nan=False),
    squares_s2=st.floats(0, 1e8, allow_nan=False),
    over=st.integers(0, 500),
)
steps = st.one_of(
    st.tuples(st.just("round"), tallies, st.booleans()),
    st.tuples(st.just("own"), tallies, st.booleans()),
    st.tuples(st.just("refused"), st.integers(1, 300), st.just(value=False)),
)


@given(st.integers(1, 300), st.lists(steps, max_size=80))
def test_whatever_is_measured_the_limit_stays_in_bounds(most: int, course: list[tuple[str, Tally | int, bool]]) -> None:
    """From one call to the most; what is kept too, and a try is at most two steps from it."""
    state = goodput.begin(most)
    for index, (what, measured, full) in enumerate(course):
        if isinstance(measured, int):
            state = goodput.refused(state, measured)
        else:
            own = NOTHING + measured if what == "round" else _of(state.limit, measured)
            state, _ = goodput.after_round(state, own, judged=index, begins=index + 2, full=full)
        assert 1 <= state.kept <= most
        assert 1 <= state.limit <= most
        assert abs(state.limit - state.kept) <= 2 * goodput.step(state.kept)
        assert state.barred is None or state.barred > state.kept


def _of(limit: int, measured: Tally) -> Tally:
    return Tally(
        limit=limit,
        calls=measured.calls,
        answers=min(measured.answers, measured.calls),
        lasted_s=measured.lasted_s,
        squares_s2=measured.squares_s2,
        over=measured.over,
    )


@settings(max_examples=40)
@given(st.integers(8, 400), st.integers(1, 500), st.integers(0, 7))
def test_a_knee_is_found_from_anywhere(knee_at: int, start: int, first: int) -> None:
    """Goodput of at least 95 % of the best there is, and no more calls than a step past it."""
    state = after(goodput.settled(goodput.begin(1_024), start), lambda n: knee(n, knee_at=knee_at), 1_500, first)
    assert state.kept / knee(state.kept, knee_at=knee_at) >= 0.95 * knee_at / knee(knee_at, knee_at=knee_at)
    assert state.kept <= knee_at + goodput.step(knee_at)


@settings(max_examples=40)
@given(st.integers(1, 300), st.floats(0.01, 30.0))
def test_a_search_finds_how_many_a_server_works_on(slots: int, alone_s: float) -> None:
    """As many as it has slots, or nearly; fewer only where a doubling would have been too many, and then it climbs."""
    state = after(goodput.begin(1_024), queue(slots, alone_s), 1_500)
    assert 0.95 * slots <= state.kept <= slots + goodput.step(slots)


@settings(max_examples=30)
@given(st.lists(st.integers(1, 200), min_size=2, max_size=8), st.integers(0, 7))
def test_workers_on_one_server_neither_starve_it_nor_each_other(starts: list[int], first: int) -> None:
    """Whatever they begin with: nearly all of its goodput, not much more latency than need be, and a share for each."""
    states = [goodput.settled(goodput.begin(1_024), start) for start in starts]
    shares = [state.kept for state in together(states, knee, 1_000, first)]
    total = sum(shares)
    assert total / knee(total) >= 0.9 * 128 / knee(128)
    assert knee(total) <= 2 * knee(128)
    assert sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares)) >= 0.5


@given(st.integers(1, 1_000), st.integers(1, 1_000), st.floats(0.01, 10.0))
def test_of_two_limits_with_the_same_goodput_the_smaller_is_worth_more(few: int, more: int, per_s: float) -> None:
    """Always: what more calls bring then is latency alone."""
    if few < more:
        assert tally_of(few, few / per_s).utility > tally_of(more, more / per_s).utility


@given(st.floats(1e-4, 600.0), st.floats(1e-4, 600.0))
def test_a_round_is_long_enough_and_no_longer_than_need_be(before_s: float, mean_s: float) -> None:
    """A power of two, at least two and a half latencies, less than three times that, half a second at least."""
    now_s = goodput.period_s(before_s)
    period_s = goodput.period_s(mean_s, now_s)
    least_s = max(0.5, 2.5 * mean_s)
    assert least_s <= period_s < 3 * least_s
    assert float(period_s).hex().startswith("0x1.0000000000000p")
    assert goodput.period_s(mean_s, period_s) == period_s


def test_state_is_small() -> None:
    """What is remembered of an endpoint does not grow with time."""
    state: State = goodput.begin(64)
    assert len(repr(after(state, knee, 5_000))) < 4_000
