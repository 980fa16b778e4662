"""What sharing and caching save: `python -m tests.bench.duplicates [--records N]`, one JSON line per case.

80 % of the records come from 1 % of the texts, the model takes 150 ms. The worker and broker are real; the time is from
the worker's start to its last output, start-up included, the same for all cases.
"""

import argparse
import asyncio
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.bench.stub import serving
from tests.bench.throughput import KINDS, PARTITIONS, answered
from tests.support.deployment import WorkerProcess, configuration
from tests.support.embedded import EmbeddedKafka
from tests.support.topics import New, fresh_name, produce

LATENCY_S, SLOTS, SEED = 0.15, 64, 7
CASES: dict[str, dict[str, Any]] = {
    "neither": {},
    "share_calls": {"share_calls": True},
    "cache": {"cache": {}},
    "both": {"share_calls": True, "cache": {}},
}


def texts(records: int) -> list[int]:
    """Return the text's number of each record: of as many texts as records, 1 % make 80 %."""
    rng, hot = random.Random(SEED), max(1, records // 100)
    return [rng.randrange(hot) if rng.random() < 0.8 else rng.randrange(hot, records) for _ in range(records)]


async def run(name: str, records: int, broker: EmbeddedKafka, folder: Path) -> dict[str, object]:
    """Run one case and return its figures."""
    topic, task = fresh_name("duplicates"), "bench"
    await broker.create_topics({topic: PARTITIONS} | {f"{topic}.{task}.{kind}": PARTITIONS for kind in KINDS})
    numbers = texts(records)
    await produce(
        broker.bootstrap_servers,
        topic,
        (New(key=b"k%d" % n, value=b'{"text":"ticket %d"}' % text) for n, text in enumerate(numbers)),
    )
    with serving(LATENCY_S) as port:
        config = configuration(
            folder / topic,
            bootstrap_servers=broker.bootstrap_servers,
            group_id=topic,
            url=f"http://127.0.0.1:{port}",
            model={"max_in_flight": SLOTS},
            tasks={task: {"input": topic, "max_in_flight": SLOTS * 4, **CASES[name]}},
        )
        began_s = time.monotonic()
        with WorkerProcess(config, folder / f"{topic}.log") as worker:
            worker.wait_finished(records)
            took_s = time.monotonic() - began_s
            code, _ = worker.terminate()
        calls = answered(port)
    return {
        "bench": "duplicates",
        "case": name,
        "records": records,
        "texts": len(set(numbers)),
        "calls_per_record": round(calls / records, 3),
        "records_per_s": round(records / took_s),
        "exit": code,
    }


async def main(records: int) -> None:
    """Run the cases in turn."""
    folder = Path(tempfile.mkdtemp(prefix="penstock-bench-"))
    with EmbeddedKafka() as broker:
        for name in CASES:
            print(json.dumps(await run(name, records, broker, folder)), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=6_000)
    asyncio.run(main(parser.parse_args().records))
