"""What long inputs cost the short ones: `python -m tests.bench.long_inputs [--seconds N]`, one JSON line per case.

Records arrive at a fixed rate; 5 % have a text of 60 KiB, the others one of 0.7 KiB. The simulated model takes 100 ms
and 20 ms more per KiB of the request, and has 16 slots, so that a long record holds one for 1.3 s. The worker is real,
the broker that of the demo. Seconds are those between a record's Kafka timestamp and the `produced_at` of its output,
without the first tenth of the records.
"""

import argparse
import asyncio
import json
import random
import tempfile
import time
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
from aiokafka import AIOKafkaProducer

from tests.bench.stub import serving
from tests.bench.throughput import KINDS, PARTITIONS
from tests.support.deployment import WorkerProcess, configuration
from tests.support.embedded import EmbeddedKafka
from tests.support.topics import fresh_name, read_all

RATE_PER_S, SLOTS, LATENCY_S, KIB_S, SEED = 80, 16, 0.1, 0.02, 7
LONG_SHARE, LONG_CHARS, SHORT_CHARS = 0.05, 60 << 10, 700
WORDS = [
    "invoice",
    "refund",
    "router",
    "account",
    "customer",
    "please",
    "settings",
    "login",
    "the",
    "of",
    "and",
    "is",
    "a",
]


def cut(keep: str) -> dict[str, Any]:
    """Return the task's settings that cut texts to 1,500 tokens."""
    return {"inputs": {"text": {"max_tokens": 1_500, "keep": keep}}}


CASES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "ends": cut("ends"),
    "sections": cut("sections"),
    "route": {"routes": [{"when": {"field": "text", "longer_than": 8_000}, "model": "long"}]},
    "route and ends": {
        "routes": [{"when": {"field": "text", "longer_than": 8_000}, "model": "long"}],
        "inputs": {"text": {"max_tokens": 10_000, "keep": "ends"}},
    },
}


def text(rng: random.Random, chars: int) -> str:
    """Return sentences of so many characters."""
    words = rng.choices(WORDS, k=chars // 5)
    for place in range(12, len(words), 12):
        words[place] += f" {place}."
    return " ".join(words)[:chars]


async def feed(broker: EmbeddedKafka, topic: str, records: int) -> None:
    """Write the records at the rate."""
    rng = random.Random(SEED)
    long_places = set(rng.sample(range(records), int(records * LONG_SHARE)))
    producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers, linger_ms=1)
    await producer.start()
    try:
        began_s = time.monotonic()
        for place in range(records):
            body = text(rng, LONG_CHARS if place in long_places else SHORT_CHARS)
            await asyncio.sleep(began_s + place / RATE_PER_S - time.monotonic())
            await producer.send(topic, orjson.dumps({"place": place, "text": body}), key=b"k%d" % place)
    finally:
        await producer.stop()


def percentiles(ages_s: list[float]) -> dict[str, float]:
    """Return the middle and the worst hundredth."""
    ages_s.sort()
    return {"p50_s": round(ages_s[len(ages_s) // 2], 3), "p99_s": round(ages_s[int(len(ages_s) * 0.99)], 3)}


async def ages(broker: EmbeddedKafka, topic: str, task: str, skip: int) -> dict[str, list[float]]:
    """Return how old each record was when it was written, those that were too early for the figures left out."""
    found: dict[str, list[float]] = {"short": [], "long": [], "cut": []}
    for record in await read_all(broker.bootstrap_servers, f"{topic}.{task}.enriched"):
        value = orjson.loads(record.value)
        if value["input"]["place"] < skip:
            continue
        provenance = value["provenance"]
        age_s = datetime.fromisoformat(provenance["produced_at"]).timestamp() - record.timestamp / 1000
        found["long" if len(value["input"]["text"]) > SHORT_CHARS else "short"].append(age_s)
        if "cut" in provenance:
            found["cut"].append(age_s)
    return found


async def run(name: str, records: int, broker: EmbeddedKafka, folder: Path) -> dict[str, object]:
    """Run one case and return its figures."""
    topic, task = fresh_name("long"), "bench"
    await broker.create_topics({topic: PARTITIONS} | {f"{topic}.{task}.{kind}": PARTITIONS for kind in KINDS})
    with ExitStack() as stack:
        url, other = (f"http://127.0.0.1:{stack.enter_context(serving(LATENCY_S, 0, 0, KIB_S))}" for _ in range(2))
        config = configuration(
            folder / topic,
            bootstrap_servers=broker.bootstrap_servers,
            group_id=topic,
            url=url,
            model={"max_in_flight": SLOTS},
            models={"long": {"url": other, "max_in_flight": 8}} if "routes" in CASES[name] else None,
            tasks={task: {"input": topic, **CASES[name]}},
        )
        worker = stack.enter_context(WorkerProcess(config, folder / f"{topic}.log")).wait_ready()
        await feed(broker, topic, records)
        worker.wait_finished(records)
        loop_lag_s = worker.metric(r"penstock_event_loop_lag_seconds")
        code, _ = worker.terminate()
    found = await ages(broker, topic, task, records // 10)
    return {
        "bench": "long_inputs",
        "case": name,
        "records": records,
        "short": percentiles(found["short"]),
        "long": percentiles(found["long"]),
        "cut": len(found["cut"]),
        "loop_lag_s": round(loop_lag_s, 3),
        "exit": code,
    }


async def main(seconds: int) -> None:
    """Run the cases in turn."""
    folder = Path(tempfile.mkdtemp(prefix="penstock-bench-"))
    with EmbeddedKafka() as broker:
        for name in CASES:
            print(json.dumps(await run(name, seconds * RATE_PER_S, broker, folder)), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    asyncio.run(main(parser.parse_args().seconds))
