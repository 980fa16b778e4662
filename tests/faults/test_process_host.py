"""What the host refuses: a place to write, a reader for the log, open files, and a configuration that makes sense."""

import contextlib
import fcntl
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.deployment import PENSTOCK, WorkerProcess, wait_for
from tests.support.listening import listening_sockets
from tests.support.stand import TASK, Simulate, Stand, tickets

NO_FILES = 'exec > >(exec cat) 2>&1; ulimit -f 0; cd /proc; export HOME=/proc TMPDIR=/proc; exec "$0" "$@"'
"""The log goes through a pipe: not one byte can be written to a file, and no file can be made where one looks first."""

FEW_FILES = 'ulimit -n 64; exec "$0" "$@"'
DRAIN_S, MARGIN_S = 2.0, 10.0
CALL_S = 0.5
"""Time for 32 calls to begin, also on a slow machine, before the first one ends."""


@pytest.mark.fault("P7")
async def test_no_disk_is_needed(quick: Stand, simulate: Simulate) -> None:
    """A worker that can write to no file starts, works, commits and stops, and holds no file open for writing."""
    topic, model = await quick.create(), simulate(latency="const:0.02")
    await quick.put(topic, tickets(200))
    worker = quick.worker({TASK: {"input": topic}}, model.url)
    worker.program = ("bash", "-c", NO_FILES, PENSTOCK)
    with worker:
        worker.wait_finished(200)
        assert written_files(worker.running.pid) == []
        assert worker.terminate()[0] == 0
    verdict = await quick.verdict(topic, settled=True)
    assert not (broken := verdict.broken()), broken
    assert verdict.by_kind == {"enriched": 200}


def written_files(pid: int) -> list[str]:
    """Return the files that a process has open for writing."""
    held = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed between two looks: a connection that came and went
            flags = int(Path(f"/proc/{pid}/fdinfo/{descriptor.name}").read_text().split("flags:")[1].split()[0], 8)
            if descriptor.is_file() and flags & (os.O_WRONLY | os.O_RDWR):
                held.append(str(descriptor.readlink()))
    return held


@pytest.mark.fault("P8")
async def test_a_log_that_nobody_reads_holds_up_nothing(quick: Stand, simulate: Simulate) -> None:
    """The pipe is full and stays so: records flow, probes answer, and SIGTERM ends the worker in its time."""
    topic, model = await quick.create(), simulate(latency="const:0.02")
    await quick.put(topic, tickets(100))
    worker = quick.worker({TASK: {"input": topic}}, model.url, worker={"log": {"level": "debug"}, "drain_s": DRAIN_S})
    with full_pipe() as sink, worker_with(worker, sink):
        wait_for(lambda: listening_sockets(worker.running.pid), 60)
        [(_, port)] = listening_sockets(worker.running.pid)
        worker.log.write_text(f'{{"event":"started","http_port":{port}}}')  # a log without a reader does not say it
        worker.wait_finished(100)
        await quick.put(topic, tickets(100, start=100))
        worker.wait_finished(200)
        worker.wait_ready()
        code, took_s = worker.terminate(60)
        assert code == 0
        assert took_s < DRAIN_S + MARGIN_S
    verdict = await quick.verdict(topic, settled=True)
    assert not (broken := verdict.broken()), broken


@contextmanager
def full_pipe() -> Iterator[int]:
    """The writing end of a pipe that takes not a byte more."""
    reader, sink = os.pipe()
    try:
        fcntl.fcntl(sink, fcntl.F_SETPIPE_SZ, 4_096)
        os.write(sink, b"-" * 4_096)
        yield sink
    finally:
        os.close(reader)
        os.close(sink)


@contextmanager
def worker_with(worker: WorkerProcess, stdout: int) -> Iterator[None]:
    """Run the worker with this descriptor as its stdout and stderr."""
    worker.process = subprocess.Popen([*worker.program, "run", worker.config], stdout=stdout, stderr=stdout)
    try:
        yield
    finally:
        if worker.process.poll() is None:
            worker.process.kill()
            worker.process.wait(10)


@pytest.mark.fault("P9")
async def test_slots_are_cut_to_the_open_files(quick: Stand, simulate: Simulate) -> None:
    """64 open files and 200 slots: fewer calls at once, and none of them blames the endpoint; said at start."""
    topic, model = await quick.create(), simulate(latency=f"const:{CALL_S}", capacity=2_000)
    await quick.put(topic, tickets(300))
    worker = quick.worker({TASK: {"input": topic, "max_in_flight": 800}}, model.url, model={"max_in_flight": 200})
    worker.program = ("sh", "-c", FEW_FILES, PENSTOCK)
    with worker:
        worker.wait_finished(300)
        worker.wait_ready()  # probes need files as well
        assert worker.metric("process_max_fds") == 64
        assert worker.metric("penstock_breaker_opened_total{") == 0
        assert '"event":"slots_cut","slots":32,"configured":200,"open_files":64' in worker.log.read_text()
        assert worker.terminate()[0] == 0
    assert model.counts()["max_in_flight"] == 32
    verdict = await quick.verdict(topic, settled=True)
    assert not (broken := verdict.broken()), broken
    assert verdict.by_kind == {"enriched": 300}


@pytest.mark.fault("P10")
async def test_a_configuration_that_became_bad_touches_no_running_worker(quick: Stand, simulate: Simulate) -> None:
    """It is read once: the running one goes on; who starts with it ends with 78 and the list, joining no group."""
    topic, model = await quick.create(), simulate(latency="const:0.02")
    patient = {"session_timeout_s": 60}  # a busy machine is no reason to leave the group
    with quick.worker({TASK: {"input": topic}}, model.url, kafka=patient) as worker:
        worker.wait_ready()
        text = worker.config.read_text()
        worker.config.write_text(text.replace("deadline_s:", "deadline:").replace("drain_s:", "dra:"))
        with WorkerProcess(worker.config, quick.folder / "started.log") as started:
            assert started.exit_code() == 78
        said = started.log.read_text()
        assert "`deadline`" in said
        assert "`dra`" in said
        await quick.put(topic, tickets(50))
        wait_for(lambda: worker.metric(r"penstock_records_total\b") == 50, 60, worker.tail)
        assert '"event":"partitions_revoked"' not in worker.log.read_text()
        assert worker.terminate()[0] == 0
