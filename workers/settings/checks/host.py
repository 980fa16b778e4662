"""What the machine gives this process: the limits that a configuration has to fit into."""

import os
import resource
from dataclasses import dataclass
from pathlib import Path

_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """`memory_bytes`: the container's limit, else all of it. `open_files`: RLIMIT_NOFILE, the soft one."""

    memory_bytes: int
    open_files: int


def this_host() -> Host:
    """Return the limits of this process."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in _CGROUP_LIMITS:
        memory_bytes = min(memory_bytes, _limit(file) or memory_bytes)
    open_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Host(memory_bytes=memory_bytes, open_files=open_files if open_files >= 0 else 1 << 30)


def _limit(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # not in such a cgroup, or the word `max`
        return None
