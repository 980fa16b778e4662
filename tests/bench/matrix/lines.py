"""The lines of results/matrix.jsonl: which of them count, and a median with its range."""

import json
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

Line = dict[str, Any]
Cell = tuple[str, str, str]
"""Workload, case, worker."""


def read(path: Path) -> list[Line]:
    """Return all lines, none when there is no such file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def latest(lines: Iterable[Line]) -> list[Line]:
    """Return of each case the lines of its last run: what was not measured together is not compared."""
    found = list(lines)
    last: dict[tuple[str, str], str] = {}
    for one in found:
        case = one["workload"], one["case"]
        last[case] = max(one["run"], last.get(case, ""))
    return [one for one in found if one["run"] == last[one["workload"], one["case"]]]


def cells(lines: Iterable[Line]) -> dict[Cell, list[Line]]:
    """Return the repetitions of each cell, in the order of their first appearance."""
    found: dict[Cell, list[Line]] = {}
    for one in lines:
        found.setdefault((one["workload"], one["case"], one["worker"]), []).append(one)
    return found


def failures(repetitions: Sequence[Line]) -> list[str]:
    """Return why repetitions failed: one failure fails the cell, whatever its speed."""
    return [one["failed"] for one in repetitions if "failed" in one]


def median(repetitions: Sequence[Line], member: str) -> float | None:
    """Return the median of a figure, None when no repetition has it."""
    values = [one[member] for one in repetitions if one.get(member) is not None]
    return statistics.median(values) if values else None


def spread(repetitions: Sequence[Line], member: str, shown: Callable[[float], str]) -> str:
    """Return `median (least-most)`; the median alone where they look the same; `-` when there is none."""
    values = [one[member] for one in repetitions if one.get(member) is not None]
    if not values:
        return "-"
    middle, least, most = shown(statistics.median(values)), shown(min(values)), shown(max(values))
    return middle if least == most else f"{middle} ({least}-{most})"
