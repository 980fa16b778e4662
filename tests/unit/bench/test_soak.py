"""What a soak says of growth."""

import pytest

from tests.bench.soak import slope

MINUTES = [minute / 60 for minute in range(120)]


def test_growth_is_told_whatever_faults_throw_off() -> None:
    """One per hour stays one per hour though every tenth is of a fault, all in the second half."""
    values = [100 + hours + (60_000 if at > 60 and at % 5 == 0 else 0) for at, hours in enumerate(MINUTES)]
    assert slope(MINUTES, values) == pytest.approx(1, abs=0.2)


def test_steps_are_growth() -> None:
    """A quarter more after every sixth minute is 2.5 in an hour."""
    values = [at // 6 * 0.25 for at in range(120)]
    assert slope(MINUTES, values) == pytest.approx(2.5, rel=0.05)


def test_one_sample_has_no_slope() -> None:
    """A run that is over before the second sample says 0."""
    assert slope([0.1], [5]) == 0
