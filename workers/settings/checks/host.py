"""What the machine gives this process: the limits that a configuration has to fit into."""

import contextlib
import os
import resource
from dataclasses import dataclass
from pathlib import Path

_UNLIMITED_FILES = 1 << 20
"""What systems take for unlimited, and more than a worker could use."""
_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """`memory_bytes`: the container's limit, else all of it. `open_files`: RLIMIT_NOFILE, the hard one."""

    memory_bytes: int
    open_files: int


def this_host() -> Host:
    """Return the limits of this process."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in _CGROUP_LIMITS:
        memory_bytes = min(memory_bytes, _limit(file) or memory_bytes)
    return Host(memory_bytes=memory_bytes, open_files=_open_files())


def raise_open_files() -> int:
    """Let this process open as many files as its hard limit allows; return that number."""
    most = _open_files()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Where no limit is set, the kernel's own may be lower: left as it is.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most


def _open_files() -> int:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return hard if hard >= 0 else _UNLIMITED_FILES


def _limit(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # not in such a cgroup, or the word `max`
        return None
