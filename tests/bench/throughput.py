"""First figures on the real broker: `python -m tests.bench.throughput [--runs N] [--pin]`, one JSON line per run.

`latency`: 150 ms, 256 slots: records/s against N/latency. `zero`: an endpoint that answers at once: CPU per record. The
first 20 % and the last 10 % of the records are outside the window. The worker runs on core 0; broker, stub and this
harness on core 1, as far as the machine has two.
"""

import argparse
import asyncio
import json
import os
import platform
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from tests.bench.stub import serving
from tests.support.deployment import WorkerProcess, configuration, wait_for
from tests.support.kafka import KafkaBroker, ensure_jars
from tests.support.topics import New, fresh_name, produce
from tests.support.verdicts import verdict_of
from workers.settings.model import Kafka

KINDS = ("enriched", "fallback", "review", "dlq")
PARTITIONS = 8
TEXT = "my invoice is wrong and the app crashes " * 19
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One workload."""

    name: str
    latency_s: float
    slots: int
    records: int


CASES = (
    Case(name="latency", latency_s=0.15, slots=256, records=25_000),
    Case(name="zero", latency_s=0.0, slots=256, records=60_000),
)


def answered(port: int) -> int:
    """Return how many requests the stub has seen."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/stats", timeout=5) as stats:
        return int(json.load(stats)["requests"])


def cpu_s(pid: int) -> float:
    """Return the process's CPU time, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def peak_mib(pid: int) -> float:
    """Return the peak resident memory."""
    status = Path(f"/proc/{pid}/status").read_text()
    return round(int(status.split("VmHWM:")[1].split()[0]) / 1024, 1)


async def run(case: Case, broker: KafkaBroker, folder: Path) -> dict[str, object]:
    """Run one case once and return its figures."""
    topic, task = fresh_name(case.name), "bench"
    await broker.create_topics({topic: PARTITIONS} | {f"{topic}.{task}.{kind}": PARTITIONS for kind in KINDS})
    await produce(
        broker.bootstrap_servers,
        topic,
        (
            New(key=b"k%d" % (number % 5000), value=b'{"id":%d,"text":"%b"}' % (number, TEXT.encode()))
            for number in range(case.records)
        ),
    )
    with serving(case.latency_s) as port:
        config = configuration(
            folder / topic,
            bootstrap_servers=broker.bootstrap_servers,
            group_id=topic,
            url=f"http://127.0.0.1:{port}",
            model={"max_in_flight": case.slots},
            tasks={task: {"input": topic, "max_in_flight": case.slots * 4}},
            worker={"log": {"level": "warning"}},
        )
        with WorkerProcess(config, folder / f"{topic}.log") as worker:
            if (os.cpu_count() or 1) > 1:
                os.sched_setaffinity(worker.running.pid, {0})
            first, last = int(case.records * 0.2), int(case.records * 0.9)
            wait_for(lambda: answered(port) >= first, 120, worker.tail, every_s=0.02)
            began_s, began_cpu_s, began = time.monotonic(), cpu_s(worker.running.pid), answered(port)
            wait_for(lambda: answered(port) >= last, 300, worker.tail, every_s=0.02)
            took_s, took_cpu_s, done = (
                time.monotonic() - began_s,
                cpu_s(worker.running.pid) - began_cpu_s,
                answered(port) - began,
            )
            wait_for(lambda: answered(port) >= case.records, 120, worker.tail)
            await asyncio.sleep(1.0)
            memory_mib = peak_mib(worker.running.pid)
            code, _ = worker.terminate()
    found = await verdict_of(Kafka(bootstrap_servers=broker.bootstrap_servers, group_id=topic), topic, task)
    ideal = case.slots / case.latency_s if case.latency_s else None
    return {
        "case": case.name,
        "records_per_s": round(done / took_s),
        "of_ideal": round(done / took_s / ideal, 3) if ideal else None,
        "cpu_us_per_record": round(took_cpu_s / done * 1e6, 1),
        "peak_mib": memory_mib,
        "lost": len(found.lost),
        "repeated": found.repeats,
        "order_violations": len(found.out_of_order),
        "exit": code,
    }


async def main(runs: int, only: str | None) -> None:
    """Run the cases in turn, `runs` times."""
    ensure_jars()
    machine = {"cores": os.cpu_count(), "python": platform.python_version()}
    folder = Path(tempfile.mkdtemp(prefix="penstock-bench-"))
    if (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, {1})  # before the broker starts: set later, its threads would keep both cores
    with KafkaBroker(folder / "kafka", heap="1g") as broker:
        for _ in range(runs):
            for case in CASES:
                if only in (None, case.name):
                    print(json.dumps(await run(case, broker, folder) | machine), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--case", choices=[case.name for case in CASES])
    given = parser.parse_args()
    asyncio.run(main(given.runs, given.case))
