"""Checkers of deployment files that are no Python packages: found, or missed loudly."""

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
INSTALL = "tests/support/install_deploy_tools.sh"


def tool(name: str) -> Path:
    """Return the program `name` from .cache/tools or the PATH; without it skip, and fail in CI."""
    cached = ROOT / ".cache" / "tools" / name
    found = str(cached) if cached.exists() else shutil.which(name)
    if found is None:
        reason = f"NOT CHECKED: {name} is missing; run {INSTALL}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return Path(found)
