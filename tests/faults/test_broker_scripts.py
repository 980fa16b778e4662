"""What the group's coordinator may answer on a bad day, scripted on the embedded broker, under a worker at work."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest

from tests.support.deployment import WorkerProcess, wait_for
from tests.support.stand import TASK, Simulate, Stand, tickets
from workers.errors import EX_CONFIG

OFFSET_COMMIT, FIND_COORDINATOR, HEARTBEAT = 8, 10, 12
COORDINATOR_LOADS, NO_COORDINATOR, NOT_COORDINATOR = 14, 15, 16
ILLEGAL_GENERATION, UNKNOWN_MEMBER, REBALANCE = 22, 25, 27
GROUP_NOT_ALLOWED = 30

RECORDS, MORE, IN_FLIGHT = 120, 60, 32
SESSION_S = 3.0
"""The embedded broker keeps a member that lost its place waiting for a session, less a second."""
WAIT_S = 30.0


def commits(worker: WorkerProcess, result: str) -> float:
    """Commit requests that ended so."""
    return worker.metric(rf'penstock_commits_total\{{result="{result}"')


@asynccontextmanager
async def busy(stand: Stand, simulate: Simulate) -> AsyncIterator[tuple[str, WorkerProcess]]:
    """Run a worker that has more to do than fits in a few seconds; its input topic comes with it."""
    topic = await stand.create(partitions=2)
    await stand.put(topic, tickets(RECORDS, keys=50))
    settings = {"model": {"max_in_flight": 4}, "kafka": {"session_timeout_s": SESSION_S}}
    tasks = {TASK: {"input": topic, "max_in_flight": IN_FLIGHT}}
    with stand.worker(tasks, simulate(latency="const:0.05").url, **settings) as worker:
        await asyncio.to_thread(wait_for, lambda: commits(worker, "ok") > 0, WAIT_S, worker.tail)
        yield topic, worker


async def finished(stand: Stand, topic: str, worker: WorkerProcess, records: int, *, evictions: int = 0) -> None:
    """Let it do the rest: every record once, each commit in place, and the process the same to the end.

    After each eviction it may do again what it had not committed.
    """
    await asyncio.to_thread(worker.wait_finished, records)
    assert worker.terminate()[0] == 0
    found = await stand.verdict(topic, settled=True)
    assert not found.broken(crashed=evictions > 0)
    assert found.repeats <= evictions * IN_FLIGHT
    assert found.by_kind == {"enriched": records}


@pytest.mark.fault("B6")
async def test_a_coordinator_that_moves_or_loads_is_asked_again(quick: Stand, simulate: Simulate) -> None:
    """B6: the commit lands in the end, is refused to nobody, and costs no generation."""
    async with busy(quick, simulate) as (topic, worker):
        quick.broker.push_errors(OFFSET_COMMIT, [NOT_COORDINATOR, NOT_COORDINATOR, COORDINATOR_LOADS, NO_COORDINATOR])
        quick.broker.push_errors(FIND_COORDINATOR, [NO_COORDINATOR, COORDINATOR_LOADS])
        quick.broker.push_errors(HEARTBEAT, [NOT_COORDINATOR])
        before = commits(worker, "ok")
        began_s = time.monotonic()
        await asyncio.to_thread(wait_for, lambda: commits(worker, "ok") > before + 1, WAIT_S, worker.tail)
        print(f"coordinator moved: committed again after {time.monotonic() - began_s:.1f} s")
        assert commits(worker, "refused") == 0
        await finished(quick, topic, worker, RECORDS)
        assert worker.log.read_text().count('"partitions_assigned"') == 1


@pytest.mark.fault("B7")
async def test_a_refused_commit_is_counted_and_not_fatal(quick: Stand, simulate: Simulate) -> None:
    """B7: what was not committed is, by the next request or by the next generation; nothing is lost."""
    async with busy(quick, simulate) as (topic, worker):
        for number, code in enumerate([REBALANCE, ILLEGAL_GENERATION, UNKNOWN_MEMBER], 1):
            refused = commits(worker, "refused")
            quick.broker.push_errors(OFFSET_COMMIT, [code])
            await quick.put(topic, tickets(MORE, keys=50, start=RECORDS + number * MORE))
            await asyncio.to_thread(wait_for, partial(more, worker, "refused", refused), WAIT_S, worker.tail)
            began_s, ok = time.monotonic(), commits(worker, "ok")
            await asyncio.to_thread(wait_for, partial(more, worker, "ok", ok), WAIT_S, worker.tail)
            print(f"commit refused with {code}: committed again after {time.monotonic() - began_s:.1f} s")
        await finished(quick, topic, worker, RECORDS + 3 * MORE, evictions=3)


def more(worker: WorkerProcess, result: str, before: float) -> bool:
    """Whether more commits than before ended so."""
    return commits(worker, result) > before


@pytest.mark.fault("B8")
async def test_a_group_that_may_not_be_written_ends_the_worker(quick: Stand, simulate: Simulate) -> None:
    """B8: a person has to grant the right: what is busy is finished, the reason said once, and the code is 78."""
    async with busy(quick, simulate) as (topic, worker):
        quick.broker.push_errors(OFFSET_COMMIT, [GROUP_NOT_ALLOWED] * 100)
        assert worker.exit_code() == EX_CONFIG
        log = worker.log.read_text()
    assert log.count('"event":"stopping"') == 1
    assert "READ on the group" in log
    assert '"event":"drained"' in log
    stored = await quick.committed(topic)
    done = {int(number): offset for number, offset in stored.items()}
    assert sum(done.values()) < RECORDS, "it must not have committed what it was not allowed to"


@pytest.mark.fault("B8")
async def test_a_right_that_is_missing_for_heartbeats_ends_the_worker(quick: Stand, simulate: Simulate) -> None:
    """B8: an idle worker commits nothing: it is the heartbeat that tells it."""
    topic = await quick.create(partitions=2)
    with quick.worker({TASK: {"input": topic}}, simulate(latency="const:0.02").url) as worker:
        await asyncio.to_thread(worker.wait_ready)
        quick.broker.push_errors(HEARTBEAT, [GROUP_NOT_ALLOWED] * 100)
        assert worker.exit_code() == EX_CONFIG
        assert "grant READ on input topics and group" in worker.tail()
