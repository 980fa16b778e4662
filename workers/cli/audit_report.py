"""What the audit says of one input topic: a table by partition, and a line for each thing that was found."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.table import Table

from workers.audit import Verdict
from workers.audit.oracle import coordinates
from workers.audit.verdict import ALLOWED_AFTER_A_CRASH, NAMED_AT_MOST
from workers.cli.findings import Finding

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "missing": ("lost",),
    "doubled": ("repeated",),
    "out of order": ("out_of_order", "key_moved"),
    "altered": ("altered", "key_changed", "forged"),
    "invalid": ("invalid", "misfiled"),
}
"""The columns that count faults, and which."""

WHAT_TO_DO: Mapping[str, str] = {
    "lost": "stop the workers, set the group's offset back to the first of them (kafka-consumer-groups.sh"
    " --reset-offsets) and start again: what follows it is done twice then. Did anything but Penstock commit for the"
    " group, or remove records from the outputs?",
    "out_of_order": "if it matters, let consumers keep the highest offset of each key's `__penstock.source`; did the"
    " task's `order` change, or its partitions?",
    "key_moved": "were partitions added to the output? Order of a key holds only within one",
    "key_changed": "look at who else writes to the output topic",
    "altered": "did the task's `shape` change? Then audit with the configuration of that time; else look at who else"
    " writes to the output topic",
    "invalid": "did the task's `shape` change? Then audit with the configuration of that time; else look at who else"
    " writes to the output topic",
    "misfiled": "do two kinds of output share a topic? Else look at who else writes to it",
    "forged": "look at who else writes to the output topic",
    "unknown": "was the input topic deleted and made anew? Else look at who else writes to the output topic",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """One input topic of a task. `untold`: topics of which the cluster does not tell how they are cleaned up."""

    task: str
    topic: str
    verdict: Verdict
    untold: Sequence[str] = ()
    latest: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return the same as one JSON object."""
        verdict, counts = self.verdict, _counts(self.verdict)
        return {
            "task": self.task,
            "topic": self.topic,
            "partitions": [
                {"partition": number, **asdict(tally)}
                | {column.replace(" ", "_"): counts[column][number] for column in COLUMNS}
                for number, tally in verdict.partitions.items()
            ],
            "outcomes": dict(verdict.by_kind),
            "findings": [
                {
                    "fault": name,
                    "records": len(wrong),
                    "first": wrong[:NAMED_AT_MOST],
                    "broken": name not in ALLOWED_AFTER_A_CRASH,
                    "todo": WHAT_TO_DO.get(name, ""),
                }
                for name, wrong in verdict.faults().items()
            ],
            "unjudged": [{"what": what, "records": count} for what, count in verdict.unjudged.items()],
            "notes": [*_notes(self)],
        }


def findings(one: Audited) -> list[Finding]:
    """Return what was found, worst first: what is broken, what is allowed, what could not be judged."""
    found = [_finding(one, name) for name in one.verdict.faults()]
    found.sort(key=lambda finding: finding.state != "failed")
    if not found:
        found = [Finding(about=one.topic, state="ok", what="nothing is wrong")]
    for what, count in one.verdict.unjudged.items():
        found.append(Finding(about=one.topic, state="unknown", what=f"{count} {what}"))
    return [*found, *(Finding(about=one.topic, state="unknown", what=note) for note in _notes(one))]


def _finding(one: Audited, name: str) -> Finding:
    what, topic = one.verdict.sentence(name), one.topic
    if name in ALLOWED_AFTER_A_CRASH:
        more = "as a crash may leave them: consumers drop repetitions by `__penstock.source`"
        return Finding(about=topic, state="ok", what=f"{what}; {more}")
    return Finding(about=topic, state="failed", what=what, todo=WHAT_TO_DO[name])


def _notes(one: Audited) -> Iterable[str]:
    if one.untold:
        yield f"whether these are compacted is not told, and taken for no: {', '.join(one.untold)}"
    if one.latest:
        yield "`start: latest`: nobody knows where the group began; judged from the first outcome of each partition"


def _counts(verdict: Verdict) -> dict[str, Counter[int]]:
    """Return how many records of each partition stand in each column."""
    faults = verdict.faults()
    return {
        column: Counter(number for at in {at for name in names for at in faults.get(name, ())} for number in [_of(at)])
        for column, names in COLUMNS.items()
    }


def _of(source: str) -> int:
    return coordinates(source)[1]


def as_table(one: Audited) -> Table:
    """Return a row for each partition, and the sums."""
    table = Table(box=box.SIMPLE_HEAD, title=f"{one.task}: {one.topic}", title_justify="left", pad_edge=False)
    for column in ("partition", "records", "finished", "waiting", *COLUMNS, "past the commit"):
        table.add_column(column, justify="right")
    counts = _counts(one.verdict)
    rows = [
        [tally.records, tally.finished, tally.waiting, *(counts[name][number] for name in COLUMNS), tally.past_commit]
        for number, tally in one.verdict.partitions.items()
    ]
    for number, row in zip(one.verdict.partitions, rows, strict=True):
        table.add_row(str(number), *map(str, row))
    table.add_row("all", *(str(sum(column)) for column in zip(*rows, strict=True)), style="bold")
    return table
