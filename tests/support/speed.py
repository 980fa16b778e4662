"""What of a delay is the machine's doing: a slow processor, or one that others had. Bounds are about the rest."""

import contextlib
import os
import time
from pathlib import Path

REFERENCE_S = 0.0115
"""What `_work` takes on the machine on which the bounds were found."""
TRIES = 5


def slowness() -> float:
    """Return how many times longer plain Python takes here, in processor time; 1 at the least, best of five."""
    return max(1.0, min(_work() for _ in range(TRIES)) / REFERENCE_S)


def _work() -> float:
    began_s = time.thread_time()
    sum(number * number for number in range(200_000))
    return time.thread_time() - began_s


def starved_s(*pids: int) -> float:
    """Return for how long these processes' threads were ready to run and did not, since they began.

    With what a hypervisor took from the whole machine. 0 where the kernel does not tell (schedstat, proc(5)).
    """
    stolen_s = int(Path("/proc/stat").read_text().split(maxsplit=9)[8]) / os.sysconf("SC_CLK_TCK")
    waited_ns = 0
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):  # it has ended meanwhile
                waited_ns += int((thread / "schedstat").read_text().split()[1])
    return stolen_s + waited_ns / 1e9
