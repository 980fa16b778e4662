"""A record, an answer and a rule that are made to be slow do not hold the loop that heartbeats to Kafka share."""

import asyncio
import contextlib
import itertools
import os
import time

import orjson
import pytest

from tests.support.deployment import DEFAULT, WorkerProcess, wait_for
from tests.support.fault_server import FaultServer, answer
from tests.support.speed import slowness, starved_s
from tests.support.stand import TASK, Stand
from tests.support.topics import New
from workers.loop_lag import PERIOD_S, SAMPLES
from workers.probes import RENDERING_S

LAG_S = 0.1
"""A thirtieth of the longest heartbeat interval.

A slow processor takes longer for the same piece of work: `slowness`. A busy machine's share comes on top: `starved_s`.
"""
TRIES = 3
RULES = """\
rules:
  - when: {field: text, matches: "^(a+)+$"}
    then: {category: bug, urgency: low, summary: never}
otherwise: {category: other, urgency: normal, summary: by rule}
"""
HOSTILE = [
    orjson.dumps({"text": "a" * 65_535 + "!"}),  # nested quantifiers take a backtracking engine for ever
    b"[" * (256 << 10),
    b'{"a":' * (40 << 10) + b"1" + b"}" * (40 << 10),
    orjson.dumps({"text": "<|" * (100 << 10)}),
]
ANSWERS = ["{" * ((1 << 20) - 1_024), '{"a":' * 200_000, "```json\n{" * 100_000]


def gauge(worker: WorkerProcess) -> float:
    """Return the longest delay of the worker's loop in the last 5 s, as it says itself."""
    return worker.metric("penstock_event_loop_lag_seconds")


async def longest_wait(worker: WorkerProcess, until: asyncio.Event) -> float:
    """Ask `/livez` again and again; return the longest time that an answer took: the same loop, seen from outside."""
    longest_s = 0.0
    while not until.is_set():
        began_s = time.monotonic()
        await asyncio.to_thread(worker.get, "/livez")
        longest_s = max(longest_s, time.monotonic() - began_s)
        await asyncio.sleep(0.05)
    return longest_s


async def test_nothing_in_a_record_or_an_answer_holds_the_loop(quick: Stand) -> None:
    """Hostile records, answers of a megabyte and a rule with nested quantifiers: the loop is late by less than 0.1 s.

    By the worker's own gauge and by the time that its probes take. Best of three.
    """
    records = HOSTILE * len(ANSWERS)
    said = itertools.cycle(map(answer, ANSWERS))

    async def next_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        return await next(said)(reader, writer)

    topic = await quick.create(partitions=1)
    task = {"input": topic, "ladder": [{"rules": "rules.yaml"}, {"default": DEFAULT}]}
    async with FaultServer(default=next_answer) as server:
        with quick.worker({TASK: task}, server.url, files={"rules.yaml": RULES}) as worker:
            await asyncio.to_thread(worker.wait_ready)
            seen, slow = [], slowness()
            for tried in range(1, TRIES + 1):
                with contextlib.suppress(AssertionError):  # until what came before has left the gauge
                    await asyncio.to_thread(wait_for, lambda: gauge(worker) < LAG_S / 2, PERIOD_S * SAMPLES)
                before_s = starved_s(worker.running.pid, os.getpid())
                quiet_s = await asyncio.to_thread(gauge, worker)
                done = asyncio.Event()
                asking = asyncio.create_task(longest_wait(worker, done))
                await quick.put(topic, [New(key=b"%d" % n, value=value) for n, value in enumerate(records)])
                await asyncio.to_thread(worker.wait_finished, tried * len(records))
                done.set()
                await asyncio.sleep(RENDERING_S)  # what /metrics says may be as old as that
                lags_s = (await asyncio.to_thread(gauge, worker), await asking)
                taken_away_s = starved_s(worker.running.pid, os.getpid()) - before_s
                seen.append((quiet_s, *lags_s, taken_away_s))
                if max(lags_s) <= max(LAG_S * slow + taken_away_s, quiet_s):
                    break
            else:
                pytest.fail(f"(idle, gauge, outside, taken away) in seconds: {seen}, {slow:.1f} times slower")
            print(seen)
            assert (await asyncio.to_thread(worker.terminate))[0] == 0
    ends = {kind: len(await quick.read(topic, kind)) for kind in ("enriched", "fallback", "dlq")}
    assert ends == {"enriched": 0, "fallback": 2 * len(seen) * len(ANSWERS), "dlq": 2 * len(seen) * len(ANSWERS)}
