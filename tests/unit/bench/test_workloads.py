"""The bench's workloads: their arithmetic, their inputs, and what may be asked for."""

import orjson
import pytest

from tests.bench.matrix.contenders import CONTENDERS, PEERS, chosen
from tests.bench.matrix.workloads import FULL, SHORT, Case, records, scaled, selected, texts


def case(**changes: object) -> Case:
    """Return a small case."""
    return Case(**{"workload": "W1", "name": "64", "latency": "const:0.15", "slots": 64, "records": 1_000} | changes)


@pytest.mark.parametrize(
    ("latency", "slots", "keys", "ideal"),
    [
        ("const:0.15", 64, 5_000, 426.7),
        ("mix:0.15:2:0.1", 256, 5_000, 764.2),
        ("const:0.15", 256, 10, 66.7),
        ("zero", 256, 5_000, None),
    ],
)
def test_the_ideal_is_littles_law(latency: str, slots: int, keys: int, ideal: float | None) -> None:
    """Slots through mean latency; a key has one call at a time, so few keys are few slots; no latency, no limit."""
    found = case(latency=latency, slots=slots, keys=keys).ideal_per_s
    assert found == (None if ideal is None else pytest.approx(ideal, abs=0.05))


def test_records_have_rising_ids_and_the_stated_size() -> None:
    """Order within a key can be told by ids, and a record is 0.8 KB."""
    written = list(records(case(keys=7)))
    assert [orjson.loads(one.value or b"")["id"] for one in written] == list(range(1_000))
    assert {one.key for one in written} == {b"k%d" % n for n in range(7)}
    assert all(750 <= len(one.value or b"") <= 850 for one in written)


def test_without_a_hot_share_no_text_comes_twice() -> None:
    """Nothing but W4 shall profit from a cache."""
    assert len({orjson.loads(one.value or b"")["text"] for one in records(case())}) == 1_000


def test_a_hot_share_is_of_one_percent_of_the_texts() -> None:
    """80 % of the records have one of 1 % of the texts."""
    found = texts(case(records=10_000, hot_share=0.8))
    assert sum(text < 100 for text in found) / 10_000 == pytest.approx(0.8, abs=0.02)


def test_cases_have_names_of_their_own() -> None:
    """A case is asked for by its id, and results are told apart by it."""
    for cases in (SHORT, FULL):
        assert len({each.id for each in cases}) == len(cases)
    assert {each.id for each in SHORT} <= {each.id for each in FULL}


def test_cases_are_chosen_by_workload_or_id() -> None:
    """W1 means all of its cases in the bench that is run; a workload that only the long bench has is found there."""
    assert [each.id for each in selected(SHORT, FULL, ["W1"])] == ["W1-64", "W1-256"]
    assert [each.id for each in selected(SHORT, FULL, ["W1-64", "W2"])] == ["W1-64", "W2"]
    assert selected(SHORT, FULL, []) == list(SHORT)
    with pytest.raises(KeyError):
        selected(SHORT, FULL, ["W99"])


def test_a_scaled_case_is_the_same_but_smaller() -> None:
    """For trying a bench out."""
    assert scaled(case(records=5_000), 0.1) == case(records=500)


def test_workers_are_chosen_by_name() -> None:
    """Nobody is measured by a slip of the pen."""
    assert list(chosen(["connect"], short=True)) == ["connect"]
    assert set(chosen([], short=True)) < set(chosen([], short=False)) == set(CONTENDERS)
    with pytest.raises(KeyError):
        chosen(["conect"], short=True)


def test_cases_name_workers_that_there_are() -> None:
    """A worker that is renamed shall not silently leave a workload."""
    assert {name for each in FULL for name in each.workers} <= set(CONTENDERS)


def test_every_worker_says_its_setting_and_its_versions_are_pinned() -> None:
    """A figure without them compares with nothing."""
    for name, worker in CONTENDERS.items():
        assert worker.setting, name
    assert all((PEERS / name / "go.sum").exists() for name in ("connect", "go_plain"))
    for pins in (PEERS / "python").glob("*.txt"):
        assert all("==" in line for line in pins.read_text().splitlines()), pins.name
