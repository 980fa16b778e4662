"""The probes' server under attack: whoever reaches its port slows no record down and takes nothing but an answer."""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.deployment import WorkerProcess, wait_for
from tests.support.listening import listening_sockets
from tests.support.probe_attack import READY
from tests.support.speed import slowness, starved_s
from tests.support.stand import TASK, Simulate, Stand, tickets
from workers.probes import MAX_CONNECTIONS, RENDERING_S

ROOT = Path(__file__).parents[2]
RECORDS = 300
"""2 s of work for 8 slots of 0.05 s: an attack of 2 s."""
CPU_RATIO = 0.1
"""Of one core: what an attack takes from the records, at most. A busy machine changes seconds, and CPU time little.

A slow processor changes it, and `LAG_S`: `slowness`.
"""
LAG_S = 0.25
"""Far below a session and a probe's timeout. What a busy machine takes comes on top: `starved_s`."""
TRIES = 5


@contextlib.contextmanager
def attack(port: int) -> Iterator[None]:
    """Attack the port from another process, with all it has while the block runs."""
    command = [sys.executable, "-m", "tests.support.probe_attack", str(port)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as attacker:
        try:
            assert attacker.stdout is not None
            assert attacker.stdout.readline().strip() == READY
            yield
        finally:
            attacker.kill()


async def cost_of(stand: Stand, topic: str, worker: WorkerProcess, done: int) -> tuple[float, float]:
    """Let the worker do RECORDS more; return its seconds of CPU and of the clock."""
    began_s, cpu_s = time.monotonic(), cpu_of(worker)
    await stand.put(topic, tickets(RECORDS, start=done))
    while sum((await stand.committed(topic)).values()) < done + RECORDS:
        assert time.monotonic() < began_s + 60, worker.tail()
        await asyncio.sleep(0.05)
    return cpu_of(worker) - cpu_s, time.monotonic() - began_s


def cpu_of(worker: WorkerProcess) -> float:
    """Return the CPU seconds that the worker has used (proc(5): fields 14 and 15)."""
    cells = Path(f"/proc/{worker.running.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(cells[11]) + int(cells[12])) / os.sysconf("SC_CLK_TCK")


async def lag_of(worker: WorkerProcess) -> float:
    """Return the worker's own gauge: the longest delay of its loop in the last 5 s."""
    return await asyncio.to_thread(worker.metric, "penstock_event_loop_lag_seconds")


def open_files(worker: WorkerProcess) -> int:
    """Return how many files the worker has open."""
    return len(os.listdir(f"/proc/{worker.running.pid}/fd"))  # noqa: PTH208 - a count


@pytest.mark.fault("P12")
async def test_attacks_on_the_probes_slow_no_record_down(quick: Stand, simulate: Simulate) -> None:
    """1,000 scrapes, slow headers, deaf readers, huge requests: pace, loop and files stay as they are, probes return.

    Best of five, since the machine may be busy with something else.
    """
    model, topic = simulate(latency="const:0.05"), await quick.create()
    with quick.worker({TASK: {"input": topic}}, model.url, model={"max_in_flight": 8}) as worker:
        worker.wait_ready()
        port, done, seen, files = worker.port(), 0, [], open_files(worker)
        assert port is not None
        slow = slowness()
        for _ in range(TRIES):
            starved_before_s = starved_s(worker.running.pid)
            quiet_cpu_s, _ = await cost_of(quick, topic, worker, done)
            quiet_lag_s = await lag_of(worker)
            with attack(port):
                await asyncio.to_thread(wait_for, lambda: open_files(worker) > files + 60, 30, worker.tail)
                cpu_s, took_s = await cost_of(quick, topic, worker, done + RECORDS)
                most_files = open_files(worker)
            await asyncio.to_thread(wait_for, lambda: worker.get("/livez")[0] == 200, 30, worker.tail)
            await asyncio.to_thread(wait_for, lambda: open_files(worker) <= files + 16, 30, worker.tail)
            assert most_files <= files + MAX_CONNECTIONS + 16
            await asyncio.sleep(RENDERING_S)  # what /metrics says may be as old as that
            lag_s = await lag_of(worker)
            taken_away_s = starved_s(worker.running.pid) - starved_before_s
            done += 2 * RECORDS
            taken = (cpu_s - quiet_cpu_s) / took_s
            seen.append(f"{taken:.1%} of a core for {took_s:.1f} s, loop lag {lag_s:.3f} s after {quiet_lag_s:.3f} s")
            if taken <= CPU_RATIO * slow and lag_s <= max(LAG_S * slow + taken_away_s, quiet_lag_s):
                break
        else:
            pytest.fail(f"{seen} on a machine that is {slow:.1f} times slower")
        print(seen)
        assert worker.terminate()[0] == 0
    assert not (await quick.verdict(topic)).broken()


async def test_the_server_listens_on_loopback_alone_unless_told(quick: Stand, simulate: Simulate) -> None:
    """Without `worker.http.host` no other address of this machine answers, and no more than one port is open."""
    topic = await quick.create()
    with quick.worker({TASK: {"input": topic}}, simulate().url) as worker:
        worker.wait_ready()
        assert listening_sockets(worker.running.pid) == [("127.0.0.1", worker.port())]
