"""What the demo prints before and after: what is simulated, what became of every record, and where to look next."""

import os
from collections.abc import Mapping
from pathlib import Path

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from workers.demo.deployment import shipped_config
from workers.demo.figures import Spread
from workers.demo.samples import Sample
from workers.demo.summary import Summary, sorted_ends

EMBEDDED = "simulated: librdkafka's mock cluster, in memory"
SIMULATED = "simulated: finds its answers by keywords, understands nothing"
MEASURES = {
    "by_model": "ticket in to answer out, by the model",
    "by_ladder": "ticket in to answer out, by the ladder",
    "dead_letter": "ticket in to dead letter out",
    "model_call": "the model's call alone",
}
OUTCOMES = {"rejected": "dead letter", "erased": "tombstone"}


def opening(summary: Summary) -> RenderableType:
    """Return the first lines: what is simulated, and what is real."""
    lines = Table.grid(padding=(0, 2))
    lines.add_row("broker", summary.broker)
    lines.add_row("model", summary.model)
    lines.add_row("worker", "real: `penstock run`, on the shipped prompts, schema and rules")
    title = Text(f"Penstock demo: {summary.records} support tickets through a language model", "bold")
    return Group(title, _indented(lines), "")


def closing(console: Console, summary: Summary, log: Path) -> None:
    """Print what became of the records, whether the demo kept its promise, and where to look next."""
    if summary.verdict is not None:
        _print_results(console, summary)
    for problem in summary.problems:
        console.print(Text(f"FAILED: {problem}", "bold red"))
    if not summary.problems:
        kept = f"{summary.records} tickets, each with exactly one outcome; lag {summary.lag}; {summary.seconds:.1f} s."
        console.print(Text(kept, "bold green"))
        console.print(_next_steps())
    elif log.exists():
        console.print(Text(f"The worker's log: {log}"), soft_wrap=True)  # a path to copy is one line


def _print_results(console: Console, summary: Summary) -> None:
    console.print()
    console.print(_outcomes(summary))
    console.print()
    console.print(_durations(summary.latencies))
    if (outage := summary.outage) is not None:
        console.print()
        left = (
            f"{outage.left_unasked} tickets left down the ladder, at the model's own pace ({outage.pace_per_s:.0f}/s)"
        )
        console.print(Text(f"The breaker was open for {outage.open_s:.1f} s: {left}"))
    console.print()
    for sample in summary.samples:
        _print_sample(console, sample)
    console.print()


def _outcomes(summary: Summary) -> RenderableType:
    table = _table("outcome", "answered by", "why not by the model")
    table.add_column("records", justify="right")
    if summary.verdict is not None:
        for end, count in sorted_ends(summary.verdict):
            table.add_row(OUTCOMES.get(end.outcome, end.outcome), end.tier, end.reason, str(count))
        table.add_row("in all", "", "", str(summary.verdict.ends.total()), style="bold")
    return _indented(table)


def _durations(latencies: Mapping[str, Spread]) -> RenderableType:
    table = _table("seconds")
    for name in ("P50", "P95", "P99", "records"):
        table.add_column(name, justify="right")
    for measure, name in MEASURES.items():
        spread = latencies[measure]
        if spread.records:
            quantiles = (spread.p50_s, spread.p95_s, spread.p99_s)
            table.add_row(
                name, *(f"{quantile:.3f}" for quantile in quantiles if quantile is not None), str(spread.records)
            )
    return _indented(table)


def _indented(inner: RenderableType) -> RenderableType:
    return Padding(inner, (0, 0, 0, 2), expand=False)


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, header_style="dim", pad_edge=False, show_edge=False)
    for column in columns:
        table.add_column(column)
    return table


def _print_sample(console: Console, sample: Sample) -> None:
    console.print(Text.assemble("  ", (sample.what, "bold"), f"  {sample.key}"))
    for sign, text in (("in ", sample.before), ("out", sample.after)):
        line = Text.assemble((f"    {sign}  ", "dim"), text)
        console.print(line, no_wrap=True, overflow="ellipsis")


def _next_steps() -> RenderableType:
    lines = Table.grid(padding=(0, 2))
    lines.add_row("what is promised", "README.md")
    config = _near(shipped_config())
    lines.add_row("the configuration", config)
    lines.add_row("check it", f"penstock lint {config}")
    lines.add_row("the outputs' fields", "topics/README.md")
    lines.add_row("a broker of yours", "penstock demo --bootstrap-servers HOST:PORT")
    lines.add_row("a model of yours", "penstock demo --model-url http://HOST:PORT --model NAME")
    return Group("", Text("Next", "bold"), _indented(lines))


def _near(path: Path) -> str:
    """Return the path as one types it here."""
    near = os.path.relpath(path)
    return str(path) if near.startswith("..") else near
