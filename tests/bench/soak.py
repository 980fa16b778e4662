"""Hours under load with a fault every few minutes: `python -m tests.bench.soak --hours 8 [--fault-every-s 180]`.

Three workers of one group at 70 % of what they can do, on a real broker behind a proxy; each fault of `make faults`, in
a random order. Worker `a` is spared what would end its process: its memory, its descriptors and its records' latency
are what the slopes are taken of. Prints a line per fault, and in the end one JSON line; a broken invariant ends it with
its name and code 1.
"""

import argparse
import asyncio
import contextlib
import itertools
import logging
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from tests.support import chaos
from tests.support.kafka import KafkaBroker
from tests.support.proxied_kafka import ProxiedKafka
from tests.support.scene import SLOTS, Scene, scene
from tests.support.stage import TASK
from tests.support.tcp_proxy import TcpProxy

WORKERS = 3
MEAN_CALL_S = 0.9 * 0.05 + 0.1 * 2.0
LOAD = 0.7
RATE_PER_S = LOAD * WORKERS * SLOTS / MEAN_CALL_S
SAMPLE_EVERY_S = 10.0
WARM_UP_SHARE = 0.2
"""Of the run: what is measured before is not in the slopes."""
SPARED = "a"


@dataclass
class Samples:
    """Of the spared worker, by seconds since the start; latency is that of all records of the time before."""

    at_s: list[float] = field(default_factory=list)
    rss_bytes: list[int] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    latency_p99_ms: list[float] = field(default_factory=list)

    def rss_mib_by_minute(self) -> list[float]:
        """Return the memory at the end of each minute: a step after a fault is no slope."""
        every = round(60 / SAMPLE_EVERY_S)
        return [round(rss_bytes / 2**20, 1) for rss_bytes in self.rss_bytes[every - 1 :: every]]

    def slopes(self) -> dict[str, float]:
        """Return the growth per hour after the warm-up, and the medians."""
        since = int(len(self.at_s) * WARM_UP_SHARE)
        hours = [at_s / 3600 for at_s in self.at_s[since:]]
        return {
            "rss_mib": statistics.median(self.rss_bytes[since:]) / 2**20,
            "rss_mib_per_hour": slope(hours, self.rss_bytes[since:]) / 2**20,
            "descriptors": statistics.median(self.descriptors[since:]),
            "descriptors_per_hour": slope(hours, self.descriptors[since:]),
            "latency_p99_ms": statistics.median(self.latency_p99_ms[since:]),
            "latency_p99_ms_per_hour": slope(hours, self.latency_p99_ms[since:]),
        }


def slope(hours: Sequence[float], values: Sequence[float]) -> float:
    """Return the growth per hour: the median over all pairs of samples (Theil and Sen).

    Least squares would follow the few samples that a fault has thrown off, by seconds where a latency is milliseconds.
    """
    points = list(zip(hours, values, strict=True))
    return statistics.median(
        [(b - a) / (at_b - at_a) for (at_a, a), (at_b, b) in itertools.combinations(points, 2)] or [0.0]
    )


@contextlib.asynccontextmanager
async def sampled(on: Scene) -> AsyncIterator[Samples]:
    """Look at the spared worker every ten seconds while the block runs."""
    samples, latencies_ms = Samples(), list[float]()
    consumer = AIOKafkaConsumer(
        f"{on.stage.topic}.{TASK}.enriched", bootstrap_servers=on.stage.broker.bootstrap_servers
    )
    await consumer.start()
    tasks = [
        asyncio.create_task(_latencies(consumer, latencies_ms)),
        asyncio.create_task(_sample(on, samples, latencies_ms)),
    ]
    try:
        yield samples
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await consumer.stop()


async def _latencies(consumer: AIOKafkaConsumer, latencies_ms: list[float]) -> None:
    """From when a record was written (its body says so) to when its output is read here, some milliseconds later.

    Not by Kafka's timestamps: an output carries its input's.
    """
    while True:
        with contextlib.suppress(KafkaError):
            read = await consumer.getmany(timeout_ms=500)
            now_ms = time.time_ns() / 1e6
            written = [orjson.loads(record.value)["input"]["at_ms"] for records in read.values() for record in records]
            latencies_ms += [now_ms - at_ms for at_ms in written]


async def _sample(on: Scene, samples: Samples, latencies_ms: list[float]) -> None:
    began_s = time.monotonic()
    while True:
        await asyncio.sleep(SAMPLE_EVERY_S)
        rss_bytes, descriptors = _held(on.workers[SPARED].running.pid)
        samples.at_s.append(time.monotonic() - began_s)
        samples.rss_bytes.append(rss_bytes)
        samples.descriptors.append(descriptors)
        samples.latency_p99_ms.append(statistics.quantiles(latencies_ms, n=100)[98] if len(latencies_ms) > 1 else 0.0)
        latencies_ms.clear()


def _held(pid: int) -> tuple[int, int]:
    """Return a process's resident bytes and open descriptors."""
    process = Path(f"/proc/{pid}")
    pages = int((process / "statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE"), sum(1 for _ in (process / "fd").iterdir())


def faults(proxy: TcpProxy) -> dict[str, chaos.Fault]:
    """Every fault, by its name."""
    return {
        "kill -9 of a worker": chaos.kill_worker,
        "SIGSTOP of a worker": chaos.freeze_worker,
        "rebalance": chaos.rebalance,
        "SIGKILL of the broker": chaos.kill_broker,
        "SIGSTOP of the broker": chaos.freeze_broker,
        "link cut for 60 s": chaos.cut_link(proxy),
        **{f"endpoint: {mode}": chaos.endpoint(mode, 20) for mode in ("reset", "hang", "garbage", "503", "429")},
    }


async def soak(folder: Path, broker: KafkaBroker, proxy: TcpProxy, options: argparse.Namespace) -> dict[str, Any]:
    """Run for so long; return the figures."""
    chance = random.Random(options.seed)
    ends_at_s = time.monotonic() + options.hours * 3600
    kinds = faults(proxy)
    done: list[dict[str, Any]] = []
    async with (
        scene(
            folder,
            broker,
            f"soak of {options.hours:g} h",
            workers=WORKERS,
            rate_per_s=RATE_PER_S,
            seed=options.seed,
            lifetime_s=(options.hours + 1) * 3600,
            kafka={"bootstrap_servers": proxy.address},
        ) as on,
        sampled(on) as samples,
    ):
        on.spared = {SPARED}
        while (left_s := ends_at_s - time.monotonic()) > 0:
            await asyncio.sleep(min(left_s, options.fault_every_s * chance.uniform(0.5, 1.5)))
            name = chance.choice(sorted(kinds))
            await on.suffer(kinds[name])
            done.append({"fault": name, "progress_s": on.figures.progress_s[-1]})
            moved = f"{name}: every partition moved again after {done[-1]['progress_s']:g} s"
            print(f"{moved}; {SPARED} has {_held(on.workers[SPARED].running.pid)[0] / 2**20:.1f} MiB", file=sys.stderr)
        slopes, by_minute = samples.slopes(), samples.rss_mib_by_minute()
    return asdict(on.figures) | {"slopes": slopes, "rss_mib_by_minute": by_minute, "faults_done": done}


def main() -> None:
    """Run once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--fault-every-s", type=float, default=180.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # our own clients meet the faults as well
    with (
        tempfile.TemporaryDirectory() as folder,
        TcpProxy() as proxy,
        ProxiedKafka(Path(folder) / "kafka", proxy) as broker,
    ):
        figures = asyncio.run(soak(Path(folder), broker, proxy, options))
    print(orjson.dumps(figures).decode())


if __name__ == "__main__":
    main()
