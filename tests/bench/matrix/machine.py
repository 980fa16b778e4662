"""What the figures depend on: the machine, and the versions of what all workers share."""

import os
import platform
import re
import sys
import sysconfig
from pathlib import Path
from typing import Any

from tests.support.kafka import POM

SLOW_BUILD = "built without optimization"


def build(configured_with: str, prefix: str) -> str:
    """Return how this Python was built: with profiles (PGO) it needs a quarter less CPU, and so do all Python workers.

    Distributions build so and do not say it in `CONFIG_ARGS`; python.org's images say it; pyenv leaves it out.
    """
    if "--enable-optimizations" in configured_with:
        return "built with optimization"
    return "a distribution's build" if prefix == "/usr" else SLOW_BUILD


def machine() -> dict[str, Any]:
    """Return cores, processor, memory, system, Python, broker."""
    model = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    kafka = re.search(r"<kafka\.version>(.+?)</kafka\.version>", POM.read_text())
    python = build(sysconfig.get_config_var("CONFIG_ARGS") or "", sys.base_prefix)
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cores": os.cpu_count(),
        "processor": model[1] if model else platform.machine(),
        "memory_gib": round(pages / (1 << 30)),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": f"{platform.python_version()}, {python}",
        "kafka": kafka[1] if kafka else None,
    }
