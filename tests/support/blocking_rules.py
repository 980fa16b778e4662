"""A Python rule that blocks the event loop: rules are the user's trusted code, and run inline."""

import time
from pathlib import Path
from typing import Any


def blocks_once(value: Any) -> None:
    """Decline every record; one that names a file (`block`) and how long (`for_s`) blocks whoever makes that file."""
    if "block" not in value:
        return
    try:
        Path(value["block"]).touch(exist_ok=False)
    except FileExistsError:
        return
    time.sleep(value["for_s"])
