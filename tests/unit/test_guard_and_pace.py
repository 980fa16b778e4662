"""The guard's budget and the pace of the ladder."""

import pytest

from workers.errors import NotJson, Paused, PromptFailed
from workers.guard import BUDGET, SUCCESSES_PER_REFILL, Guard
from workers.pace import Pace


def test_the_guard_lets_its_budget_through_and_then_pauses() -> None:
    """A bad deployment costs at most 20 dead letters; the next reject is refused before it is produced."""
    guard = Guard()
    for _ in range(BUDGET):
        guard.allow(PromptFailed("x"))
    with pytest.raises(Paused, match="prompt: template: y"):
        guard.allow(PromptFailed("y"))
    assert guard.tripped_by is not None


def test_successes_refill_the_guard_slowly() -> None:
    """One reject in 20 successes is let through for ever: a few bad records are no bad deployment."""
    guard = Guard()
    for _ in range(200):
        guard.allow(PromptFailed("x"))
        for _ in range(SUCCESSES_PER_REFILL):
            guard.succeeded()
    assert guard.tripped_by is None
    assert guard.budget == BUDGET


def test_a_tripped_guard_stays_tripped() -> None:
    """Late successes of records in flight do not reopen a paused task: a person has to look."""
    guard = Guard()
    for _ in range(BUDGET):
        guard.allow(PromptFailed("x"))
    with pytest.raises(Paused):
        guard.allow(PromptFailed("x"))
    for _ in range(500):
        guard.succeeded()
    with pytest.raises(Paused):
        guard.allow(PromptFailed("x"))


def test_bad_input_does_not_draw_on_the_guard_unless_asked() -> None:
    """What producers send wrong is theirs: it costs one dead letter each, without end, unless `decode_guard` is set."""
    guard = Guard()
    for _ in range(1000):
        guard.allow(NotJson("x"))
    strict = Guard(with_decode=True)
    for _ in range(BUDGET):
        strict.allow(NotJson("x"))
    with pytest.raises(Paused):
        strict.allow(NotJson("x"))


def test_pace_spaces_turns_at_the_models_rate() -> None:
    """512 records that leave down the ladder at 100/s need 5.11 s, whenever they ask."""
    now_s = 50.0
    pace = Pace(unlimited=False, clock=lambda: now_s)
    turns = [pace.turn_s(100.0) for _ in range(512)]
    assert turns[0] == 0.0
    assert turns[-1] == pytest.approx(5.11)


def test_pace_gives_unused_turns_back() -> None:
    """A record that the returned model answered does not delay those that still wait."""
    pace = Pace(unlimited=False, clock=lambda: 0.0)
    for _ in range(10):
        pace.turn_s(1.0)
    for _ in range(10):
        pace.give_back(1.0)
    assert pace.turn_s(1.0) == 0.0


def test_unlimited_pace_never_waits() -> None:
    """`fallback_rate: unlimited` lets everything out at once."""
    pace = Pace(unlimited=True)
    assert [pace.turn_s(0.001) for _ in range(5)] == [0.0] * 5
