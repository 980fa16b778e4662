"""The tables: which figures a workload shows, and how they are written."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from tests.bench.matrix.lines import Cell, Line, cells, failures, spread

Shown = Callable[[float], str]
Column = tuple[str, str, Shown]
"""Heading, member of a line, how it is written."""


def whole(value: float) -> str:
    """1,234."""
    return f"{value:,.0f}"


def percent(value: float) -> str:
    """97.5 %, the sign in the heading."""
    return f"{100 * value:.1f}"


def decimal(value: float, places: int = 1) -> str:
    """1.2."""
    return f"{value:.{places}f}"


RATE: Column = ("records/s", "records_per_s", whole)
IDEAL: Column = ("% of slots / latency", "of_ideal", percent)
CPU: Column = ("us CPU per record", "cpu_us_per_record", whole)
PEAK: Column = ("peak MiB", "peak_mib", whole)
CALLS: Column = ("calls per record", "calls_per_record", partial(decimal, places=2))
TWICE: Column = ("done twice", "twice", whole)

TABLES: dict[str, tuple[str, tuple[Column, ...]]] = {
    "W1": (
        "W1: every call takes 150 ms; 64, 256, 1024 slots",
        (
            IDEAL,
            RATE,
            CPU,
            PEAK,
            ("most calls at once", "most_running", whole),
            ("connections", "connections", whole),
            ("first output after, s", "start_s", decimal),
        ),
    ),
    "W2": (
        "W2: 90 % of the calls take 150 ms, 10 % take 2 s; 256 slots",
        (IDEAL, RATE, CPU, PEAK, ("done and not below the commit", "commit_lag", whole)),
    ),
    "W3": (
        "W3: the endpoint answers at once; 256 slots",
        (CPU, ("records/s per core", "records_per_core_s", whole), RATE, PEAK, ("connections", "connections", whole)),
    ),
    "W4": ("W4: 80 % of the records have one of 1 % of the texts; 150 ms, 256 slots", (CALLS, RATE, CPU)),
    "W5": (
        "W5: the endpoint fails for 8 s; 150 ms, 64 slots",
        (
            TWICE,
            ("calls in the outage", "calls_in_outage", whole),
            ("of them after the first second", "calls_after_notice", whole),
            ("back at 95 % of the rate after, s", "back_s", decimal),
        ),
    ),
    "W6": (
        "W6: a backlog of 1,000,000 records; 256 slots",
        (("wall, s", "wall_s", whole), RATE, CPU, PEAK, ("MiB more per 100,000 records", "slope_mib", decimal)),
    ),
    "W7": (
        "W7: `kill -9` at half, started again at once; latencies as W2",
        (TWICE, CALLS, ("silence, s", "silence_s", decimal)),
    ),
    "W8": (
        "W8: an endpoint whose goodput falls from 128 calls at once on; `auto` finds the number itself",
        (
            RATE,
            ("P99 of a call, s", "p99_s", partial(decimal, places=2)),
            ("most calls at once", "most_running", whole),
        ),
    ),
    "W9": (
        "W9: a second worker joins and leaves, dynamic membership; 150 ms, 64 slots each",
        (
            TWICE,
            ("silence before, s", "usual_silence_s", decimal),
            ("silence when it joins, s", "join_silence_s", decimal),
            ("silence when it leaves, s", "leave_silence_s", decimal),
        ),
    ),
    "W10": (
        "W10: order by key, 1,000 and 10 keys; 150 ms, 256 slots",
        (IDEAL, RATE, CPU, ("order violations", "out_of_order", whole)),
    ),
}


def table(workload: str, lines: Iterable[Line]) -> str:
    """Return one workload's table with its title; a cell with a failed repetition shows that and nothing else."""
    title, columns = TABLES[workload]
    found = {cell: repetitions for cell, repetitions in cells(lines).items() if cell[0] == workload}
    head = ["case", "worker", "order", "lost", *(heading for heading, _, _ in columns)]
    rows = [_row(cell, repetitions, columns) for cell, repetitions in found.items()]
    return "\n".join([f"**{title}**", "", _written(head), _written(["---"] * len(head)), *map(_written, rows)])


def _row(cell: Cell, repetitions: Sequence[Line], columns: Sequence[Column]) -> list[str]:
    _, case, worker = cell
    start = [case or "-", worker, str(repetitions[0]["order"])]
    if why := failures(repetitions):
        return [*start, f"**failed**: {why[0]}", *["-"] * len(columns)]
    return [*start, spread(repetitions, "lost", whole), *(spread(repetitions, each, how) for _, each, how in columns)]


def _written(values: Sequence[str]) -> str:
    return f"| {' | '.join(values)} |"


SUMMARY: tuple[tuple[str, str, str, Column], ...] = (
    ("W1, N=64, % of ideal", "W1", "64", IDEAL),
    ("W1, N=256", "W1", "256", IDEAL),
    ("W1, N=1024", "W1", "1024", IDEAL),
    ("W3, us CPU per record", "W3", "256", CPU),
    ("W4, calls per record", "W4", "", CALLS),
    ("W5, useless calls", "W5", "503", ("", "calls_in_outage", whole)),
    ("W5, back after, s", "W5", "503", ("", "back_s", decimal)),
    ("W6, 1,000,000 records, s", "W6", "zero", ("", "wall_s", whole)),
    ("W6, peak MiB", "W6", "zero", PEAK),
    ("W7, silence, s", "W7", "", ("", "silence_s", decimal)),
    ("W9, silence on join, s", "W9", "", ("", "join_silence_s", decimal)),
)
"""What the project's README shows of each worker: heading, workload, case, figure."""


def summary(lines: Iterable[Line]) -> str:
    """Return a row for each worker, with the columns that were measured."""
    found = cells(lines)
    shown = [each for each in SUMMARY if any(cell[:2] == each[1:3] for cell in found)]
    workers = dict.fromkeys(worker for _, _, worker in found)
    rows = []
    for worker in workers:
        row = []
        for _, workload, case, (_, member, how) in shown:
            repetitions = found.get((workload, case, worker), [])
            row.append("**failed**" if failures(repetitions) else spread(repetitions, member, how))
        if any(each != "-" for each in row):
            rows.append([worker, *row])
    head = ["worker", *(heading for heading, *_ in shown)]
    return "\n".join([_written(head), _written(["---"] * len(head)), *map(_written, rows)])
