"""The budget for second calls: a tenth of the first ones and a reserve, in every order."""

from hypothesis import given
from hypothesis import strategies as st

from workers.retry_budget import RESERVE, SHARE, RetryBudget


@given(st.lists(st.booleans(), max_size=400))
def test_no_order_of_calls_spends_more_than_was_earned(firsts: list[bool]) -> None:
    """Of any sequence of first calls and wishes for more, so many wishes are granted at most."""
    budget, earned, granted = RetryBudget(), 0, 0
    for first in firsts:
        if first:
            budget.earn()
            earned += 1
        else:
            granted += budget.spend()
        assert 0 <= budget.left <= RESERVE
    assert granted <= RESERVE + SHARE * earned


def test_what_was_earned_is_granted() -> None:
    """After the reserve is gone, ten more first calls pay for one more."""
    budget = RetryBudget()
    assert sum(budget.spend() for _ in range(50)) == RESERVE
    for _ in range(11):
        budget.earn()
    assert [budget.spend(), budget.spend()] == [True, False]
