"""What the group's coordinator may answer on a bad day, scripted on the embedded broker, under a worker at work.

Answers are used up one by one. Records that come after a script was written are committed only after it has been met.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.support.deployment import WorkerProcess, wait_for
from tests.support.stand import TASK, Simulate, Stand, tickets
from workers.errors import EX_CONFIG

OFFSET_COMMIT, FIND_COORDINATOR, HEARTBEAT = 8, 10, 12
COORDINATOR_LOADS, NO_COORDINATOR, NOT_COORDINATOR = 14, 15, 16
ILLEGAL_GENERATION, UNKNOWN_MEMBER, REBALANCE = 22, 25, 27
GROUP_NOT_ALLOWED = 30

RECORDS, MORE, IN_FLIGHT = 120, 60, 32
SESSION_S, LONG_SESSION_S = 3.0, 30.0
"""The embedded broker keeps a member that lost its place waiting for a session, less a second.

The long one is for who must not lose it, whatever else the machine has to do.
"""
WAIT_S = 90.0


def commits(worker: WorkerProcess, result: str) -> float:
    """Commit requests that ended so."""
    return worker.metric(rf'penstock_commits_total\{{result="{result}"')


@asynccontextmanager
async def at_work(
    stand: Stand, simulate: Simulate, *, session_s: float = SESSION_S
) -> AsyncIterator[tuple[str, WorkerProcess]]:
    """Run a worker that has committed something; its input topic comes with it."""
    topic = await stand.create(partitions=2)
    await stand.put(topic, tickets(RECORDS, keys=50))
    settings = {"model": {"max_in_flight": 4}, "kafka": {"session_timeout_s": session_s}}
    tasks = {TASK: {"input": topic, "max_in_flight": IN_FLIGHT}}
    with stand.worker(tasks, simulate(latency="const:0.05").url, **settings) as worker:
        await asyncio.to_thread(wait_for, lambda: commits(worker, "ok") > 0, WAIT_S, worker.tail)
        yield topic, worker


async def finished(stand: Stand, topic: str, worker: WorkerProcess, records: int, *, evictions: int = 0) -> None:
    """Let it do the rest: every record once, each commit in place, and the process the same to the end.

    After each eviction it may do again what it had not committed.
    """
    await asyncio.to_thread(worker.wait_finished, records)
    await stand.wait_committed(topic)
    assert worker.terminate()[0] == 0
    found = await stand.verdict(topic, settled=True)
    assert not found.broken(crashed=evictions > 0)
    assert found.repeats <= evictions * IN_FLIGHT
    assert found.by_kind == {"enriched": records}


@pytest.mark.fault("B6")
async def test_a_coordinator_that_moves_or_loads_is_asked_again(quick: Stand, simulate: Simulate) -> None:
    """B6: the commit lands in the end, is refused to nobody, and costs no generation."""
    async with at_work(quick, simulate, session_s=LONG_SESSION_S) as (topic, worker):
        quick.broker.push_errors(OFFSET_COMMIT, [NOT_COORDINATOR, NOT_COORDINATOR, COORDINATOR_LOADS, NO_COORDINATOR])
        quick.broker.push_errors(FIND_COORDINATOR, [NO_COORDINATOR, COORDINATOR_LOADS])
        quick.broker.push_errors(HEARTBEAT, [NOT_COORDINATOR])
        began_s = time.monotonic()
        await quick.put(topic, tickets(MORE, keys=50, start=RECORDS))
        await finished(quick, topic, worker, RECORDS + MORE)
        print(f"coordinator moved: all done and committed after {time.monotonic() - began_s:.1f} s")
        said = worker.log.read_text()
        assert "commit_refused" not in said
        assert said.count('"partitions_assigned"') == 1


@pytest.mark.fault("B7")
async def test_a_refused_commit_is_counted_and_not_fatal(quick: Stand, simulate: Simulate) -> None:
    """B7: what was not committed is, by the next request or by the next generation; nothing is lost."""
    async with at_work(quick, simulate) as (topic, worker):
        codes = [REBALANCE, ILLEGAL_GENERATION, UNKNOWN_MEMBER]
        for number, code in enumerate(codes):
            quick.broker.push_errors(OFFSET_COMMIT, [code])
            began_s = time.monotonic()
            await quick.put(topic, tickets(MORE, keys=50, start=RECORDS + number * MORE))
            await quick.wait_committed(topic)
            print(f"commit refused with {code}: all committed after {time.monotonic() - began_s:.1f} s")
        await asyncio.to_thread(wait_for, lambda: commits(worker, "refused") >= len(codes), WAIT_S, worker.tail)
        await finished(quick, topic, worker, RECORDS + len(codes) * MORE, evictions=len(codes))


@pytest.mark.fault("B8")
async def test_a_group_that_may_not_be_written_ends_the_worker(quick: Stand, simulate: Simulate) -> None:
    """B8: a person has to grant the right: what is busy is finished, the reason said once, and the code is 78."""
    async with at_work(quick, simulate) as (topic, worker):
        quick.broker.push_errors(OFFSET_COMMIT, [GROUP_NOT_ALLOWED] * 100)
        await quick.put(topic, tickets(MORE, keys=50, start=RECORDS))
        assert await asyncio.to_thread(worker.exit_code) == EX_CONFIG
        log = worker.log.read_text()
    assert log.count('"event":"stopping"') == 1
    assert "READ on the group" in log
    assert '"event":"drained"' in log
    stored = await quick.committed(topic)
    done = {int(number): offset for number, offset in stored.items()}
    assert sum(done.values()) < RECORDS + MORE, "it must not have committed what it was not allowed to"


@pytest.mark.fault("B8")
async def test_a_right_that_is_missing_for_heartbeats_ends_the_worker(quick: Stand, simulate: Simulate) -> None:
    """B8: an idle worker commits nothing: it is the heartbeat that tells it."""
    topic = await quick.create(partitions=2)
    with quick.worker({TASK: {"input": topic}}, simulate(latency="const:0.02").url) as worker:
        await asyncio.to_thread(worker.wait_ready)
        quick.broker.push_errors(HEARTBEAT, [GROUP_NOT_ALLOWED] * 100)
        assert worker.exit_code() == EX_CONFIG
        assert "grant READ on input topics and group" in worker.tail()
