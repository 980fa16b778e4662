"""The bench's report: from lines of results to tables and plots, the failures in it."""

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from tests.bench.matrix import report
from tests.bench.matrix.lines import latest, read
from tests.bench.matrix.plots import plots
from tests.bench.matrix.tables import summary, table
from tests.support.page import with_block


def line(workload: str = "W1", case: str = "64", worker: str = "penstock", **figures: Any) -> dict[str, Any]:
    """Return a line of results."""
    about = {"run": "2026-01-01T00:00:00Z", "round": 0, "order": "none", "setting": "as it is", "versions": {"x": "1"}}
    machine = {"cores": 2, "processor": "a processor", "memory_gib": 8, "python": "3.11.7", "kafka": "4.1.1"}
    named = {"workload": workload, "case": case, "worker": worker, "machine": machine}
    return about | named | {"lost": 0, "records_per_s": 400.0, "others_cores": 0.1} | figures


def w1(worker: str, *rates: float) -> list[dict[str, Any]]:
    """Return lines of W1, one for each rate, at 64 and at 256 slots."""
    return [
        line(worker=worker, case=case, round=number, records_per_s=rate * int(case), of_ideal=rate * 0.15)
        for case in ("64", "256")
        for number, rate in enumerate(rates)
    ]


def test_a_cell_shows_the_median_and_the_range() -> None:
    """And one number where they look the same."""
    rows = table("W1", w1("penstock", 6.0, 6.6, 6.5)).splitlines()
    assert rows[4].startswith("| 64 | penstock | none | 0 | 97.5 (90.0-99.0) | 416 (384-422) |")


def test_one_failed_repetition_fails_the_cell() -> None:
    """A worker that loses records now and then has no speed."""
    lines = [*w1("penstock", 6.6, 6.6), line(round=2, failed="3 lost", lost=3, of_ideal=1.0)]
    (row,) = [row for row in table("W1", lines).splitlines() if row.startswith("| 64 ")]
    assert "**failed**: 3 lost" in row
    assert "99.0" not in row
    assert "| penstock | **failed** | 99.0 |" in summary(lines)


def test_only_what_was_measured_together_is_shown_together() -> None:
    """Of each case the last run counts, also when another case was run later."""
    old = [line(worker=worker, of_ideal=0.5) for worker in ("penstock", "connect")]
    other = line("W1", "256", of_ideal=0.7)
    new = [line(run="2026-01-02T00:00:00Z", of_ideal=0.9), line("W3", "256", cpu_us_per_record=90.0)]
    shown = latest([*old, other, *new])
    assert shown == [other, *new]
    assert "| connect |" not in table("W1", shown)


def test_the_summary_has_the_columns_that_were_measured() -> None:
    """A worker that took no part in a workload has a dash there."""
    lines = [line(of_ideal=0.98), line("W3", "256", "connect", cpu_us_per_record=139.6)]
    assert summary(lines).splitlines() == [
        "| worker | W1, N=64, % of ideal | W3, us CPU per record |",
        "| --- | --- | --- |",
        "| penstock | 98.0 | - |",
        "| connect | - | 140 |",
    ]


def test_plots_are_svg_of_what_there_is() -> None:
    """No data, no plot; Little's law stands beside the rates."""
    outage = line("W5", "503", fault_at_s=2.0, series=[[0.0, 0], [1.0, 400], [2.0, 800], [3.0, 800], [4.0, 1200]])
    drain = line("W6", "zero", series=[[0.0, 50.0], [10.0, 60.0]])
    lines = [*w1("a <worker>", 6.6), line("W3", "256", "a <worker>", cpu_us_per_record=90.0), outage, drain]
    drawn = plots(lines)
    assert set(drawn) == {"throughput.svg", "cpu.svg", "recovery.svg", "drain.svg"}
    for text in drawn.values():
        assert ET.fromstring(text).tag.endswith("svg")  # noqa: S314 - our own text
    assert "slots / latency" in drawn["throughput.svg"]
    assert plots([]) == {}
    assert plots([line(failed="1 lost", of_ideal=1.0)]) == {}


def test_a_block_replaces_what_stands_between_the_markers() -> None:
    """A rerun updates the page, and nothing else on it."""
    markers = report.BEGIN, report.END
    page = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"
    assert with_block(page, "new", markers) == f"before\n{report.BEGIN}\nnew\n{report.END}\nafter\n"
    for broken in ("none", page + page, report.BEGIN + page, page + report.END, f"{report.END}{report.BEGIN}"):
        with pytest.raises(ValueError, match="once each"):
            with_block(broken, "new", markers)


def test_the_pages_say_what_was_measured() -> None:
    """Both blocks are what the report makes of the committed lines."""
    lines = latest(read(report.RESULTS))
    for page in report.PAGES:
        text = page.read_text("utf-8")
        assert text.count(report.BEGIN) == text.count(report.END) == 1
        if lines:
            block = report.block(page, lines)
            assert with_block(text, block, (report.BEGIN, report.END)) == text, f"{page}: run tests.bench.matrix.report"


def test_no_results_are_no_lines(tmp_path: Path) -> None:
    """Before the first run."""
    assert read(tmp_path / "none.jsonl") == []
