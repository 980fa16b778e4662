"""What batches gain and cost: `python -m tests.bench.batches [--runs N] [--records N]`, one JSON line per run.

A server that runs 16 calls at a time; one prompt takes it 0.15 s, eight in one call 1.5 times as long. `full`: 512
records are in flight all the time. `light`: records come one by one, at half the rate that single calls can have; what
a batch costs there is the linger. No Kafka: a record's way from value to outcome (`decide`), the client and the HTTP
calls are real. The first and last eighth of the records are not counted.
"""

import argparse
import asyncio
import json
import statistics
import time
from dataclasses import dataclass, replace

import uvloop

from tests.support import fault_server as http
from tests.support.completions import completion_of
from tests.support.fault_server import FaultServer
from tests.support.llm_settings import ASK, client_for
from tests.support.wire import make_record, make_task
from workers.llm.thrift import thrifty
from workers.outcome import Enriched
from workers.pipeline import decide
from workers.ports import Model
from workers.records import Passage
from workers.settings.batch import BatchSettings
from workers.task import Task

BASE_S, CAPACITY, IN_FLIGHT = 0.15, 16, 512
EACH_MORE = 1 / 14
"""What each further prompt of a call adds to its time: eight cost 1.5 times one."""
SINGLE_PER_S = CAPACITY / BASE_S


@dataclass(frozen=True, kw_only=True)
class Case:
    """How records come, and how they are asked for."""

    load: str
    batch: BatchSettings | None

    @property
    def name(self) -> str:
        """What the line says."""
        if self.batch is None:
            return "single"
        return f"{self.batch.max_records} in {self.batch.linger_s:g} s"


BATCHES = (None, BatchSettings(), BatchSettings(linger_s=0.02))
CASES = [Case(load=load, batch=batch) for load in ("full", "light") for batch in BATCHES]


def server_step(server: FaultServer) -> http.Step:
    """Answer each prompt of a request, after the time that the request takes; no more than `CAPACITY` at once."""
    slots = asyncio.Semaphore(CAPACITY)

    async def step(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        asked = json.loads(server.requests[-1].body)["prompt"]
        records = 1 if isinstance(asked, str) else len(asked)
        async with slots:
            await asyncio.sleep(BASE_S * (1 + (records - 1) * EACH_MORE))
        return await http.status(200, completion_of(["an answer"] * records))(reader, writer)

    return step


async def one(number: int, task: Task) -> tuple[float, float]:
    """Answer a record; return when it had its outcome, and after how long."""
    began_s = time.monotonic()
    outcome = await decide(make_record(value=b'{"id":%d}' % number), task, Passage(60.0))
    assert isinstance(outcome, Enriched), outcome
    ended_s = time.monotonic()
    return ended_s, ended_s - began_s


async def full(records: int, task: Task) -> list[tuple[float, float]]:
    """Keep `IN_FLIGHT` records on their way."""
    room = asyncio.Semaphore(IN_FLIGHT)

    async def in_turn(number: int) -> tuple[float, float]:
        async with room:
            return await one(number, task)

    return await asyncio.gather(*map(in_turn, range(records)))


async def light(records: int, task: Task) -> list[tuple[float, float]]:
    """Let a record come every so often, however long the ones before take."""
    began_s = time.monotonic()
    running = []
    for number in range(records):
        await asyncio.sleep(began_s + number / (SINGLE_PER_S / 2) - time.monotonic())
        running.append(asyncio.create_task(one(number, task)))
    return await asyncio.gather(*running)


def compiled(model: Model) -> Task:
    """Return a task that asks the model for a text."""
    frame = model.frame(replace(ASK, schema=None))
    return replace(make_task(), model=model, frame=frame, render=lambda record, **_: f"ticket {record['id']}")


async def run(case: Case, records: int) -> dict[str, object]:
    """Run one case and return its figures."""
    async with FaultServer() as server:
        server.default = server_step(server)
        client = client_for(server.url, slots=CAPACITY, dialect="completions", timeout_s=10.0)
        await client.start()
        try:
            model = thrifty(client, make_task().settings, case.batch)
            cpu_s = time.process_time()
            ended = sorted(await (full if case.load == "full" else light)(records, compiled(model)))
            cpu_s = time.process_time() - cpu_s
        finally:
            await client.close()
        counted = ended[records // 8 : -records // 8]
        latencies_s = statistics.quantiles((latency_s for _, latency_s in counted), n=100)
        return {
            "bench": "batches",
            "load": case.load,
            "case": case.name,
            "records": records,
            "records_per_s": round((len(counted) - 1) / (counted[-1][0] - counted[0][0]), 1),
            "records_per_call": round(records / len(server.requests), 2),
            "p50_s": round(latencies_s[49], 3),
            "p95_s": round(latencies_s[94], 3),
            "cpu_us_per_record": round(cpu_s / records * 1e6),
        }


async def main(runs: int, records: int) -> None:
    """Run the cases in turn, `runs` times."""
    for _ in range(runs):
        for case in CASES:
            few = case.batch is None or case.load == "light"  # the same time for all
            print(json.dumps(await run(case, records if few else 5 * records)), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--records", type=int, default=1_200)
    given = parser.parse_args()
    uvloop.run(main(given.runs, given.records))
