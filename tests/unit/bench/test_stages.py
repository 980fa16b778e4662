"""The bench of the stages: every step runs, and its table adds up."""

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.bench.matrix.endpoint import endpoint
from tests.bench.matrix.lines import read
from tests.bench.stages.__main__ import MARKERS, PAGE, RESULTS
from tests.bench.stages.bed import made
from tests.bench.stages.kafka_steps import KAFKA_STEPS
from tests.bench.stages.steps import STEPS, path
from tests.bench.stages.table import ROWS, SAFETY, WHOLE, added, block, safety, table
from tests.support.page import with_block
from workers import metrics

LINE: dict[str, Any] = {
    "run": "2026-01-01T00:00:00Z",
    "rounds": 3,
    "records": 100,
    "load": 0.1,
    "http_client": "lean",
    "other_client": "aiohttp",
    "worker_us_per_record": 150.0,
    "machine": {"cores": 2, "processor": "a processor", "python": "3.11.7, built by hand", "kafka": "4.1.1"},
    "steps": {
        "fetch": [5.0, 6.0, 7.0],
        "intake": [2.0, 2.0, 2.0],
        "path": [40.0, 41.0, 45.0],
        "s1_decode": [2.0, 2.0, 2.0],
        "s2_prompt": [8.0, 8.0, 8.0],
        "s4_parse": [1.5, 1.5, 1.5],
        "schema": [0.5, 0.5, 0.5],
        "s5_route": [7.0, 7.0, 7.0],
        "provenance": [3.0, 3.0, 3.0],
        "s6_ack": [1.0, 1.0, 1.0],
        "metrics_of_record": [2.0, 2.0, 2.0],
        "metrics_of_call": [2.5, 2.5, 2.5],
        "admission": [3.0, 3.0, 3.0],
        "call": [50.0, 51.0, 52.0],
        "post": [30.0, 30.0, 30.0],
        "post_other": [90.0, 91.0, 92.0],
        "envelope": [2.5, 2.5, 2.5],
        "produce": [25.0, 25.0, 25.0],
        "produce_unconfirmed": [10.0, 10.0, 10.0],
        "commit": [0.5, 0.5, 0.5],
        "intake_key": [2.5, 2.5, 2.5],
        "path_key": [41.0, 42.0, 46.0],
    },
}


def test_the_rows_are_the_whole_taken_apart() -> None:
    """No microsecond is counted twice, and none is left out: the rows' parts add up to what is measured as a whole."""
    parts: Counter[str] = Counter()
    for row in ROWS.values():
        parts.update(row)
    assert {name: times for name, times in parts.items() if times} == WHOLE


def test_a_row_of_a_difference_is_taken_round_by_round() -> None:
    """Then the median and the range."""
    assert added(LINE["steps"], ROWS["lane: an asyncio task, the window, the awaits between the stages"]) == [
        18.5,
        19.5,
        23.5,
    ]
    (row,) = [row for row in table(LINE).splitlines() if row.startswith("| lane:")]
    assert row.endswith("| 19.5 | 18.5-23.5 |")


def test_what_no_step_explains_is_named() -> None:
    """The whole worker minus all the steps."""
    rows = table(LINE).splitlines()
    assert "| **all of these** | 125.5 | 122.5-131.5 |" in rows
    assert "| the rest | 24.5 | |" in rows


def test_a_step_that_was_not_measured_is_a_dash() -> None:
    """And so is everything that it belongs to."""
    rows = table({**LINE, "steps": {name: us for name, us in LINE["steps"].items() if name != "fetch"}}).splitlines()
    assert "| Kafka client: fetch | - | - |" in rows
    assert "| **all of these** | - | - |" in rows
    assert not [row for row in rows if row.startswith("| the rest")]


def test_each_safety_has_its_price() -> None:
    """As far as a step isolates it, and how is said."""
    rows = safety(LINE).splitlines()[2:]
    assert len(rows) == len(SAFETY)
    assert "| order by key | 1.5 | 1.5-1.5 | with it minus without |" in rows
    assert "| confirmed sends | 15.0 | 15.0-15.0 | waiting for each confirmation minus for none |" in rows


def test_every_row_is_of_steps_that_there_are() -> None:
    """A step that is renamed shall not silently become a dash."""
    steps = {*STEPS, *KAFKA_STEPS, "intake_key", "path_key"}
    assert {name for parts in [*ROWS.values(), *(parts for parts, _ in SAFETY.values())] for name in parts} <= steps
    assert steps == set(LINE["steps"])


def test_the_page_says_what_was_measured() -> None:
    """The block is what the report makes of the last committed line."""
    text, lines = PAGE.read_text("utf-8"), read(RESULTS)
    assert [text.count(each) for each in MARKERS] == [1, 1]
    assert "by `aiohttp` it takes 91.0 us" in block(LINE)
    if lines:
        assert with_block(text, block(lines[-1]), MARKERS) == text, "run tests.bench.stages"


@pytest.mark.skipif(shutil.which("cc") is None, reason="no cc on the PATH")
@pytest.mark.parametrize("order", ["none", "key"])
async def test_every_step_runs_and_takes_time(tmp_path: Path, order: str) -> None:
    """With a few records, on the stub that answers at once."""
    with endpoint("zero") as stub:
        bed = made(tmp_path, stub, count=300, bootstrap_servers="127.0.0.1:1", order=order, slots=8)
        await bed.client.start()
        try:
            for name, measure in STEPS.items():
                assert await measure(bed) > 0, name
            before = enriched_so_far()
            await path(bed)
            assert enriched_so_far() - before == 300  # and no dead letter, which would be another path
        finally:
            await bed.client.close()


def enriched_so_far() -> float:
    """Return how many records of the bench's task were answered by the model."""
    labels = {"task": "bench", "outcome": "enriched", "tier": "model", "reason": ""}
    return metrics.REGISTRY.get_sample_value("penstock_records_total", labels) or 0.0
