"""A worker whose wall clock can be stepped while it runs: `python -m tests.support.stepping_clock FILE run CONFIG`.

Eight bytes in FILE (a double) are the seconds that the wall clock is off; the monotonic clock is the machine's own.
What an operator or a time server does to a whole host is so done to one process: `time.time` is replaced before
anything of the worker is imported.
"""

import mmap
import struct
import sys
import time
from pathlib import Path

_STEP = struct.Struct("d")


def step_clock(file: Path, offset_s: float) -> None:
    """Set how far the wall clock of a worker is off; the file is made when it is not there."""
    file.touch()
    with file.open("r+b") as written:
        written.write(_STEP.pack(offset_s))


def _install(file: Path) -> None:
    with file.open("r+b") as mapped:
        step = mmap.mmap(mapped.fileno(), _STEP.size)
    real_s, real_ns = time.time, time.time_ns

    def offset_s() -> float:
        return float(_STEP.unpack_from(step)[0])

    time.time = lambda: real_s() + offset_s()
    time.time_ns = lambda: real_ns() + int(offset_s() * 1e9)


if __name__ == "__main__":
    _install(Path(sys.argv.pop(1)))
    from workers.cli import main

    main()
