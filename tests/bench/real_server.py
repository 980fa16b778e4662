"""What batches gain on a real server: `python -m tests.bench.real_server URL [--model NAME]`, one JSON line per run.

Prompts of about 150 words to /v1/completions, 16 tokens each, as many in flight all the time as a line says: one in a
call, or eight. No Kafka and no stages: each answer is cut, which a task would not take.
"""

import argparse
import asyncio
import json
import statistics
import time
from dataclasses import replace

import uvloop

from tests.support.llm_settings import ASK, client_for
from tests.support.wire import make_task
from workers.llm.thrift import thrifty
from workers.ports import Frame, Model
from workers.records import Passage
from workers.settings.batch import BatchSettings

IN_FLIGHT = (64, 256, 512)
BATCHES = (None, BatchSettings(max_records=8, linger_s=0.02))
WORDS = "the printer on the third floor is on fire again and nobody has come to look at it " * 9


async def one(name: str, model: Model, frame: Frame) -> tuple[float, float]:
    """Ask for a record; return when it had its answer, and after how long."""
    began_s = time.monotonic()
    reply = await model.complete(frame.around(f"{name} {WORDS}"), Passage(120.0), wait_s=0.0)
    assert reply.attempts <= 1, reply
    ended_s = time.monotonic()
    return ended_s, ended_s - began_s


async def run(url: str, model: str, batch: BatchSettings | None, in_flight: int, records: int) -> dict[str, object]:
    """Run one case and return its figures."""
    client = client_for(
        url, slots=in_flight // (batch.max_records if batch else 1), dialect="completions", timeout_s=60.0, model=model
    )
    await client.start()
    asked = thrifty(client, make_task().settings, batch)
    frame = asked.frame(replace(ASK, schema=None, max_tokens=16))
    room, salt = asyncio.Semaphore(in_flight), time.time_ns()  # no prompt begins like another: a server keeps prefixes

    async def in_turn(number: int) -> tuple[float, float]:
        async with room:
            return await one(f"{number} {salt}", asked, frame)

    try:
        cpu_s = time.process_time()
        ended = sorted(await asyncio.gather(*map(in_turn, range(records))))
        cpu_s = time.process_time() - cpu_s
    finally:
        await client.close()
    counted = ended[records // 8 : -records // 8]
    latencies_s = statistics.quantiles((latency_s for _, latency_s in counted), n=100)
    return {
        "bench": "real_server",
        "case": f"{batch.max_records} in a call" if batch else "single",
        "in_flight": in_flight,
        "records": records,
        "records_per_s": round((len(counted) - 1) / (counted[-1][0] - counted[0][0]), 1),
        "p50_s": round(latencies_s[49], 3),
        "p95_s": round(latencies_s[94], 3),
        "cpu_us_per_record": round(cpu_s / records * 1e6),
    }


async def main(url: str, model: str, runs: int, rounds: int) -> None:
    """Run the cases in turn, `runs` times; each answers `rounds` times what is in flight."""
    for _ in range(runs):
        for in_flight in IN_FLIGHT:
            for batch in BATCHES:
                print(json.dumps(await run(url, model, batch, in_flight, rounds * in_flight)), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=12)
    given = parser.parse_args()
    uvloop.run(main(given.url, given.model, given.runs, given.rounds))
