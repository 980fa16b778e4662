"""The bench's copies of a worker: one process tree that starts, ends and fails as one worker would."""

import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.bench.matrix.running import copies

SLEEPS = "import pathlib, sys, time, os; pathlib.Path(sys.argv[1], str(os.getpid())).touch(); time.sleep(60)"


def started(command: list[str | Path]) -> subprocess.Popen[bytes]:
    """Start two copies."""
    return subprocess.Popen(copies(command, 2))


def until(count: int, folder: Path) -> None:
    """Wait until so many copies run."""
    ends_at_s = time.monotonic() + 30
    while len(list(folder.iterdir())) < count:
        assert time.monotonic() < ends_at_s
        time.sleep(0.02)


def test_one_worker_is_started_as_it_is() -> None:
    """Nothing stands between the bench and the worker that it has always measured."""
    assert copies(["worker", "run"], 1) == ["worker", "run"]


def test_all_copies_end_with_a_sigterm(tmp_path: Path) -> None:
    """Each of them gets it; the code is theirs."""
    with started([sys.executable, "-c", SLEEPS, tmp_path]) as process:
        until(2, tmp_path)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == -signal.SIGTERM % 256
    assert not [each for each in tmp_path.iterdir() if Path("/proc", each.name).exists()]


def test_the_end_of_one_is_the_end_of_all(tmp_path: Path) -> None:
    """Half of a group is not measured as the whole, and its code is told."""
    dies = SLEEPS.replace("time.sleep", "len(os.listdir(sys.argv[1])) == 2 and sys.exit(3); time.sleep")
    with started([sys.executable, "-c", dies, tmp_path]) as process:
        assert process.wait(30) == 3
    assert not [each for each in tmp_path.iterdir() if Path("/proc", each.name).exists()]
