"""What the bench makes of looks at the ends of the output topics: rates, the way back, silence, memory."""

from math import floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.matrix.progress import EVERY_S, Progress
from tests.bench.matrix.shapes import Snapshot, between
from tests.bench.matrix.workloads import Case

CASE = Case(workload="W1", name="64", latency="const:0.15", slots=64, records=2_500)


def waves(*, slots: int = 64, period_s: float = 0.15, looked_s: float = 0.0, lasts_s: float = 7.0) -> Progress:
    """Return the looks at a worker whose calls all end together, `looked_s` after the beginning and on."""
    at_s = [looked_s + EVERY_S * number for number in range(int(lasts_s / EVERY_S))]
    return Progress(at_s=at_s, totals=[slots * floor(each / period_s) for each in at_s])


def seen(at_s: float, *, worker_s: float = 0.0) -> Snapshot:
    """Return a snapshot of nothing but the worker's clock."""
    return Snapshot(at_s, 0, worker_s, 0.0, 0.0, 0.0, 0.0)


def test_between_two_looks_outputs_come_evenly() -> None:
    """A window does not end when somebody looked; before the first look there was nothing, after the last no more."""
    progress = Progress(at_s=[1.0, 2.0, 4.0], totals=[10, 20, 60])
    assert [progress.at(moment_s) for moment_s in (0.0, 1.0, 1.5, 3.0, 4.0, 9.0)] == [0, 10, 15, 40, 60, 60]
    assert progress.rate(1.5, 3.0) == pytest.approx(25 / 1.5)


@given(looked_s=st.floats(0, 0.1), begins_s=st.floats(1.2, 1.5), lasts_s=st.floats(4.0, 4.5))
def test_a_rate_does_not_depend_on_where_its_window_cuts_the_waves(
    looked_s: float, begins_s: float, lasts_s: float
) -> None:
    """64 outputs every 150 ms are 427 a second to a hundredth, wherever the window begins and whoever looks when."""
    progress = waves(looked_s=looked_s)
    assert progress.steady_rate(begins_s, begins_s + lasts_s) == pytest.approx(64 / 0.15, rel=0.01)


def test_the_windows_lie_evenly_around_the_one_asked_for() -> None:
    """A worker that gets faster all the time is told no other rate: n squared outputs after n seconds."""
    progress = Progress(at_s=[float(second) for second in range(31)], totals=[second**2 for second in range(31)])
    assert progress.steady_rate(10.0, 20.0) == pytest.approx(30, rel=0.001)


def test_cpu_is_shared_out_to_what_was_done_between_the_readings() -> None:
    """Of the outputs, those between the two moments at which the CPU was read; the looks were elsewhere."""
    progress = Progress(at_s=[0.0, 1.0, 2.0, 3.0], totals=[0, 100, 200, 300])
    figures = between(seen(0.5), seen(2.5, worker_s=0.1), progress, CASE)
    assert figures["cpu_us_per_record"] == 500
    assert figures["records_per_s"] == 100


def test_a_window_is_a_whole_number_of_waves() -> None:
    """One second is seven calls of 150 ms, and never less than one call; without a latency there are no waves."""
    assert CASE.waves_s(1.0) == pytest.approx(1.05)
    assert CASE.waves_s(0.01) == pytest.approx(0.15)
    assert Case(workload="W3", name="", latency="zero", slots=1, records=1).waves_s(1.0) == 1.0


def test_the_way_back_is_the_first_second_with_the_rate() -> None:
    """10 a second until 5 s, nothing until 8 s, half until 10 s, all again then."""
    totals = [10 * min(second, 5) + 5 * max(0, min(second, 10) - 8) + 10 * max(0, second - 10) for second in range(15)]
    progress = Progress(at_s=[float(second) for second in range(15)], totals=totals)
    assert progress.rate(0, 5) == 10
    assert progress.back_s(8.0, 9.5) == 2.0
    assert progress.back_s(8.0, 9.5, over_s=4.0) == 2.0
    assert progress.back_s(8.0, 9.5, over_s=5.0) is None
    assert progress.back_s(8.0, 99.0) is None
    assert progress.silence_s(5.0) == 4.0


def test_a_silence_is_the_longest_of_any_partition() -> None:
    """Outputs at 1, 2 and 5 s in the first, at 1, 3 and 5 in the second: the first alone had none for 3 s."""
    first, second = (0, 1, 2, 2, 2, 3, 3), (0, 1, 1, 2, 2, 3, 3)
    looks = list(zip(first, second, strict=True))
    progress = Progress(at_s=[float(second) for second in range(7)], totals=list(map(sum, looks)), partitions=looks)
    assert progress.longest_silence_s(0.0, 6.0) == 3.0
    assert progress.longest_silence_s(0.0, 2.0) == 2.0
    assert progress.longest_silence_s(3.0, 6.0) == 2.0
    assert progress.longest_silence_s(5.0, 9.0) == 0.0


def test_memory_that_grows_with_the_records_has_a_slope() -> None:
    """MiB per 100,000 records; the start-up before the first total is outside."""
    totals = [0, 100_000, 200_000, 300_000]
    progress = Progress(at_s=[0.0, 1.0, 2.0, 3.0], totals=totals, memory_mib=[500.0, 100.0, 102.0, 104.0])
    assert progress.slope_mib(100_000, 300_000) == pytest.approx(2.0)
    assert progress.slope_mib(300_000, 300_000) is None
