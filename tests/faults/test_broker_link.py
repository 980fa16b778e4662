"""A broker that dies, freezes, is far away or cannot be reached, under a worker with its hands full.

The model is far away as well, until a fault is over: so the fault comes while most records are still to be done,
however long the test itself is held up. What a test measures is printed: `pytest -rP` shows it.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.commit_sampler import CommitSampler, sampling
from tests.support.deployment import WorkerProcess, wait_for
from tests.support.proxied_kafka import ProxiedKafka
from tests.support.stage import TASK, Stage, logged
from tests.support.tcp_proxy import TcpProxy
from tests.support.topics import members
from workers.audit import Verdict

RECORDS, IN_FLIGHT, SLOTS = 400, 64, 6
SESSION_S, SEND_TIMEOUT_S = 6.0, 3.0
LONG_SESSION_S = 20.0
"""Where none is to end: a machine that has no time for the worker's heartbeats is no slow link."""
AWAY_S = 10.0
FAR_S = 0.25
"""One way to the model and as much back: 11 records a second over all slots, and the last one after half a minute."""
AT_WORK = 20
"""So many are handled when the fault comes."""
RESUMED_S = 20.0
"""10 s are what the catalogue asks for, and what `make faults` holds it to; a loaded machine gets more."""
PATIENCE_S = 90.0
THREE_MBIT_BYTES_PER_S = 375_000
HANDLED = r"penstock_records_total\b"


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What is around the worker: its topics, who samples its commits, and its way to the model."""

    stage: Stage
    sampler: CommitSampler
    to_model: TcpProxy


@asynccontextmanager
async def over(folder: Path, broker: ProxiedKafka, *, session_s: float = SESSION_S) -> AsyncIterator[Around]:
    """A worker's surroundings: it reaches the broker over the proxy; the test and who samples its commits do not."""
    kafka = {
        "bootstrap_servers": broker.proxied_servers,
        "session_timeout_s": session_s,
        "send_timeout_s": SEND_TIMEOUT_S,
    }
    task = {"max_in_flight": IN_FLIGHT, "deadline_s": 120}
    with TcpProxy(latency_s=FAR_S) as to_model:
        model = {"max_in_flight": SLOTS, "url": f"http://{to_model.address}", "timeout_s": 30}
        async with (
            Stage(folder, broker, kafka=kafka, model=model, task=task) as stage,
            sampling(broker.bootstrap_servers, stage.group, stage.topic, TASK) as sampler,
        ):
            to_model.upstream_port = int(stage.model.url.rsplit(":", 1)[1])
            yield Around(stage=stage, sampler=sampler, to_model=to_model)


async def busy(stage: Stage) -> WorkerProcess:
    """Start a worker on more records than it does in half a minute; return when it is at work."""
    await stage.produce(RECORDS)
    worker = await asyncio.to_thread(stage.worker().wait_ready)
    await until(lambda: worker.metric(HANDLED) >= AT_WORK, worker)
    assert worker.metric(HANDLED) < RECORDS - 2 * IN_FLIGHT, "the fault was to come in the middle"
    return worker


async def until(condition: Callable[[], Any], worker: WorkerProcess, timeout_s: float = PATIENCE_S) -> float:
    """Wait until the condition holds; return how long that took."""
    began_s = time.monotonic()
    await asyncio.to_thread(wait_for, condition, timeout_s, worker.tail)
    return time.monotonic() - began_s


async def resumed(worker: WorkerProcess, fault: str) -> None:
    """Wait until the worker is ready and goes on with its records, and print how long that took."""
    before = worker.metric(HANDLED)
    took_s = await until(lambda: not_before(worker, before), worker, RESUMED_S)
    print(f"{fault}: at work again after {took_s:.1f} s")


def not_before(worker: WorkerProcess, before: float) -> bool:
    """Whether it is ready, and has finished more records than before."""
    return worker.get("/readyz")[0] == 200 and worker.metric(HANDLED) > before


async def finished(around: Around, worker: WorkerProcess) -> Verdict:
    """Let it do the rest and stop it; check what must hold after every fault, and return the verdict."""
    around.to_model.latency_s = 0.0
    await around.stage.wait_committed(RECORDS)
    code, _ = await asyncio.to_thread(worker.terminate)
    assert code == 0, worker.tail()
    found = await around.stage.verdict(samples=around.sampler.samples, settled=True)
    print(f"{found.repeats} of {found.inputs} records were done twice")
    assert found.inputs == RECORDS
    assert not found.broken(crashed=True)
    assert found.by_kind == {"enriched": RECORDS}, "nothing becomes a dead letter because of a broker"
    return found


@pytest.mark.fault("B1")
async def test_a_broker_that_is_away_is_waited_for(proxied_kafka: ProxiedKafka, tmp_path: Path) -> None:
    """B1: not ready and alive while it is away, nothing dead-lettered, at work again without a restart."""
    async with over(tmp_path, proxied_kafka) as around:
        worker = await busy(around.stage)
        away_since_s = time.monotonic()
        await asyncio.to_thread(proxied_kafka.kill)
        await until(lambda: "has answered" in worker.not_ready(), worker)
        await asyncio.sleep(AWAY_S - (time.monotonic() - away_since_s))
        assert worker.get("/livez")[0] == 200
        assert worker.get("/readyz")[0] == 503
        assert worker.metric(r"penstock_in_flight_records\b") <= IN_FLIGHT
        proxied_kafka.start()  # not in a thread: the broker would end with it
        await resumed(worker, "broker killed and away")
        found = await finished(around, worker)
        assert found.repeats <= IN_FLIGHT


@pytest.mark.fault("B3")
async def test_a_broker_that_froze_gets_nothing_twice_from_us(proxied_kafka: ProxiedKafka, tmp_path: Path) -> None:
    """B3: sends wait, beyond their timeout too; only the client repeats them, under their sequence numbers."""
    async with over(tmp_path, proxied_kafka) as around:
        worker = await busy(around.stage)
        proxied_kafka.pause()
        try:
            await until(lambda: "the oldest send" in worker.not_ready(), worker)
            assert worker.get("/livez")[0] == 200
        finally:
            proxied_kafka.cont()
        await resumed(worker, "broker frozen")
        assert worker.metric(r"penstock_sends_retried_total\b") == 0
        assert worker.metric(r"penstock_producer_replaced_total\b") == 0
        found = await finished(around, worker)
        assert found.repeats <= IN_FLIGHT


@pytest.mark.fault("B4")
async def test_a_broker_far_away_makes_it_slow_and_nothing_else(proxied_kafka: ProxiedKafka, tmp_path: Path) -> None:
    """B4: 100 ms in each direction and 3 Mbit/s: no rebalance, no error, nothing done twice."""
    async with over(tmp_path, proxied_kafka, session_s=LONG_SESSION_S) as around:
        proxied_kafka.proxy.latency_s, proxied_kafka.proxy.bytes_per_s = 0.1, THREE_MBIT_BYTES_PER_S
        try:
            worker = await busy(around.stage)
            around.to_model.latency_s, began_at = 0.0, worker.metric(HANDLED)
            took_s = await until(lambda: worker.metric(HANDLED) >= RECORDS, worker)
            print(f"100 ms and 3 Mbit/s: {(RECORDS - began_at) / took_s:.0f} records/s")
            assert worker.metric(r'penstock_commits_total\{result="(?!ok)') == 0
            found = await finished(around, worker)
        finally:
            proxied_kafka.proxy.latency_s, proxied_kafka.proxy.bytes_per_s = 0.0, None
        assert logged(worker, '"partitions_assigned"') == 1
        assert not [line for line in worker.log.read_text().splitlines() if '"level":"error"' in line]
        assert not found.broken()


@pytest.mark.fault("B5")
async def test_a_worker_that_is_cut_off_comes_back_to_its_group(proxied_kafka: ProxiedKafka, tmp_path: Path) -> None:
    """B5: the group goes on without it; what it held then is the next generation's, and is neither lost nor acked."""
    async with over(tmp_path, proxied_kafka) as around:
        worker = await busy(around.stage)
        proxied_kafka.proxy.cut()
        try:
            await members_are(around.stage, 0)
            await around.stage.assert_commits_tell_the_truth()
            assert worker.get("/livez")[0] == 200
        finally:
            proxied_kafka.proxy.heal()
        await resumed(worker, "link cut past the session")
        found = await finished(around, worker)
        assert logged(worker, '"partitions_revoked"') >= 1
        assert logged(worker, '"partitions_assigned"') >= 2
        assert found.repeats <= 2 * IN_FLIGHT


async def members_are(stage: Stage, count: int) -> None:
    """Wait until the group has so many members."""
    async with asyncio.timeout(PATIENCE_S):
        while await members(stage.broker.bootstrap_servers, stage.group) != count:  # noqa: ASYNC110 - no event for it
            await asyncio.sleep(0.2)
