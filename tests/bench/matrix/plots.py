"""The plots: throughput against slots, CPU per record, recovery after an outage, memory while a backlog drains."""

from collections.abc import Sequence

from tests.bench.matrix.contenders import chosen
from tests.bench.matrix.lines import Line, cells, failures, median
from tests.bench.matrix.svg import bar_chart, line_chart

W1_LATENCY_S = 0.15
OUTAGE_S = 8.0
VARIANTS = ("_default", "_key")
"""Not among the rates: they would lie on the line of the same worker at its best, and no colours be left."""
RECOVERING = tuple(chosen([], short=True))
"""Those of `make bench`: the others recover as one of them does."""
SMOOTHED = 3
"""Samples of 0.2 s in a point of the recovery: four calls of 150 ms, which come back in waves."""


def plots(lines: Sequence[Line]) -> dict[str, str]:
    """Return the plots that the lines are enough for: file name, SVG."""
    drawn = {
        "throughput.svg": throughput(lines),
        "cpu.svg": cpu(lines),
        "recovery.svg": recovery(lines),
        "drain.svg": drain(lines),
    }
    return {name: text for name, text in drawn.items() if text is not None}


def throughput(lines: Sequence[Line]) -> str | None:
    """Records per second against slots, each worker at its best, with Little's law as the limit."""
    found: dict[str, list[tuple[float, float]]] = {}
    for (workload, case, worker), repetitions in cells(lines).items():
        rate = median(repetitions, "records_per_s")
        if workload == "W1" and rate and not worker.endswith(VARIANTS) and not failures(repetitions):
            found.setdefault(worker, []).append((float(case), rate))
    found = {worker: sorted(points) for worker, points in found.items() if len(points) > 1}
    if not found:
        return None
    slots = sorted({x for points in found.values() for x, _ in points})
    little = {"slots / latency": [(each, each / W1_LATENCY_S) for each in slots]}
    title = "Records per second against slots, calls of 150 ms"
    return line_chart(title, little | found, across="slots", up="records/s", log=True, dashed=list(little))


def cpu(lines: Sequence[Line]) -> str | None:
    """CPU per record with an endpoint that answers at once."""
    found = {
        worker: used
        for (workload, _, worker), repetitions in cells(lines).items()
        if workload == "W3" and not failures(repetitions) and (used := median(repetitions, "cpu_us_per_record"))
    }
    ordered = dict(sorted(found.items(), key=lambda one: one[1]))
    title = "CPU per record, endpoint answers at once, 256 slots"
    return bar_chart(title, ordered, across="us CPU per record, whole process tree, one core") if ordered else None


def recovery(lines: Sequence[Line]) -> str | None:
    """Outputs per second around an outage, of each worker's first repetition; all outages begin at 0."""
    found = {}
    for (workload, case, worker), repetitions in cells(lines).items():
        one = repetitions[0]
        if workload == "W5" and case == "503" and worker in RECOVERING and "series" in one and "fault_at_s" in one:
            found[worker] = [
                (
                    round((earlier[0] + later[0]) / 2 - one["fault_at_s"], 1),
                    (later[1] - earlier[1]) / (later[0] - earlier[0]),
                )
                for earlier, later in zip(one["series"], one["series"][SMOOTHED:], strict=False)
                if later[0] > earlier[0]
            ]
    if not found:
        return None
    title = "Outputs per second around an outage of 8 s (503)"
    return line_chart(title, found, across="seconds since the outage began", up="records/s", shaded=(0.0, OUTAGE_S))


def drain(lines: Sequence[Line]) -> str | None:
    """Resident memory while a million records are drained."""
    found = {
        worker: [(float(at_s), float(mib)) for at_s, mib in repetitions[0]["series"]]
        for (workload, case, worker), repetitions in cells(lines).items()
        if workload == "W6" and case == "zero" and "series" in repetitions[0]
    }
    title = "Resident memory while 1,000,000 records drain, endpoint answers at once"
    return line_chart(title, found, across="seconds", up="MiB") if found else None
