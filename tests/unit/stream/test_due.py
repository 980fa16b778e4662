"""Which records of a retry topic are due, and what they were before."""

import pytest

from tests.support.wire import make_record
from topics import retries
from topics.retries import Retry
from workers.stream.due import CREDIBLE_DELAYS, LOOK_AGAIN_S, due, restored

NOW_S = 1_000_000.0
DELAY_S = 60.0


def sent(*ages_s: float) -> list[int]:
    """The timestamps of records of these ages."""
    return [round((NOW_S - age_s) * 1000) for age_s in ages_s]


@pytest.mark.parametrize(
    ("ages_s", "count", "wait_s"),
    [
        ((), 0, 0.0),
        ((60.0,), 1, 0.0),
        ((90.0, 60.0, 59.0, 1.0), 2, 1.0),
        ((59.0, 90.0), 0, 1.0),  # a clock that goes wrong: offsets decide
        ((59.9,), 0, LOOK_AGAIN_S),
        ((0.0,), 0, 60.0),
        ((-30.0,), 0, 90.0),  # written by a replica whose clock is ahead
        ((-61.0,), 1, 0.0),  # not credible
        ((-3600.0, 1.0), 1, 59.0),
    ],
)
def test_records_are_due_in_the_order_of_offsets(ages_s: tuple[float, ...], count: int, wait_s: float) -> None:
    """Up to the first that is not; then it is looked at again when that one is."""
    assert due(sent(*ages_s), DELAY_S, NOW_S) == (count, pytest.approx(wait_s))
    assert CREDIBLE_DELAYS == 2


def test_without_a_timestamp_a_record_is_due() -> None:
    """Kafka's -1: nobody can tell since when it waits."""
    assert due([-1], DELAY_S, NOW_S) == (1, 0.0)


def deferred(topic: str = "in") -> list[tuple[str, bytes | None]]:
    """Headers of a deferred record."""
    retry = Retry(topic=topic, partition=7, offset=42, timestamp_ms=5, deferrals=3)
    return retries.headers([("a", b"b")], retry, source=f"{topic}/7/42", task="t", reason="timeout")


def test_a_record_that_comes_back_is_what_it_was() -> None:
    """Coordinates, timestamp and headers are those of the input; key and value were never touched."""
    record = make_record(topic="in.t.retry", headers=deferred())
    assert restored(record, {"in", "in.t.retry"}) == (
        make_record(topic="in", partition=7, offset=42, timestamp_ms=5, headers=[("a", b"b")]),
        3,
    )


@pytest.mark.parametrize("headers", [[], [("__penstock.retry.from", b"in/0/0")], deferred("elsewhere")])
def test_a_stranger_is_a_record_of_its_own(headers: list[tuple[str, bytes | None]]) -> None:
    """What does not name a topic of the task cannot be routed by that name."""
    record = make_record(topic="in.t.retry", headers=headers)
    assert restored(record, {"in", "in.t.retry"}) == (record, 0)
