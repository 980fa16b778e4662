"""A process that is short of memory: whatever it dies of, its records stay, and none of them is to blame."""

import contextlib
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commit_sampler import sampling
from tests.support.deployment import WorkerProcess, wait_for
from tests.support.memory import Rig, until
from tests.support.scripted_model import ScriptedModel
from tests.support.stand import TASK, Simulate, Stand, tickets
from tests.support.topics import New
from workers.records import Passage, Prompt, Reply

ROOM_BYTES = 24 << 20
STARVED_S = 3.0
LARGE, LARGE_BYTES = 120, 200_000


@pytest.mark.fault("P3")
async def test_memory_that_ends_blames_no_record(quick: Stand, simulate: Simulate) -> None:
    """Allocations fail here and there until the worker ends or is ended; the next one does all that is not done."""
    topic, model = await quick.create(partitions=16), simulate(latency="const:0.1")
    tasks = {TASK: {"input": topic, "max_in_flight": 512, "deadline_s": 60}}
    settings = {"model": {"max_in_flight": 64, "timeout_s": 30}, "kafka": {"session_timeout_s": 2}}
    async with sampling(quick.servers, quick.group, topic, TASK) as sampler:
        await quick.put(topic, tickets(20))
        with quick.worker(tasks, model.url, **settings) as worker:
            worker.wait_finished(20)
            limit_memory(worker)
            await quick.put(topic, [large(number) for number in range(LARGE)])
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.running.wait(STARVED_S)
            worker.kill()  # as the kernel would, where failing allocations did not
            await sampler.now("killed")
        with quick.worker(tasks, model.url, **settings) as worker:
            worker.wait_ready()
            wait_for(lambda: worker.lag() == 0, 60, worker.tail)
            assert worker.terminate()[0] == 0
    verdict = await quick.verdict(topic, samples=sampler.samples, settled=True)
    assert not (broken := verdict.broken(crashed=True)), broken
    assert verdict.by_kind == {"enriched": 20 + LARGE}, "healthy records, and nothing was wrong with the model"


def large(number: int) -> New:
    """A record that costs memory."""
    return New(key=b"large-%d" % number, value=b'{"text": "%s"}' % (b"x" * LARGE_BYTES))


def limit_memory(worker: WorkerProcess) -> None:
    """Let the process allocate a little more than it has, and nothing beyond."""
    pid = worker.running.pid
    size_pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    limit_bytes = size_pages * resource.getpagesize() + ROOM_BYTES
    resource.prlimit(pid, resource.RLIMIT_AS, (limit_bytes, limit_bytes))


class Starved(ScriptedModel):
    """A model whose answer finds no room here."""

    async def complete(self, prompt: Prompt, passage: Passage, *, wait_s: float) -> Reply:
        """Fail as an allocation does."""
        await super().complete(prompt, passage, wait_s=wait_s)
        raise MemoryError


@pytest.mark.fault("P3", "P11")
async def test_a_lack_of_memory_ends_the_worker_and_no_record() -> None:
    """It is caught at no record's boundary: nothing is written or acked, and the process is told to end."""
    async with Rig(model=Starved()) as rig:
        rig.write(0, [0])
        await rig.assign(0)
        await until(lambda: rig.failures)
        assert isinstance(rig.failures[0], MemoryError)
        assert rig.sink.sent == []
        assert rig.ledger(0).position == 0


@pytest.mark.fault("P3", "P11")
async def test_a_lack_of_memory_on_the_way_out_is_no_reason_for_a_dead_letter() -> None:
    """The outcome stands and could not be written for want of memory: nothing takes its place."""
    async with Rig() as rig:
        rig.sink.refusals.append(MemoryError())
        rig.write(0, [0])
        await rig.assign(0)
        await until(lambda: rig.failures)
        assert isinstance(rig.failures[0], MemoryError)
        assert rig.sink.sent == []


NO_ROOM = """
import resource
from workers.json_text import loads
text = b'[' + b'"xxxxxxxxxxxx",' * 150_000 + b'1]'
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (8 << 20),) * 2)
try:
    loads(text)
except MemoryError:
    print("no memory")
"""


@pytest.mark.fault("P3")
def test_json_that_cannot_be_read_for_want_of_memory_is_not_bad_json() -> None:
    """The parser says both with one error; a dead letter for the first would be a lie, and all would get it."""
    ran = subprocess.run([sys.executable, "-c", NO_ROOM], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout == "no memory\n"
