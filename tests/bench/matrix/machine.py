"""What the figures depend on: the machine, and the versions of what all workers share."""

import os
import platform
import re
from pathlib import Path
from typing import Any

from tests.support.kafka import POM


def machine() -> dict[str, Any]:
    """Return cores, processor, memory, system, broker."""
    model = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    kafka = re.search(r"<kafka\.version>(.+?)</kafka\.version>", POM.read_text())
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cores": os.cpu_count(),
        "processor": model[1] if model else platform.machine(),
        "memory_gib": round(pages / (1 << 30)),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "kafka": kafka[1] if kafka else None,
    }
