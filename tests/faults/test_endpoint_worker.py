"""One model server fails in every way while a worker runs: what becomes of the records, and what the server sees."""

import asyncio
import itertools
import os
import random
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support import fault_server as http
from tests.support.deployment import DEFAULT, WorkerProcess, wait_for
from tests.support.fault_server import FaultServer, Seen
from tests.support.stage import logged
from tests.support.stand import TASK, Stand
from tests.support.topics import New

RESET_S = 0.3
"""`reset_timeout_s` of the breaker: the pause between two trials."""
OUTAGE_S = 1.0
"""How long an outage goes on after the breaker opened."""
DEADLINE_S = 4.0
"""Of records without a ladder: an answer that comes later, because the machine is busy, is a dead letter."""
KEYS = 20
OPENED, CLOSED = '"event":"breaker_opened"', '"event":"breaker_closed"'
CHANCE = random.Random(28)
GOOD = http.later(lambda: 0.4 if CHANCE.random() < 0.1 else 0.01, http.answer(orjson.dumps(DEFAULT).decode()))
"""One answer in ten takes forty times as long."""
SETTINGS: dict[str, Any] = {
    "max_in_flight": 8,
    "timeout_s": 1,
    "breaker": {"reset_timeout_s": RESET_S, "min_calls": 5, "window_s": 2},
}
FAULTS: dict[str, http.Step | None] = {
    "connect": None,
    "timeout": http.hang(),
    "connection_lost": http.later(lambda: 0.02, http.reset()),
    "bad_envelope": http.later(lambda: 0.02, http.page()),
}
"""What the server does, by the outcome that its calls are counted under; None: nobody listens."""


@pytest.fixture
async def server() -> AsyncIterator[FaultServer]:
    """A model server that answers with a heavy tail until it is told otherwise."""
    async with FaultServer(default=GOOD) as running:
        yield running


@pytest.fixture
async def trap() -> AsyncIterator[FaultServer]:
    """Somebody whom nobody has a reason to ask."""
    async with FaultServer() as running:
        yield running


def tickets(count: int, start: int, trap: str) -> list[New]:
    """Return tickets in turn under `KEYS` keys, full of URLs that nobody must follow."""
    texts = (
        {"text": f"invoice {n}", "url": trap, "image_url": {"url": f"{trap}/a.png"}} for n in itertools.count(start)
    )
    return [
        New(key=b"k%d" % (n % KEYS), value=orjson.dumps(text), headers=[("url", trap.encode())])
        for n, text in zip(range(start, start + count), texts, strict=False)
    ]


@dataclass
class Outage:
    """What was seen from the moment in which the breaker was open to the end of an outage."""

    asked: list[Seen] = field(default_factory=list)
    lasted_s: float = 0.0
    cpu_s: float = 0.0

    def assert_one_trial_at_a_time(self) -> None:
        """I12: open sends nothing, half-open one request: each begins a whole pause after the one before it began."""
        gaps_s = [later.at_s - earlier.at_s for earlier, later in itertools.pairwise(self.asked)]
        assert all(gap_s >= 0.9 * RESET_S for gap_s in gaps_s), gaps_s
        assert len(self.asked) <= self.lasted_s / RESET_S + 1


async def outage(server: FaultServer, worker: WorkerProcess, fault: http.Step | None) -> Outage:
    """Let the server fail until the breaker is open and `OUTAGE_S` have passed, then let it work again."""
    opened, closed = logged(worker, OPENED), logged(worker, CLOSED)
    if fault is None:
        await server.down()
    else:
        server.default = fault
    await until(lambda: logged(worker, OPENED) > opened, worker)
    await until_seen(worker)
    seen, began_s, cpu_s = len(server.requests), time.monotonic(), cpu_of(worker)
    await asyncio.sleep(OUTAGE_S)
    found = Outage(server.requests[seen:], time.monotonic() - began_s, cpu_of(worker) - cpu_s)
    server.default = GOOD
    if fault is None:
        await server.up()
    await until(lambda: logged(worker, CLOSED) > closed, worker)
    return found


async def until_seen(worker: WorkerProcess) -> None:
    """Wait until the server has read every request of a call that had begun before this moment.

    Such a call may still be connecting: it is a few turns of the worker's loop from having sent, and an answered probe
    takes more of them. What is sent is in a socket of ours, a few turns of this loop from being read.
    """
    for _ in range(3):
        await until(lambda: worker.get("/livez")[0] == 200, worker)
    for _ in range(50):
        await asyncio.sleep(0)


async def until(condition: Callable[[], object], worker: WorkerProcess) -> None:
    """Wait without holding the loop, on which the server runs."""
    await asyncio.to_thread(wait_for, condition, 60, worker.tail, 0.02)


def cpu_of(worker: WorkerProcess) -> float:
    """Return the seconds of processor time that the worker has used (proc(5))."""
    fields = Path(f"/proc/{worker.running.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.fault("E1", "E2", "E9", "E23", "E24", "E28")
async def test_a_server_that_fails_in_every_way_loses_nothing(
    quick: Stand, server: FaultServer, trap: FaultServer
) -> None:
    """Dead, silent, resetting, lying in turn: no loss, order kept, no dead letter, one trial at a time, no busy loop.

    I11: what records name is never asked. I13 is in test_model_away.
    """
    topic, count = await quick.create(), 0
    task = {"input": topic, "deadline_s": 5}
    with quick.worker({TASK: task}, server.url, model=SETTINGS) as worker:
        await asyncio.to_thread(worker.wait_ready)
        for fault in FAULTS.values():
            await quick.put(topic, tickets(150, count, trap.url))
            count += 150
            seen = await outage(server, worker, fault)
            seen.assert_one_trial_at_a_time()
            assert seen.cpu_s < 0.7 * seen.lasted_s
        await quick.put(topic, tickets(100, count, trap.url))
        count += 100
        await asyncio.to_thread(worker.wait_finished, count)
        calls = await asyncio.to_thread(lambda: {name: worker.metric(outcome(name)) for name in (*FAULTS, "ok")})
        opened = await asyncio.to_thread(worker.metric, "penstock_breaker_opened_total{")
        assert (await asyncio.to_thread(worker.terminate))[0] == 0
    assert not (found := await quick.verdict(topic)).broken()
    assert found.by_kind["enriched"] + found.by_kind["fallback"] == count
    assert found.by_kind["enriched"] >= 100
    assert opened >= len(FAULTS)
    assert min(calls.values()) > 0
    # A kept connection that the server ended costs a call a second request (E3): one a slot and change at most.
    assert sum(calls.values()) - calls["connect"] == pytest.approx(len(server.requests), abs=2 * 8)
    assert trap.connections == 0
    assert all(isinstance(said["content"], str) for asked in server.bodies for said in asked["messages"])  # type: ignore[index]


def outcome(name: str) -> str:
    """Return the pattern of the series that counts calls by this outcome."""
    return f'penstock_model_calls_total{{.*outcome="{name}"'


@pytest.mark.fault("E17", "E19", "E28")
async def test_a_misconfigured_endpoint_costs_no_record_a_dead_letter(
    quick: Stand, server: FaultServer, trap: FaultServer
) -> None:
    """Without a ladder, and though `fallback` is set: refused for good means held, until a person has mended it."""
    topic = await quick.create()
    elsewhere = f"Location: {trap.url}/v1/chat/completions"
    task = {"input": topic, "ladder": [], "when_unavailable": "fallback", "deadline_s": DEADLINE_S}
    with quick.worker({TASK: task}, server.url, model=SETTINGS | {"timeout_s": DEADLINE_S}) as worker:
        await asyncio.to_thread(worker.wait_ready)
        for done, code in enumerate((404, 307)):
            closed = logged(worker, CLOSED)
            server.default = http.status(code, {}, elsewhere)
            await quick.put(topic, tickets(60, 60 * done, trap.url))
            await until(lambda code=code: f"{code} from" in worker.not_ready(), worker)  # type: ignore[misc]
            await until_seen(worker)
            asked = len(server.requests)
            began_s = time.monotonic()
            await asyncio.sleep(1.1 * DEADLINE_S)  # longer than that of every record
            assert len(server.requests) - asked <= (time.monotonic() - began_s) / RESET_S + 2
            assert [await quick.read(topic, kind) for kind in ("dlq", "fallback")] == [[], []]
            server.default = GOOD
            await until(lambda closed=closed: logged(worker, CLOSED) > closed, worker)  # type: ignore[misc]
        await asyncio.to_thread(worker.wait_finished, 120)
        assert (await asyncio.to_thread(worker.terminate))[0] == 0
    assert not (found := await quick.verdict(topic)).broken()
    assert found.by_kind == {"enriched": 120}
    assert trap.connections == 0
