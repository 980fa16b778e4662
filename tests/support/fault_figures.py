"""The figures of a run of `make faults`: noted test by test in one file, and printed as one table."""

import io
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path

import orjson
from rich.console import Console
from rich.table import Column, Table

FILE = Path(__file__).parents[2] / ".cache" / "faults.jsonl"
WIDTH = 160


@dataclass(kw_only=True)
class Figures:
    """What one kind of fault did.

    `progress_s`: from each fault (a lasting one: from its end) until every partition had output again. `repeated`:
    outputs of records that had one already; `calls_repeated`: model calls beyond one for each record
    that the model answered (while its breaker is open, records end without a call).
    """

    fault: str
    faults: int = 0
    records: int = 0
    lost: int = 0
    order_violations: int = 0
    early_commits: int = 0
    samples: int = 0
    repeated: int = 0
    calls_repeated: int = 0
    in_flight_at_faults: int = 0
    progress_s: list[float] = field(default_factory=list)
    sigterm_s: list[float] = field(default_factory=list)


def note(figures: Figures) -> None:
    """Add the figures of one test. Several processes may do so at the same time."""
    FILE.parent.mkdir(exist_ok=True)
    with FILE.open("ab", buffering=0) as lines:
        lines.write(orjson.dumps(asdict(figures)) + b"\n")


def noted() -> list[Figures]:
    """Return what was noted since the file was last removed, by the names of the faults."""
    lines = FILE.read_bytes().splitlines() if FILE.exists() else []
    return sorted((Figures(**orjson.loads(line)) for line in lines), key=lambda figures: figures.fault)


def table(figures: list[Figures]) -> str:
    """Return the figures as text, one line per kind of fault."""
    columns = (
        *("times", "records", "lost", "out of\norder", "early\ncommits", "of\nsamples", "done\ntwice"),
        *("calls\nrepeated", "in flight\nat faults", "progress,\nmedian", "\nlongest", "longest\nSIGTERM"),
    )
    shown = Table(Column("fault", no_wrap=True), *columns, box=None)
    for one in figures:
        counts = (one.faults, one.records, one.lost, one.order_violations, one.early_commits, one.samples)
        repeats = (one.repeated, one.calls_repeated, one.in_flight_at_faults)
        progress = (f"{statistics.median(one.progress_s):.1f} s", f"{max(one.progress_s):.1f} s")
        shown.add_row(one.fault, *map(str, counts + repeats), *progress, f"{max(one.sigterm_s, default=0):.1f} s")
    text = io.StringIO()
    Console(file=text, width=WIDTH).print(shown)
    return text.getvalue()
