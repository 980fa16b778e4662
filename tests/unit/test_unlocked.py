"""Our counters and histograms, held against prometheus_client's own: what is seen from outside is the same."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from workers.unlocked import Counts, Spreads

BOUNDS = (0.005, 0.5, 1.0, 10.0)
LABELS = st.tuples(st.sampled_from(("a", "b")), st.sampled_from(("", 'quote " and \\ and \n', "ü")))
VALUES = st.floats(0, 1e6) | st.sampled_from((0, 1, *BOUNDS))


def page(registry: CollectorRegistry) -> list[str]:
    """Return the exposition without the moments of creation, which ours do not have."""
    return [line for line in generate_latest(registry).decode().splitlines() if "_created" not in line]


@given(st.lists(st.tuples(LABELS, VALUES)))
def test_a_counter_is_exposed_as_prometheus_clients_own(seen: Iterable[tuple[tuple[str, str], float]]) -> None:
    """Names, labels and values, by labels in the order of their first count."""
    theirs, ours = CollectorRegistry(), CollectorRegistry()
    expected = Counter("calls_total", "Calls", ["model", "reason"], registry=theirs)
    counts = Counts("calls_total", "Calls", ["model", "reason"], registry=ours)
    for labels, value in seen:
        expected.labels(*labels).inc(value)
        counts.labels(*labels).inc(value)
        expected.labels(*labels).inc()
        counts.labels(*labels).inc()
    assert page(ours) == page(theirs)


@given(st.lists(st.tuples(LABELS, VALUES)))
def test_a_histogram_is_exposed_as_prometheus_clients_own(seen: Iterable[tuple[tuple[str, str], float]]) -> None:
    """A value that is a bound counts within it; beyond the last one is +Inf."""
    theirs, ours = CollectorRegistry(), CollectorRegistry()
    expected = Histogram("age_seconds", "Age", ["model", "reason"], registry=theirs, buckets=BOUNDS)
    spreads = Spreads("age_seconds", "Age", ["model", "reason"], bounds=BOUNDS, registry=ours)
    for labels, value in seen:
        expected.labels(*labels).observe(value)
        spreads.labels(*labels).observe(value)
    assert page(ours) == page(theirs)


def test_a_series_is_there_from_when_its_labels_are_named() -> None:
    """With zero: a rate over a series that appears with its first count misses that one."""
    registry = CollectorRegistry()
    Counts("calls_total", "Calls", ["model"], registry=registry).labels("m")
    Spreads("age_seconds", "Age", ["model"], bounds=BOUNDS, registry=registry).labels("m")
    assert registry.get_sample_value("calls_total", {"model": "m"}) == 0
    assert registry.get_sample_value("age_seconds_bucket", {"model": "m", "le": "+Inf"}) == 0


@pytest.mark.parametrize("kind", [Counts, Spreads])
def test_a_name_is_taken_once(kind: type[Counts | Spreads]) -> None:
    """As prometheus_client has it: two series of one name would be a page that Prometheus refuses."""
    registry = CollectorRegistry()
    Counter("x_total", "X", registry=registry)
    more = {"bounds": BOUNDS} if kind is Spreads else {}
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        kind("x_total", "X", ["a"], registry=registry, **more)
