"""An outage of one of two endpoints: `python -m tests.bench.one_of_two [--mode M] [--slots N]`, one JSON line per kind.

Two simulated servers of 40 calls a second each (8 slots), a steady load of 48 a second: 60 % of both, more than one can
carry alone, so that what it cannot take waits in Kafka. After 5 s one of them fails for 10 s; then it works again.

`caught` were in flight when it began and could not be saved; `useless` began later and failed, `until_opened` of them
before the breaker opened. The others are its trials, one a second.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from tests.support.deployment import WorkerProcess, configuration
from tests.support.embedded import EmbeddedKafka
from tests.support.topics import fresh_name
from topics.spec import KINDS
from workers.demo.processes import SimulatedModel

LATENCY_S, SLOTS = 0.2, 8
PARTITIONS, TASK = 8, "bench"
ENDS = ("enriched", "fallback", "dlq")
MODES = ("503", "429", "500", "hang", "reset", "freeze", "kill")
"""What the failing one does to what comes: a status, no answer, a reset.

`freeze` and `kill` catch what is in flight, too: SIGSTOP of its process (connections are taken, nothing is answered),
and SIGKILL (nobody listens).
"""
CATCHING = ("freeze", "kill")
OPENED = '"event":"breaker_opened"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """How long each part takes, in seconds."""

    before_s: float = 5.0
    outage_s: float = 10.0
    after_s: float = 15.0
    settle_s: float = 3.0


def rate_per_s(slots: int) -> float:
    """Return the load: 60 % of what both can carry."""
    return 0.6 * 2 * slots / LATENCY_S


@dataclass
class Seen:
    """When each record was sent (monotonic, by its number), and when and in which topic it ended."""

    sent_s: dict[int, float] = field(default_factory=dict)
    ended_s: dict[int, float] = field(default_factory=dict)
    kinds: dict[int, str] = field(default_factory=dict)
    twice: int = 0

    def latencies_s(self, since_s: float, until_s: float) -> dict[int, float]:
        """Return how long the records took that were sent in this time and have ended."""
        sent = {number: at_s for number, at_s in self.sent_s.items() if since_s <= at_s < until_s}
        return {number: self.ended_s[number] - at_s for number, at_s in sent.items() if number in self.ended_s}

    def normal_after_s(self, end_s: float, usual_s: float, usual_per_s: float) -> float | None:
        """Seconds after `end_s` until a second has the usual rate and the usual latency, None: never seen."""
        for step in range(200):
            from_s = end_s + step * 0.25
            ended = [number for number, at_s in self.ended_s.items() if from_s <= at_s < from_s + 1]
            took_s = [self.ended_s[number] - self.sent_s[number] for number in ended]
            if len(ended) >= 0.9 * usual_per_s and statistics.median(took_s) <= 2 * usual_s:
                return step * 0.25
        return None


@contextlib.asynccontextmanager
async def watched(servers: str, topic: str, seen: Seen) -> AsyncIterator[None]:
    """Note every output while the block runs."""
    consumer = AIOKafkaConsumer(
        *(f"{topic}.{TASK}.{kind}" for kind in ENDS), bootstrap_servers=servers, auto_offset_reset="earliest"
    )
    await consumer.start()

    async def watch() -> None:
        async for record in consumer:
            number = int(record.key)
            seen.twice += number in seen.ended_s
            seen.ended_s[number] = time.monotonic()
            seen.kinds[number] = record.topic.rsplit(".", 1)[1]

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await consumer.stop()


async def feed(servers: str, topic: str, seen: Seen, for_s: float, per_s: float) -> None:
    """Send records at a steady rate."""
    producer = AIOKafkaProducer(bootstrap_servers=servers, linger_ms=5)
    await producer.start()
    began_s = time.monotonic()
    for number in range(int(for_s * per_s)):
        await asyncio.sleep(max(0.0, began_s + number / per_s - time.monotonic()))
        value = orjson.dumps({"text": f"ticket {number}"})
        await producer.send(topic, key=b"%d" % number, value=value, partition=number % PARTITIONS)
        seen.sent_s[number] = time.monotonic()
    await producer.stop()


class Pair:
    """The two servers; the first is the one that fails."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self.first = self._server()
        self.second = self._server()

    def _server(self, port: int = 0) -> SimulatedModel:
        return SimulatedModel(
            latency=f"const:{LATENCY_S}", capacity=self._slots, wrap_ratio=0, port=port, lifetime_s=600
        )

    def begin(self, mode: str) -> int:
        """Let the first one fail; return how many calls that caught."""
        caught = self.first.counts()["in_flight"] if mode in CATCHING else 0
        if mode in CATCHING:
            os.kill(self.first.pid, signal.SIGKILL if mode == "kill" else signal.SIGSTOP)
        else:
            self.first.fail(mode)
        return caught

    def end(self, mode: str) -> None:
        """Let it work again."""
        if mode == "kill":
            self.first.stop()
            self.first = self._server(int(self.first.url.rsplit(":", 1)[1]))
        elif mode == "freeze":
            os.kill(self.first.pid, signal.SIGCONT)
        else:
            self.first.ok()

    def stop(self) -> None:
        """End both."""
        self.first.stop()
        self.second.stop()


def failed(worker: WorkerProcess) -> float:
    """Return how many calls have failed, as the worker counts them, a second late; all of them are the first's."""
    return worker.metric(r'penstock_model_calls_total\{.*outcome="(?!ok")')


async def outage(pair: Pair, mode: str, worker: WorkerProcess, outage_s: float) -> dict[str, float]:
    """Let one fail for so long; return the calls that it cost, in all and after its breaker had opened."""
    before = await asyncio.to_thread(failed, worker)
    began_s = time.monotonic()
    caught = await asyncio.to_thread(pair.begin, mode)
    opened = None
    opened_after_s = -1.0
    while (past_s := time.monotonic() - began_s) < outage_s:
        if opened is None and OPENED in worker.log.read_text():
            opened_after_s = past_s
            await asyncio.sleep(1.2)  # until the metrics have caught up; calls that ran then count as useless
            opened = await asyncio.to_thread(failed, worker)
        await asyncio.sleep(0.02)
    await asyncio.to_thread(pair.end, mode)
    await asyncio.sleep(1.2)
    after = await asyncio.to_thread(failed, worker)
    useless = after - before - caught
    return {
        "caught": caught,
        "useless": useless,
        "until_opened": useless if opened is None else opened - before - caught,
        "opened_after_s": round(opened_after_s, 2),
    }


async def run(mode: str, broker: EmbeddedKafka, folder: Path, times: Times, slots: int = SLOTS) -> dict[str, Any]:
    """Run one kind of outage and return its figures."""
    servers, topic = broker.bootstrap_servers, fresh_name("one-of-two")
    await broker.create_topics({topic: PARTITIONS} | {f"{topic}.{TASK}.{kind}": PARTITIONS for kind in KINDS})
    pair, seen = await asyncio.to_thread(Pair, slots), Seen()
    config = configuration(
        folder / topic,
        bootstrap_servers=servers,
        group_id=topic,
        url=pair.first.url,
        tasks={TASK: {"input": topic, "max_in_flight": 32 * slots, "deadline_s": 10}},
        model={
            "url": None,
            "max_in_flight": None,
            "endpoints": [{"url": one.url, "max_in_flight": slots} for one in (pair.first, pair.second)],
            "timeout_s": 1,
        },
    )
    total_s = times.settle_s + times.before_s + times.outage_s + times.after_s
    try:
        with WorkerProcess(config, folder / f"{topic}.log") as worker:
            await asyncio.to_thread(worker.wait_ready)
            async with watched(servers, topic, seen):
                feeding = asyncio.create_task(feed(servers, topic, seen, total_s, rate_per_s(slots)))
                await asyncio.sleep(times.settle_s + times.before_s)
                began_s = time.monotonic()
                calls = await outage(pair, mode, worker, times.outage_s)
                ended_s = began_s + times.outage_s
                await feeding
                patience_s = time.monotonic() + 60
                while len(seen.ended_s) < len(seen.sent_s) and time.monotonic() < patience_s:  # noqa: ASYNC110 - a consumer's notes set no event
                    await asyncio.sleep(0.1)
            retries = await asyncio.to_thread(worker.metric, r"penstock_model_retries_total\{")
            refused = await asyncio.to_thread(worker.metric, r"penstock_model_retries_refused_total\{")
            code, _ = await asyncio.to_thread(worker.terminate)
    finally:
        await asyncio.to_thread(pair.stop)
    usual_s = statistics.median(seen.latencies_s(began_s - times.before_s, began_s).values())
    later = seen.latencies_s(began_s, ended_s + times.after_s)
    return {
        "bench": "one_of_two",
        "mode": mode,
        "slots": slots,
        "records": len(seen.sent_s),
        "lost": len(seen.sent_s.keys() - seen.ended_s.keys()),
        "twice": seen.twice,
        "down_the_ladder": sum(kind != "enriched" for kind in seen.kinds.values()),
        **calls,
        "retries": retries,
        "retries_refused": refused,
        "median_before_s": round(usual_s, 3),
        "delayed": sum(took_s > 2 * usual_s for took_s in later.values()),
        "slowest_s": round(max(later.values()), 2),
        "normal_after_s": seen.normal_after_s(ended_s, usual_s, rate_per_s(slots)),
        "exit": code,
    }


async def main(modes: list[str], slots: int) -> None:
    """Run the kinds of outage in turn."""
    folder = Path(tempfile.mkdtemp(prefix="penstock-bench-"))
    with EmbeddedKafka() as broker:
        for mode in modes:
            print(json.dumps(await run(mode, broker, folder, Times(), slots)), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mode", choices=MODES, action="append")
    parser.add_argument("--slots", type=int, default=SLOTS, help="of each server")
    args = parser.parse_args()
    asyncio.run(main(args.mode or list(MODES), args.slots))
