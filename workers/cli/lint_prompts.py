"""A released prompt or answer schema is succeeded, not edited: what its lock says of the files that tasks name."""

from collections.abc import Iterator
from pathlib import Path

from workers.settings.checks.files import unreadable
from workers.settings.problems import Problem
from workers.settings.prompt_lock import Lockable, LockInvalid, digest_of, lockables, next_version, read_lock
from workers.settings.source import Loaded


def check_released(loaded: Loaded) -> Iterator[Problem]:
    """Yield released files that were edited, files that are not released beside those that are, and broken locks.

    Where there is no lock, nobody releases prompts, and nothing is said. Missing files are told about elsewhere.
    """
    files = {one for task in loaded.settings.tasks.values() for one in lockables(task)}
    locks: dict[Path, dict[str, str] | None] = {}
    for path in {one.lock for one in files}:
        try:
            locks[path] = read_lock(path)
        except LockInvalid as exc:
            for line, what in exc.problems:
                yield loaded.problem_in(path, line, 1, what)
    for one in files:
        locked = locks.get(one.lock)
        if locked is not None and not unreadable(one.file):
            yield from _against(loaded, one, locked)


def _against(loaded: Loaded, one: Lockable, locked: dict[str, str]) -> Iterator[Problem]:
    digest = locked.get(one.file.name)
    if digest is None:
        what = f"not released: `{one.lock.name}` has no line for this {one.kind}; `penstock release` adds it"
        yield loaded.problem_in(one.file, 1, 1, what, severity="warning")
    elif digest != digest_of(one.file):
        successor = next_version(one.file)
        what = f"released {one.kind} was edited: restore it, and write the change as the next version, `{successor}`"
        yield loaded.problem_in(one.file, 1, 1, what)
