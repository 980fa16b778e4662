"""One worker's process: started on its core, watched, killed and started again, ended."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.matrix.proc import cpu_s, memory_mib, tree

STOP_S = 20.0
LOOKS_PER_TREE = 20
"""Finding the descendants reads all of /proc: not for every look at the memory."""
WORKER_CORE, OTHER_CORE = 0, 1
"""Broker, stub and harness share the other one; a machine with one core has all on it."""


def others_core(processes: int) -> int:
    """Return the core of broker, stub and harness: the first that no worker has; with too few cores, `OTHER_CORE`."""
    return processes if (os.cpu_count() or 1) > processes else OTHER_CORE


def copies(command: list[str | Path], processes: int) -> list[str | Path]:
    """Return the command for so many copies of a worker."""
    return command if processes == 1 else [sys.executable, "-m", "tests.bench.matrix.several", str(processes), *command]


@dataclass(slots=True)
class Running:
    """A worker with all its descendants, which share a session."""

    command: list[str | Path]
    env: Mapping[str, str]
    log: Path
    processes: int = 1
    """Copies of it in one group, each with a core of its own as far as there are as many."""
    process: subprocess.Popen[bytes] | None = None
    peak_mib: float = 0.0
    _pids: list[int] = field(default_factory=list)
    _looks: int = 0

    def start(self) -> None:
        """Start it, alone on its core; it dies with us."""
        last = min(WORKER_CORE + self.processes, os.cpu_count() or 1) - 1
        pinned = ["taskset", "-c", f"{WORKER_CORE}-{last}"] if (os.cpu_count() or 1) > 1 else []
        guard = ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []
        self._looks = 0
        with self.log.open("ab") as sink:
            self.process = subprocess.Popen(
                [*guard, *pinned, *copies(self.command, self.processes)],
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=os.environ | self.env,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The first process."""
        assert self.process is not None
        return self.process.pid

    def alive(self) -> bool:
        """Whether it runs."""
        return self.process is not None and self.process.poll() is None

    def cpu_s(self) -> float:
        """CPU seconds of the whole tree."""
        return cpu_s(tree(self.pid))

    def memory_mib(self) -> float:
        """Resident memory of the whole tree, now; remembers the most."""
        if not self.alive():
            return 0.0
        if self._looks % LOOKS_PER_TREE == 0:
            self._pids = tree(self.pid)
        self._looks += 1
        now_mib = memory_mib(self._pids)
        self.peak_mib = max(self.peak_mib, now_mib)
        return now_mib

    def kill(self) -> None:
        """Kill -9, all of it."""
        self._end(signal.SIGKILL)

    def stop(self) -> int | None:
        """SIGTERM; return the exit code, None when only a kill ended it."""
        if self.process is None or not self.alive():
            return self.process.returncode if self.process else None
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            return None
        finally:
            self._end(signal.SIGKILL)

    def tail(self, lines: int = 8) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _end(self, number: signal.Signals) -> None:
        assert self.process is not None
        try:
            os.killpg(self.process.pid, number)  # its own session: nobody else is in this group
        except ProcessLookupError:
            return
        finally:
            self.process.wait(10)
