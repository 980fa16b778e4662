"""Penstock and its peers under the same faults: `python -m tests.bench.peer_faults [--peer NAME] [--run kills|outage]`.

Two workers of 64 slots, 12 partitions, 1,000 keys; 10 % of the calls take 2 s, the others 50 ms; each run has a broker
of its own. `kills`: 20,000 records, five `kill -9`, each worker started again at once. `outage`: 8,000 records, in the
middle of which the endpoint answers 503 for 10 s. All are judged by the same oracle, from the topics and from commits
sampled outside. Peers are fetched and built into `.cache` when needed. Appends a JSON line per run, prints a table.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
from aiokafka.errors import KafkaError

from tests.bench.kills import KEYS, LATENCY, PARTITIONS, SLOTS, machine, owned
from tests.bench.peers.building import CannotBuildError
from tests.bench.peers.judged import judged
from tests.bench.peers.programs import PEERS
from tests.bench.peers.runs import RECORDS, RUNS
from tests.bench.peers.stage import PeerStage
from tests.support.commit_sampler import sampling
from tests.support.deployment import WorkerProcess
from tests.support.flow import flow_of
from tests.support.kafka import KafkaBroker
from tests.support.stage import TASK

RESULTS = Path(__file__).parent / "results" / "peer_faults.jsonl"
RUN_S, JOIN_S, COMMIT_S, STOP_S = 420.0, 60.0, 150.0, 30.0


async def joined(stage: PeerStage) -> None:
    """Wait until two members have all partitions."""
    async with asyncio.timeout(JOIN_S):
        while True:
            with contextlib.suppress(KafkaError):
                members = await owned(stage)
                if len(members) == 2 and sum(map(len, members.values())) == PARTITIONS:
                    return
            await asyncio.sleep(0.2)


async def all_committed(stage: PeerStage, records: int) -> bool:
    """Return whether the group's commits came to the end of the input."""
    try:
        await stage.wait_committed(records, COMMIT_S)
    except AssertionError:
        return False
    return True


async def stop(worker: WorkerProcess) -> int | None:
    """SIGTERM; return the exit code, None when only a kill ended it."""
    try:
        return (await asyncio.to_thread(worker.terminate, STOP_S))[0]
    except subprocess.TimeoutExpired:
        worker.kill()
        return None


async def measure(name: str, run: str, broker: KafkaBroker, folder: Path, *, static: bool, seed: int) -> dict[str, Any]:
    """One run of one worker; its figures."""
    peer, records = PEERS[name], RECORDS[run]
    command = peer.build() if peer.build else None
    load = [os.getloadavg()[0]]
    async with (
        asyncio.timeout(RUN_S),
        PeerStage(
            folder,
            broker,
            command=command,
            env=dict(peer.env),
            slots=SLOTS,
            static=static,
            partitions=PARTITIONS,
            latency=LATENCY,
        ) as stage,
        flow_of(broker.bootstrap_servers, f"{stage.topic}.{TASK}.enriched", PARTITIONS) as flow,
        sampling(broker.bootstrap_servers, stage.group, stage.topic, TASK) as sampler,
    ):
        workers = {letter: stage.worker(letter) for letter in "ab"}
        await joined(stage)  # first: what is done twice shall be the fault's doing, not the second member's joining
        await stage.produce(records, keys=KEYS)
        began_s = time.monotonic()
        figures = await RUNS[run](stage, workers, flow, seed)
        figures["committed_all"] = await all_committed(stage, records)
        figures["wall_s"] = round(time.monotonic() - began_s, 1)
        counts = stage.model.counts()
        figures["exit_codes"] = [await stop(worker) for worker in workers.values()]
        load.append(os.getloadavg()[0])
        figures |= await judged(stage, sampler)
    return {
        "peer": name,
        "run": run,
        "membership": "static" if static else "dynamic",
        "seed": seed,
        "calls_in_outage": counts["refused"],
        "calls_repeated": counts["requests"] - counts["refused"] - records,
        **figures,
        "load": [round(one, 2) for one in load],
        "versions": peer.versions(),
        "machine": machine(),
    }


TABLES: dict[str, dict[str, Callable[[dict[str, Any]], object]]] = {
    "kills": {
        "lost": lambda one: one["lost"],
        "done twice": lambda one: one["done_twice"],
        "calls beyond one per record": lambda one: one["calls_repeated"],
        "order violations": lambda one: one["order_violations"],
        "early commits": lambda one: one["early_commits"],
        "silence of its partitions, s": lambda one: "{:.1f} ({:.1f}-{:.1f})".format(*one["silence_s"]),
        "all of them again after, s": lambda one: "{:.1f} ({:.1f}-{:.1f})".format(*one["all_again_s"]),
        "all done after, s": lambda one: one["wall_s"],
    },
    "outage": {
        "lost": lambda one: one["lost"],
        "done twice": lambda one: one["done_twice"],
        "calls in the outage": lambda one: one["calls_in_outage"],
        "calls beyond those": lambda one: one["calls_repeated"],
        "order violations": lambda one: one["order_violations"],
        "early commits": lambda one: one["early_commits"],
        "records/s before": lambda one: one["rate_before"],
        "back at 95 % after, s": lambda one: "not before the end" if one["back_s"] is None else one["back_s"],
        "all done after, s": lambda one: one["wall_s"],
    },
}


def table(run: str, lines: list[dict[str, Any]]) -> str:
    """Return the figures of one kind of run in Markdown, in the order in which they were measured."""
    columns = TABLES[run]
    head = ["worker", "membership", *columns, "load"]
    rows = [head, ["---"] * len(head)]
    for one in lines:
        cells = [cell(one) for cell in columns.values()]
        rows.append([one["peer"], one["membership"], *map(str, cells), "-".join(map(str, one["load"]))])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", action="append", choices=PEERS, help="only this one; may be repeated")
    parser.add_argument("--run", action="append", choices=RUNS, help="only this one; may be repeated")
    parser.add_argument("--membership", choices=("static", "dynamic"), default="static")
    parser.add_argument("--seed", type=int, default=1, help="of the moments and the victims of the kills")
    parser.add_argument("--keep-logs", type=Path, help="a folder for the logs of the workers")
    return parser.parse_args()


def main() -> None:
    """Measure what was asked for, one run after the other."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that every process we started is ended
    options = arguments()
    for run in options.run or RUNS:
        lines = []
        for name in options.peer or [name for name, peer in PEERS.items() if run in peer.runs]:
            with contextlib.suppress(Failed):
                lines.append(measured(name, run, options))
        print(f"\n{run}\n\n{table(run, lines)}", flush=True)


class Failed(Exception):
    """A run came to no figures; the reason has been printed."""


def measured(name: str, run: str, options: argparse.Namespace) -> dict[str, Any]:
    """One run on a broker of its own; its line is kept."""
    print(f"{run}: {name} ({options.membership})", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as made:
        folder = options.keep_logs / f"{run}-{name}" if options.keep_logs else Path(made)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with KafkaBroker(Path(made) / "kafka") as broker:
                static = options.membership == "static"
                line = asyncio.run(measure(name, run, broker, folder, static=static, seed=options.seed))
        except (CannotBuildError, AssertionError, TimeoutError) as failure:
            print(f"{run}: {name}: {failure!r}", file=sys.stderr, flush=True)
            raise Failed from failure
    with RESULTS.open("ab") as results:
        results.write(orjson.dumps(line) + b"\n")
    return line


if __name__ == "__main__":
    main()
