"""W11, a real server, no limit configured: `python -m tests.bench.real_knee URL [--model NAME]`, a JSON line per limit.

The same work with each fixed limit and with `max_in_flight: auto`, in turns: prompts of about 150 words to
/v1/completions, 16 tokens each, 1,200 of them waiting all the time, so that the limit alone says how many run. No Kafka
and no stages. `auto` begins anew and has two and a half minutes to find its limit, or `--settle` seconds; what comes
then is measured.
"""

import argparse
import asyncio
import json
import statistics
import time
from dataclasses import dataclass, replace

import uvloop

from tests.bench.real_server import WORDS
from tests.support.llm_settings import ASK, client_for
from tests.support.wire import make_task
from workers.llm import Client
from workers.llm.thrift import thrifty
from workers.ports import Frame, Model
from workers.records import Passage

LIMITS: tuple[int | str, ...] = (16, 64, 128, 192, 256, 512, 1_024, "auto")
WAITING = 1_200
SETTLE_S, AUTO_SETTLE_S, MEASURE_S = 6.0, 150.0, 15.0


@dataclass
class Load:
    """Asks without a pause until `ends_at_s`; notes when each call ended and how long it took."""

    asked: Model
    frame: Frame
    ends_at_s: float
    ended: list[tuple[float, float]]

    async def ask(self, name: int) -> None:
        """Ask one record after the other; no prompt begins like another, as a server keeps what it has seen."""
        number = 0
        while time.monotonic() < self.ends_at_s:
            number += 1
            body = self.frame.around(f"{name} {number} {time.time_ns()} {WORDS}")
            reply = await self.asked.complete(body, Passage(300.0), wait_s=0.0)
            self.ended.append((time.monotonic(), reply.latency_s))


async def run(url: str, model: str, limit: int | str, settle_s: float, measure_s: float) -> dict[str, object]:
    """Run one case and return its figures: answers per second, and how long the calls took, without their wait here."""
    client: Client = client_for(url, slots=limit, dialect="completions", timeout_s=120.0, model=model)
    await client.start()
    asked = thrifty(client, make_task().settings, None)
    from_s = time.monotonic() + settle_s
    load = Load(asked, asked.frame(replace(ASK, schema=None, max_tokens=16)), from_s + measure_s, [])
    try:
        await asyncio.gather(*map(load.ask, range(WAITING)))
    finally:
        await client.close()
    measured = [took_s for at_s, took_s in load.ended if from_s <= at_s < load.ends_at_s]
    hundredths_s = statistics.quantiles(measured, n=100)
    return {
        "bench": "real_knee",
        "limit": limit,
        "answers": len(measured),
        "per_s": round(len(measured) / measure_s, 1),
        "p50_s": round(hundredths_s[49], 3),
        "p99_s": round(hundredths_s[98], 3),
        "in_flight": round(sum(measured) / measure_s),
    }


async def main(url: str, model: str, runs: int, auto_settle_s: float, measure_s: float) -> None:
    """Run every limit, `runs` times."""
    for _ in range(runs):
        for limit in LIMITS:
            settle_s = auto_settle_s if limit == "auto" else SETTLE_S
            print(json.dumps(await run(url, model, limit, settle_s, measure_s)), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--settle", type=float, default=AUTO_SETTLE_S, help="seconds `auto` has to find its limit")
    parser.add_argument("--seconds", type=float, default=MEASURE_S, help="measured per limit")
    given = parser.parse_args()
    uvloop.run(main(given.url, given.model, given.runs, given.settle, given.seconds))
