"""What Linux says about a worker: CPU and memory of a process with all its descendants, and of the machine."""

import os
from pathlib import Path

PROC = Path("/proc")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def tree(root: int) -> list[int]:
    """Return a process and its descendants, those that live now."""
    parents: dict[int, int] = {}
    for folder in PROC.iterdir():
        if folder.name.isdigit() and (fields := _stat(int(folder.name))):
            parents[int(folder.name)] = int(fields[1])
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def cpu_s(pids: list[int]) -> float:
    """Return the CPU seconds of processes, user and system, and of their children that have ended."""
    fields = [stat for pid in pids if (stat := _stat(pid))]
    return sum(int(each[field]) for each in fields for field in (11, 12, 13, 14)) / TICKS_PER_S


def memory_mib(pids: list[int], line: str = "VmRSS") -> float:
    """Return the resident memory of processes together; `VmHWM`: each one's peak."""
    kib = 0
    for pid in pids:
        try:
            status = (PROC / str(pid) / "status").read_text()
        except OSError:
            continue
        if f"{line}:" in status:
            kib += int(status.split(f"{line}:")[1].split()[0])
    return round(kib / 1024, 1)


def machine_busy_s() -> float:
    """Return the CPU seconds that all cores have been busy since the machine started."""
    first = (PROC / "stat").read_text().splitlines()[0].split()[1:]
    user, nice, system, _, _, irq, softirq, steal = map(int, first[:8])
    return (user + nice + system + irq + softirq + steal) / TICKS_PER_S


def _stat(pid: int) -> list[str]:
    """Return the fields after the name, state first; none when the process has gone."""
    try:
        return (PROC / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return []
