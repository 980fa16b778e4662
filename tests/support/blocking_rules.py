"""A Python rule that blocks the event loop: rules are the user's trusted code, and run inline."""

import os
import time
from pathlib import Path
from typing import Any


def blocks_once(value: Any) -> None:
    """Decline every record; one with `block` blocks whoever makes that file first, and writes its process id there.

    The block ends when there is a file `until`, after `for_s` at the latest.
    """
    if "block" not in value:
        return
    try:
        marker = os.open(value["block"], os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return
    os.write(marker, b"%d" % os.getpid())
    os.close(marker)
    ends_at_s = time.monotonic() + value["for_s"]
    while not os.access(value["until"], os.F_OK) and time.monotonic() < ends_at_s:
        time.sleep(0.05)


def blocker(marker: Path) -> int:
    """Return the process that is blocked, or was; 0 while there is none."""
    return int(marker.read_text() or 0) if marker.exists() else 0
