"""Writes tables, plots and docs/scale.md from results/matrix.jsonl: `python -m tests.bench.matrix.report`."""

import statistics
from collections.abc import Sequence
from pathlib import Path

from tests.bench.matrix.lines import Line, latest, read
from tests.bench.matrix.plots import plots
from tests.bench.matrix.tables import TABLES, summary, table
from tests.support import scale
from tests.support.page import with_block

BENCH = Path(__file__).parents[1]
RESULTS = BENCH / "results" / "matrix.jsonl"
PAGES = {BENCH.parents[1] / "README.md": "tests/bench/results/", BENCH / "README.md": "results/"}
"""The pages with markers, and where the plots are, seen from each."""
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
QUIET_CORES = 0.3
PLOT_TITLES = {
    "throughput.svg": "Records per second against slots",
    "cpu.svg": "CPU per record",
    "recovery.svg": "Recovery after an outage",
    "drain.svg": "Memory while a backlog drains",
}


def in_words(line: Line) -> str:
    """Return a line for whoever watches the bench."""
    skipped = {"run", "series", "setting", "versions", "machine", "log", "slots", "order"}
    shown = ", ".join(f"{name} {value}" for name, value in line.items() if name not in skipped and value is not None)
    return f"{shown}\n{line['log']}" if "log" in line else shown


def conditions(lines: Sequence[Line]) -> str:
    """Return where, when and how noisily the figures came about."""
    machine, days = lines[-1]["machine"], sorted({one["run"][:10] for one in lines})
    repetitions = max(one["round"] for one in lines) + 1
    noise = [one["others_cores"] for one in lines if "others_cores" in one]
    noisy = sum(each > QUIET_CORES for each in noise)
    others = f"{statistics.median(noise or [0]):.2f} cores in the median, more than {QUIET_CORES} in {noisy}"
    pythons = sorted({one["machine"]["python"] for one in lines})
    said = [
        f"{', '.join(days)}: {machine['cores']} cores ({machine['processor']}), {machine['memory_gib']} GiB,",
        f"Apache Kafka {machine['kafka']}, Python {'; '.join(pythons)};",
        f"median (least-most) of up to {repetitions} interleaved repetitions;",
        "worker on core 0; broker, endpoint and harness on core 1.",
        f"Other work on the machine: {others} of {len(noise)} windows.",
    ]
    return " ".join(said)


def versions(lines: Sequence[Line]) -> str:
    """Return each worker with its setting and the versions that it ran with."""
    about = {one["worker"]: (one["setting"], one["versions"]) for one in lines}
    rows = [
        f"| {worker} | {setting} | {', '.join(f'{name} {each}' for name, each in found.items())} |"
        for worker, (setting, found) in about.items()
    ]
    return "\n".join(["| worker | setting | versions |", "| --- | --- | --- |", *rows])


def all_tables(lines: Sequence[Line]) -> str:
    """Return a table for each workload that was measured."""
    measured = {one["workload"] for one in lines}
    return "\n\n".join(table(workload, lines) for workload in TABLES if workload in measured)


def block(page: Path, lines: Sequence[Line]) -> str:
    """Return what stands between a page's markers."""
    drawn = [f"![{PLOT_TITLES[name]}]({PAGES[page]}{name})" for name in plots(lines)]
    if page.parent != BENCH:
        return "\n\n".join([conditions(lines), summary(lines), *drawn[:1]])
    return "\n\n".join([conditions(lines), all_tables(lines), *drawn, versions(lines)])


def write_all() -> None:
    """Write the plots, then the pages, docs/scale.md among them."""
    lines = latest(read(RESULTS))
    for name, text in plots(lines).items():
        (RESULTS.parent / name).write_text(text)
    for page in PAGES:
        page.write_text(with_block(page.read_text("utf-8"), block(page, lines), (BEGIN, END)), "utf-8")
    scale.write()


if __name__ == "__main__":
    write_all()
