"""`penstock release CONFIG...`: from now on these prompts and answer schemas are succeeded, not edited."""

import contextlib
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from workers.cli.configuration import read_or_exit
from workers.settings.problems import shown
from workers.settings.prompt_lock import digest_of, lock_text, lockables, read_lock
from workers.settings.source import Loaded


def release(
    configs: Annotated[
        list[Path], typer.Argument(metavar="CONFIG", help="The deployments' YAML files.", show_default=False)
    ],
) -> None:
    """Note the hashes of a configuration's prompts and answer schemas in the lock files beside them.

    From then on an edit to one of them is an error of `penstock lint`, and no worker starts on it: outputs say which
    prompt they come from, and that must stay true. A change is the next version (triage.user.v2.j2). Only adds lines
    to `prompts.lock` and `schemas.lock`; a file that was edited since its release is refused with exit code 78.

    Example: penstock release config/pipelines/tickets.yaml
    """
    loaded = [read_or_exit(config) for config in configs]  # all are read before anything is written
    added = [f"{os.path.relpath(file)} released" for one in loaded for file in released(one)]
    print(*added or ["nothing new to release"], sep="\n")


def released(loaded: Loaded) -> list[Path]:
    """Add what is not released yet to its lock, and return it. The configuration has no errors."""
    new = []
    for one in (one for task in loaded.settings.tasks.values() for one in lockables(task)):
        locked = read_lock(one.lock) or {}
        if one.file.name not in locked:
            _write(one.lock, lock_text(locked | {one.file.name: digest_of(one.file)}))
            new.append(one.file)
    return new


def _write(lock: Path, text: str) -> None:
    """Put the new lock in the place of the old one in one step: half a lock would be a broken one."""
    beside = lock.with_name(f".{lock.name}.{os.getpid()}")
    try:
        beside.write_text(text, "utf-8")
        beside.replace(lock)
    except OSError as exc:
        with contextlib.suppress(OSError):
            beside.unlink()
        print(f"{shown(lock)} cannot be written: {exc.strerror}", file=sys.stderr)
        raise typer.Exit(1) from exc
