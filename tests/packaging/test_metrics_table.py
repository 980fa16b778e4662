"""The metrics: how they are named, and that README.md shows the list that the code has."""

import re

import pytest

from tests.support import readme_metrics
from workers import metrics

LABELS = {
    "topic",
    "partition",
    "task",
    "reason",
    "outcome",
    "tier",
    "keep",
    "model",
    "endpoint",
    "direction",
    "kind",
    "rung",
    "result",
    "cause",
    "version",
    "python",
    "aiokafka",
    "faust",
}
"""The closed set: none of them takes a value from a record."""
UNITS = ("_seconds", "_bytes", "_records", "_partitions", "_batches", "_ratio")
WITHOUT_UNIT = frozenset(
    {
        "penstock_task_held",
        "penstock_model_calls_running",
        "penstock_model_slots",
        "penstock_model_slots_found",
        "penstock_breaker_state",
        "penstock_sends_pending",
        "penstock_guard_budget",
        "penstock_ready",
        "penstock_build_info",
    }
)
"""Gauges that count things named before, or that are a state."""

EVERY = pytest.mark.parametrize("series", metrics.SERIES, ids=lambda series: series.name)


def test_readme_shows_the_list_that_the_code_has() -> None:
    """README.md's section between the markers is what `table()` says (`python -m tests.support.readme_metrics`)."""
    assert readme_metrics.section(readme_metrics.README.read_text("utf-8")) == metrics.table()


def test_the_section_is_replaced_and_nothing_else() -> None:
    """Rewriting keeps the text around the markers; missing markers are an error."""
    text = f"a\n{readme_metrics.BEGIN}\nold\n{readme_metrics.END}\nb\n"
    written = readme_metrics.with_section(text, "new")
    assert written == text.replace("old", "new")
    assert readme_metrics.section(written) == "new"
    for broken in ("", readme_metrics.BEGIN, f"{readme_metrics.END}{readme_metrics.BEGIN}", text + text):
        with pytest.raises(ValueError, match="metrics:begin"):
            readme_metrics.section(broken)


def test_the_list_is_what_is_exported() -> None:
    """No series escapes the list, and none is declared twice."""
    declared = [series.name.removesuffix("_total") for series in metrics.SERIES]
    exported = {family.name for family in metrics.REGISTRY.collect() if not family.name.startswith("process_")}
    assert sorted(declared) == sorted(exported)


@EVERY
def test_names_say_whose_and_in_what_unit(series: metrics.Series) -> None:
    """Prefix; `_total` on counters and only there; base units on the rest."""
    assert re.fullmatch(r"penstock(_[a-z]+)+", series.name)
    assert series.name.endswith("_total") == (series.kind == "counter")
    if series.kind == "histogram":
        assert series.name.endswith(("_seconds", "_records"))
    if series.kind == "gauge":
        assert series.name.endswith(UNITS) != (series.name in WITHOUT_UNIT)


@EVERY
def test_labels_come_from_a_closed_set(series: metrics.Series) -> None:
    """A label is one of the known names, once."""
    assert set(series.labels) <= LABELS
    assert len(set(series.labels)) == len(series.labels)


@EVERY
def test_meanings_are_short_and_fit_a_table(series: metrics.Series) -> None:
    """The help text begins with a capital or a digit, ends without a period and has no column mark."""
    assert re.fullmatch(r"[A-Z0-9][^|\n]*[^.\s|]", series.meaning)
    assert len(series.meaning) <= 100
