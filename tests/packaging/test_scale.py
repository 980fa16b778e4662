"""docs/scale.md: its tables are what its inputs give, and the formulas are what the page says."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.support import scale
from tests.support.page import with_block
from tests.support.scale import MODELS, Served, Worker, cores, costs, gpu_s, gpus, keda, limits_per_s

WORKER = Worker(cpu_us_per_record=360.0, source="a test")


def served(**changes: float) -> Served:
    """Return a model whose figures are easy to follow."""
    plain = Served(name="plain", prompt_tokens_per_s=25_000, answer_tokens_per_s=3_000, latency_s=0.5)
    return replace(plain, **changes)


def test_the_page_is_computed_from_its_inputs() -> None:
    """Nobody edits a figure, and no figure outlives the measurement that it came from."""
    text = scale.PAGE.read_text("utf-8")
    assert with_block(text, scale.block(scale.measured()), scale.MARKERS) == text, "run tests.support.scale"


def test_a_million_an_hour_by_hand() -> None:
    """250 / 25,000 s and 30 / 3,000 s are 20 ms; 277.8 of them a second, 80 % busy, are 6.94 GPUs."""
    assert gpu_s(served()) == pytest.approx(0.020)
    assert gpus(served()) == pytest.approx(1e6 / 3600 * 0.020 / 0.8)
    assert cores(WORKER) == pytest.approx(0.125)
    rows = dict(costs(served(), WORKER))
    assert (rows["GPUs"], rows["worker cores"]) == ("7", "1")
    assert rows["calls at once (rate x latency)"] == "139"
    assert rows["USD per million records"] == "17.55"  # 7 x 2.50 + 0.05
    assert rows["of it the worker"] == "0.3 %"


def test_where_each_part_is_full_by_hand() -> None:
    """One of each, in records per second."""
    assert list(limits_per_s(served(), WORKER).values()) == pytest.approx(
        [2, 128, 40, 400, 0.8e6 / 360, 100e6 / (2_100 * 3)]
    )


def test_what_keda_is_told_by_hand() -> None:
    """7 GPUs of 128 calls are 14 replicas of 64 slots, but 12 partitions; 128 records/s for 30 s are 3,840."""
    assert keda(served()) == scale.Keda(max_replicas=12, lag_threshold=3_840)
    assert keda(served(prompt_tokens_per_s=1e6, answer_tokens_per_s=1e6)).max_replicas == 2
    assert keda(served(latency_s=20.0)).lag_threshold == 512  # 96 would be less than the window itself


@given(
    prompt=st.floats(1_000, 1e6), answer=st.floats(100, 1e5), latency_s=st.floats(0.05, 30), faster=st.floats(1.01, 10)
)
def test_a_faster_model_never_costs_more(prompt: float, answer: float, latency_s: float, faster: float) -> None:
    """Nor does it need more GPUs, and never more replicas than partitions or a threshold inside the window."""
    slow = served(prompt_tokens_per_s=prompt, answer_tokens_per_s=answer, latency_s=latency_s)
    fast = replace(slow, prompt_tokens_per_s=faster * prompt, answer_tokens_per_s=faster * answer)
    assert gpus(fast) < gpus(slow)
    assert 1 <= keda(fast).max_replicas <= keda(slow).max_replicas <= scale.PARTITIONS
    assert keda(slow).lag_threshold >= 2 * 4 * scale.SLOTS


def test_the_sample_has_the_numbers_of_the_table() -> None:
    """The ScaledObject on the page is that of the first model."""
    sample = yaml.safe_load(scale.PAGE.read_text("utf-8").split("```yaml\n")[1].split("```")[0])
    told = keda(MODELS[0])
    assert sample["spec"]["maxReplicaCount"] == told.max_replicas
    assert sample["spec"]["triggers"][0]["metadata"]["lagThreshold"] == str(told.lag_threshold)


def test_the_last_measurement_counts(tmp_path: Path) -> None:
    """The matrix' when there is one, its medians, without what failed; else those of before it."""
    before = [{"case": case, "cpu_us_per_record": us} for case, us in (("latency", 400), ("zero", 200))]
    (tmp_path / "throughput.jsonl").write_text("".join(json.dumps(line) + "\n" for line in before))
    assert scale.measured(tmp_path).cpu_us_per_record == 400
    about = {"run": "2026-01-01", "workload": "W1", "case": "256", "worker": "penstock"}
    lines = [about | {"cpu_us_per_record": us} for us in (300, 310, 900)]
    others = [about | {"worker": "connect", "cpu_us_per_record": 1}, about | {"failed": "1 lost"}]
    (tmp_path / "matrix.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [*lines, *others]))
    found = scale.measured(tmp_path)
    assert found.cpu_us_per_record == 310
    assert "make bench" in found.source
