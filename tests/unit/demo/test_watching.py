"""What the demo sees of the worker: its metrics page, and happenings, each told once."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from workers.demo.metrics_page import Snapshot, snapshot
from workers.demo.sightings import CLOSED, OPENED, WHILE_AWAY, Sightings

PAGE = """\
# HELP penstock_records_total Finished records
# TYPE penstock_records_total counter
penstock_records_total{outcome="enriched",reason="",task="t",tier="model"} 40.0
penstock_records_total{outcome="fallback",reason="timeout",task="t",tier="rules"} 2.0
penstock_records_total{outcome="fallback",reason="breaker_open",task="t",tier="rules"} 5.0
penstock_records_total{outcome="rejected",reason="not_json",task="t",tier=""} 3.0
penstock_records_total{outcome="erased",reason="",task="t",tier=""} 1.0
penstock_in_flight_records{task="t"} 7.0
penstock_breaker_state{endpoint="http://127.0.0.1:1",model="small"} 2.0
penstock_event_loop_lag_seconds 1.5e-05
"""


def test_the_page_is_read() -> None:
    """Records are summed by who answered them, over reasons; dead letters and tombstones have names of their own."""
    seen = snapshot(PAGE)
    assert seen.answered_by == {"model": 40, "rules": 7, "dead letter": 3, "tombstone": 1}
    assert (seen.done, seen.in_flight, seen.breaker) == (51, 7, "open")
    assert snapshot("") == Snapshot()


def lines(*events: str) -> Any:
    """A log that has these lines."""

    def logged(event: str) -> Iterable[dict[str, Any]]:
        return [{"event": event, "reason": "connect_failures"} for one in events if one == event]

    return logged


def test_each_thing_is_told_once_and_what_never_came_is_missing() -> None:
    """Nothing is seen before it happened, nothing is told twice, and the rest is a list of sentences."""
    sightings = Sightings()
    assert list(sightings.look(lines(), Snapshot(answered_by=Counter(model=9)))) == []
    assert len(sightings.missing()) == len(WHILE_AWAY) + 1
    (told,) = sightings.look(lines(OPENED, OPENED), None)
    assert told.startswith("the breaker opened (connect_failures)")
    ladder = Snapshot(answered_by=Counter(rules=1, review=1))
    assert len(list(sightings.look(lines(OPENED), ladder))) == 2
    assert list(sightings.look(lines(OPENED), ladder)) == []
    assert not sightings.has(*WHILE_AWAY)
    assert len(list(sightings.look(lines(OPENED, CLOSED), Snapshot(answered_by=Counter(default=1))))) == 2
    assert sightings.has(*WHILE_AWAY)
    assert sightings.missing() == []
