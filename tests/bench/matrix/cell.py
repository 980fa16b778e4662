"""One cell: one worker on one workload, with outputs, a group and an endpoint of its own; its figures as one line."""

import asyncio
import time
from pathlib import Path
from typing import Any

from tests.bench.matrix.contenders import Contender, Job, topics_out
from tests.bench.matrix.endpoint import endpoint
from tests.bench.matrix.progress import Progress, watching
from tests.bench.matrix.running import Running
from tests.bench.matrix.shapes import Scene, observed
from tests.bench.matrix.verify import Found, first_numbers, verified
from tests.bench.matrix.workloads import PARTITIONS, UNTIL, WARM_UP, Case
from tests.support.kafka import KafkaBroker
from tests.support.topics import ends, fresh_name

SETTLE_S = 1.5
"""Longer than anybody's commit interval: what is still on its way after the last output arrives, and is counted."""

Figures = dict[str, Any]


async def measured(
    case: Case,
    worker: Contender,
    *,
    name: str,
    broker: KafkaBroker,
    topic_in: str,
    folder: Path,
    processes: int = 1,
) -> Figures:
    """Run the cell; return its figures. With `failed` the worker did not finish, or was not right."""
    topic_out = fresh_name(f"{case.id}-{name}".lower().replace("_", "-"))
    outputs = topics_out(topic_out, by_source=worker.by_source)
    await broker.create_topics(dict.fromkeys(outputs, PARTITIONS))
    with endpoint(case.latency, case.knee) as stub:
        job = Job(
            case=case,
            bootstrap_servers=broker.bootstrap_servers,
            endpoint=stub,
            group=f"group-{topic_out}",
            topic_in=topic_in,
            topic_out=topic_out,
            folder=folder,
            instance="a" if case.shape == "kill" and worker.static else "",
        )
        running, second = (
            Running(
                worker.command(job),
                job.environment() | dict(worker.env(job)),
                folder / f"{topic_out}.{name}.log",
                processes,
            )
            for name in "ab"
        )
        figures = await _worked(job, running, second, broker.pid, outputs[: 2 if worker.by_source else 1])
    first = first_numbers(await ends(broker.bootstrap_servers, topic_in)) if worker.by_source else None
    figures |= judged(await verified(broker.bootstrap_servers, outputs, case.records, first=first), case, worker.order)
    if "failed" in figures:
        figures["log"] = running.tail()
    return figures


async def _worked(job: Job, running: Running, second: Running, broker_pid: int, answered: list[str]) -> Figures:
    """Start the worker, watch it do the case, stop it."""
    async with watching(job.bootstrap_servers, answered, running.memory_mib) as progress:
        began_s = time.monotonic()
        running.start()
        try:
            figures = await observed(
                Scene(job=job, worker=running, second=second, progress=progress, broker_pid=broker_pid)
            )
            await asyncio.sleep(SETTLE_S)
        finally:
            second.stop()
            figures_at_exit = {"exit": running.stop()}
    counts = job.endpoint.stats()
    return (
        figures
        | figures_at_exit
        | {
            "start_s": _since(began_s, progress.reached_s(1)),
            "wall_s": _since(began_s, progress.reached_s(job.case.records)),
            "peak_mib": running.peak_mib,
            "calls_per_record": round(counts["requests"] / job.case.records, 4),
            "connections": counts["connections"],
            "most_running": counts["most_running"],
            "p99_s": counts.get("p99_s"),
            **_course(job.case, progress),
        }
    )


def _course(case: Case, progress: Progress) -> Figures:
    """Return how outputs or memory went, where that is asked for."""
    if case.workload == "W5":
        return {"series": progress.thinned(progress.totals)}
    if case.workload == "W6":
        slope_mib = progress.slope_mib(int(WARM_UP * case.records), int(UNTIL * case.records))
        return {
            "series": progress.thinned(progress.memory_mib),
            "slope_mib": None if slope_mib is None else round(slope_mib, 2),
        }
    return {}


def judged(found: Found, case: Case, order: str) -> Figures:
    """Return what was read back, with `failed` when that is not what the work demands."""
    figures: Figures = found.figures()
    if order != "key":
        del figures["out_of_order"]  # nobody promised any
    wrong = ["lost", "unknown", "out_of_order", *([] if case.may_default else ["unanswered"])]
    why = [f"{figures[what]:,} {what.replace('_', ' ')}" for what in wrong if figures.get(what)]
    return figures | ({"failed": ", ".join(why)} if why else {})


def _since(began_s: float, at_s: float | None) -> float | None:
    return None if at_s is None else round(at_s - began_s, 2)
