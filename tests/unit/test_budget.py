"""A budget by itself: what it counts, what it forbids, what a day and a share are."""

from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import ValidationError

from workers.budget import DAY_S, Budget, estimated_tokens, tokens_used
from workers.settings.budget import BudgetSettings, Price

NOON_S = 20_000 * DAY_S + DAY_S // 2


@dataclass
class WallClock:
    """A wall clock that stands until it is set."""

    now_s: float = NOON_S

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s


def budget(clock: WallClock | None = None, **settings: Any) -> Budget:
    """A budget at noon."""
    return Budget(BudgetSettings(**settings), clock or WallClock())


def test_a_limit_of_tokens_forbids_every_call_once_it_is_used() -> None:
    """Whatever the model costs: less than the limit allows a call, the limit itself does not."""
    ours = budget(tokens_per_day=100)
    ours.charge(99, 5.0)
    assert ours.refuses(costs=True) is None
    ours.charge(1, 0.0)
    assert (ours.refuses(costs=True), ours.refuses(costs=False)) == ("tokens", "tokens")


def test_a_limit_of_dollars_forbids_only_what_costs() -> None:
    """A model without a price is asked on."""
    ours = budget(usd_per_day=1.0)
    ours.charge(10**9, 1.0)
    assert (ours.refuses(costs=True), ours.refuses(costs=False)) == ("usd", None)


def test_of_two_limits_each_forbids() -> None:
    """Whichever is used first."""
    for tokens, usd, kind in ((10, 0.1, "tokens"), (1, 1.0, "usd")):
        ours = budget(tokens_per_day=10, usd_per_day=1.0)
        ours.charge(tokens, usd)
        assert ours.refuses(costs=True) == kind


def test_a_day_ends_at_midnight_utc() -> None:
    """A second before it the budget is spent, at midnight it is whole, and one line may be logged again."""
    clock = WallClock()
    ours = budget(clock, tokens_per_day=10)
    ours.charge(10, 0.0)
    assert ours.first_refusal("tokens")
    assert not ours.first_refusal("tokens")
    clock.now_s = NOON_S + DAY_S // 2 - 1
    assert ours.refuses(costs=False) == "tokens"
    clock.now_s += 1
    assert ours.refuses(costs=False) is None
    assert ours.first_refusal("tokens")


def test_a_clock_that_is_set_back_refills_nothing() -> None:
    """Neither going back nor coming again to the same midnight begins a new day; the next one does."""
    clock = WallClock()
    ours = budget(clock, tokens_per_day=10)
    ours.charge(10, 0.0)
    for days, refused in ((-1, "tokens"), (0, "tokens"), (-30, "tokens"), (1, None)):
        clock.now_s = NOON_S + days * DAY_S
        assert ours.refuses(costs=False) == refused, days
    ours.charge(10, 0.0)
    clock.now_s = NOON_S
    assert ours.refuses(costs=False) == "tokens"
    clock.now_s = NOON_S + DAY_S
    assert ours.refuses(costs=False) == "tokens"


def test_what_was_charged_before_midnight_is_not_charged_to_the_new_day() -> None:
    """A call that ends after midnight is the new day's; those before are forgotten, also when nobody asked since."""
    clock = WallClock()
    ours = budget(clock, tokens_per_day=10)
    ours.charge(9, 0.0)
    clock.now_s += DAY_S
    ours.charge(9, 0.0)
    assert ours.spent_ratios() == {"tokens": 0.9}


def test_a_replica_has_the_share_of_its_partitions() -> None:
    """A quarter of the partitions is a quarter of each limit; partitions that come bring theirs along."""
    ours = budget(tokens_per_day=100, usd_per_day=4.0)
    ours.take_share(1, 4)
    ours.charge(24, 0.9)
    assert ours.refuses(costs=True) is None
    ours.charge(1, 0.0)
    assert ours.refuses(costs=True) == "tokens"
    ours.take_share(2, 4)
    assert ours.refuses(costs=True) is None
    assert ours.spent_ratios() == {"tokens": 0.5, "usd": pytest.approx(0.45)}


def test_without_a_partition_nothing_may_be_used_and_nothing_counts_as_spent() -> None:
    """No alert for a replica that stands by. An unknown number of partitions changes nothing."""
    ours = budget(tokens_per_day=100)
    ours.take_share(0, 0)
    assert ours.refuses(costs=True) is None
    ours.take_share(0, 4)
    assert ours.refuses(costs=True) == "tokens"
    assert ours.spent_ratios() == {"tokens": 0.0}


def test_it_says_what_is_spent_of_what() -> None:
    """For a log line and /readyz: limit, share and use, in figures that can be read."""
    ours = budget(tokens_per_day=5_000_000)
    ours.take_share(1, 2)
    ours.charge(2_500_123, 0.0)
    assert ours.says("tokens") == ("tokens_per_day is spent: 2500123 of 2500000, this replica's share of 5000000")


@pytest.mark.parametrize(
    ("counted", "used"), [((11, 7), (11, 7)), ((0, 7), (4, 7)), ((11, 0), (11, 2)), ((0, 0), (4, 2))]
)
def test_what_the_server_does_not_count_is_estimated(counted: tuple[int, int], used: tuple[int, int]) -> None:
    """Each direction for itself, a third of the bytes, rounded up: a limit must hold on any server."""
    assert tokens_used(b"0123456789", "four", *counted) == used
    assert estimated_tokens(b"") == 0


def test_a_price_is_per_million_tokens() -> None:
    """Request and answer have each their own; both 0 is a model that costs nothing."""
    price = Price(input_usd_per_1m_tokens=0.25, output_usd_per_1m_tokens=2.0)
    assert price.cost_usd(1_000_000, 500_000) == pytest.approx(1.25)
    assert not price.free
    assert Price(input_usd_per_1m_tokens=0.0, output_usd_per_1m_tokens=0.0).free


@pytest.mark.parametrize(
    "settings", [{}, {"tokens_per_day": 0}, {"tokens_per_day": -1}, {"usd_per_day": 0.0}, {"usd_per_day": -1.0}]
)
def test_a_budget_of_nothing_is_refused(settings: dict[str, Any]) -> None:
    """No limit, and one of 0, are mistakes."""
    with pytest.raises(ValidationError):
        BudgetSettings(**settings)


def test_a_price_is_not_negative() -> None:
    """Nobody is paid for asking."""
    with pytest.raises(ValidationError):
        Price(input_usd_per_1m_tokens=-0.1, output_usd_per_1m_tokens=1.0)
