"""`python -m tests.bench.matrix [--full] [--workload W3] [--worker connect] [--runs N]`; `--help` has more.

Every worker on every workload, one after the other, and all of it again: A B C A B C. One broker for the whole bench;
the input of a case is written once. Appends to results/matrix.jsonl and writes tables and plots anew, unless workers
are named (`--record` does it all the same) or `--scale` is given: figures without their peers, or of a few records, are
only printed.
"""

import argparse
import asyncio
import compileall
import json
import logging
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from tests.bench.matrix.cell import Figures, measured
from tests.bench.matrix.contenders import Contender, chosen
from tests.bench.matrix.endpoint import stub_program
from tests.bench.matrix.machine import SLOW_BUILD, machine
from tests.bench.matrix.report import RESULTS, all_tables, in_words, write_all
from tests.bench.matrix.running import others_core
from tests.bench.matrix.workloads import FULL, PARTITIONS, SHORT, Case, records, scaled, selected
from tests.bench.peers.building import CannotBuildError
from tests.support.kafka import ROOT, KafkaBroker, ensure_jars
from tests.support.topics import fresh_name, produce

PIECE = 50_000
"""Records written with one producer: their confirmations are in memory together."""
ROUNDS_OF_LONG = 2
LONG = ("W6", "W8")
"""Minutes for each worker: fewer rounds."""


async def seeded(case: Case, broker: KafkaBroker) -> str:
    """Write the input of a case; return its topic."""
    topic = fresh_name(f"in-{case.id}".lower())
    await broker.create_topics({topic: PARTITIONS})
    source = records(case)
    while piece := list(islice(source, PIECE)):
        await produce(broker.bootstrap_servers, topic, piece)
    return topic


def buildable(workers: Mapping[str, Contender]) -> dict[str, Contender]:
    """Build what is missing, before anything is measured; leave out, and say so, what cannot be built here."""
    found = {}
    for name, worker in workers.items():
        try:
            if worker.build:
                worker.build()
            found[name] = worker
        except CannotBuildError as exc:
            print(f"{name} is left out: {exc}", file=sys.stderr, flush=True)
    return found


def taking_part(case: Case, workers: Mapping[str, Contender], number: int, *, named: bool) -> list[str]:
    """Return who works on a case, in the order of a round: it turns. Who is named takes part in everything."""
    names = [name for name in workers if named or not case.workers or name in case.workers]
    first = number % max(1, len(names))
    return names[first:] + names[:first]


async def bench(
    cases: Sequence[Case],
    workers: Mapping[str, Contender],
    *,
    rounds: int,
    named: bool,
    processes: int,
    folder: Path,
    sink: Callable[[Figures], None],
) -> None:
    """Run all cells `rounds` times, the long ones twice."""
    run = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    versions = {name: worker.versions() for name, worker in workers.items()}
    if (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(
            0, {others_core(processes)}
        )  # before the broker starts: set later, its threads would keep both cores
    with KafkaBroker(folder / "kafka", heap="1g") as broker:
        topics = {}
        for number in range(rounds):
            for case in cases:
                if case.workload in LONG and number >= ROUNDS_OF_LONG:
                    continue
                if case.id not in topics:
                    topics[case.id] = await seeded(case, broker)
                for name in taking_part(case, workers, number, named=named):
                    started = {"run": run, "workload": case.workload, "case": case.name, "worker": name}
                    load = {"round": number, "load": round(os.getloadavg()[0], 2)}
                    cell = measured(
                        case,
                        workers[name],
                        name=name,
                        broker=broker,
                        topic_in=topics[case.id],
                        folder=folder,
                        processes=processes,
                    )
                    sink(started | load | await tried(cell) | about(case, workers[name], versions[name]))


async def tried(cell: Coroutine[Any, Any, Figures]) -> Figures:
    """Return a cell's figures; trouble in one cell is told in its line and does not end a bench of hours."""
    try:
        return await cell
    except Exception as exc:  # noqa: BLE001 - whatever it is, the next cell starts afresh
        return {"failed": f"the bench itself: {exc!r}", "log": traceback.format_exc()}


def about(case: Case, worker: Contender, versions: Mapping[str, str]) -> Figures:
    """Return what a line says beside its figures."""
    how = {"setting": worker.setting, "order": worker.order, "slots": case.slots, "records": case.records}
    return how | {"versions": versions, "machine": machine()}


def main() -> None:
    """Build, measure, record, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="all workloads, all workers")
    parser.add_argument("--workload", nargs="*", default=[], help="only these: W3, or one case of it: W1-64")
    parser.add_argument("--worker", nargs="*", default=[], help="only these; nothing is recorded")
    parser.add_argument("--runs", type=int, help="default 3, with --full 5")
    parser.add_argument("--record", action="store_true", help="record it although workers are named")
    parser.add_argument("--processes", type=int, default=1, help="of each worker, in one group; nothing is recorded")
    parser.add_argument("--scale", type=float, default=1.0, help="so much of the records; nothing is recorded")
    asked = parser.parse_args()
    if SLOW_BUILD in machine()["python"]:
        print(f"this Python was {SLOW_BUILD}: Python's workers need a quarter more CPU than users see", file=sys.stderr)
    cases = tuple(scaled(case, asked.scale) for case in selected(FULL if asked.full else SHORT, FULL, asked.workload))
    ensure_jars()
    stub_program()
    compileall.compile_dir(ROOT / "workers", quiet=1)  # as pip does with a wheel: PYTHONDONTWRITEBYTECODE may be set
    workers = buildable(chosen(asked.worker, short=not asked.full))
    lines: list[Figures] = []
    recorded = asked.scale == 1.0 and asked.processes == 1 and (asked.record or not asked.worker)

    def sink(line: Figures) -> None:
        lines.append(line)
        print(in_words(line), flush=True)
        if recorded:
            with RESULTS.open("a") as results:
                results.write(json.dumps(line) + "\n")

    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # a topic just made has leaders a moment later: retried
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        rounds, named = asked.runs or (5 if asked.full else 3), bool(asked.worker)
        how: dict[str, Any] = {"rounds": rounds, "named": named, "processes": asked.processes}
        asyncio.run(bench(cases, workers, **how, folder=Path(folder), sink=sink))
    print(all_tables(lines))
    if recorded:
        write_all()


if __name__ == "__main__":
    main()
