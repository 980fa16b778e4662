"""Budgets under any order of calls, of days and of clocks that are set."""

from hypothesis import given
from hypothesis import strategies as st

from workers.budget import DAY_S, Budget
from workers.settings.budget import BudgetSettings

LIMIT_TOKENS = 100
LARGEST_TOKENS = 60
CALLS = st.lists(st.one_of(st.just("begin"), st.integers(1, LARGEST_TOKENS)), max_size=200)


@given(calls=CALLS, at_once=st.integers(1, 8), share=st.integers(1, 4))
def test_a_limit_is_passed_by_no_more_than_what_is_in_flight(calls: list[str | int], at_once: int, share: int) -> None:
    """With n calls at the same time the sum stays below limit + n x the largest, in every order of begins and ends."""
    budget = Budget(BudgetSettings(tokens_per_day=LIMIT_TOKENS), wall_s=lambda: 0.0)
    budget.take_share(share, 4)
    limit, running, charged = LIMIT_TOKENS * share / 4, 0, 0
    for step in calls:
        if step == "begin":
            running += running < at_once and budget.refuses(costs=False) is None
        elif running:
            running -= 1
            budget.charge(int(step), 0.0)
            charged += int(step)
        assert charged < limit + at_once * LARGEST_TOKENS
        assert (budget.refuses(costs=False) is not None) == (charged >= limit)


@given(steps=st.lists(st.tuples(st.integers(-3 * DAY_S, 3 * DAY_S), st.integers(0, 50)), max_size=60))
def test_each_day_is_begun_at_most_once(steps: list[tuple[int, int]]) -> None:
    """However the clock is set: the count falls only when a later day than ever before has begun, and then to 0."""
    now_s = [100 * DAY_S]
    budget = Budget(BudgetSettings(tokens_per_day=1_000), wall_s=lambda: now_s[0])
    latest, used = 100, 0
    for step_s, tokens in steps:
        now_s[0] += step_s
        if now_s[0] // DAY_S > latest:
            latest, used = now_s[0] // DAY_S, 0
        budget.charge(tokens, 0.0)
        used += tokens
        assert budget.spent_ratios()["tokens"] == used / 1_000
