"""Which prompts and answer schemas are released: lock files of hashes beside them. Pure but for reading the files."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from workers.settings.model import TaskSettings

Kind = Literal["prompt", "answer schema"]

LOCKS: Mapping[Kind, str] = {"prompt": "prompts.lock", "answer schema": "schemas.lock"}
"""By kind, the lock's name in the folder of the file. `sha256sum --check prompts.lock` reads it as well."""

_LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")
_VERSION = re.compile(r"(.*\.v)(\d{1,9})(\..*)?")


@dataclass(frozen=True, slots=True)
class Lockable:
    """A file that a task asks its model with."""

    kind: Kind
    file: Path

    @property
    def lock(self) -> Path:
        """Where its lock would be."""
        return self.file.parent / LOCKS[self.kind]


class LockInvalid(ValueError):
    """A lock file cannot be used. `problems`: line (from 1) and what is wrong with it."""

    def __init__(self, path: Path, problems: list[tuple[int, str]]) -> None:
        super().__init__("\n".join(f"{path}({line},1) {what}" for line, what in problems))
        self.path = path
        self.problems = problems


def lockables(task: TaskSettings) -> Iterator[Lockable]:
    """Yield the files of a task that can be released: prompts, and the schema, which the server is asked with."""
    yield Lockable("prompt", task.prompt.system)
    yield Lockable("prompt", task.prompt.user)
    if task.answer.schema_file:
        yield Lockable("answer schema", task.answer.schema_file)


def read_lock(path: Path) -> dict[str, str] | None:
    """Return the sha256 of each released file by its name, None when there is no lock.

    Raises:
        LockInvalid: it cannot be read, a line is none of ours (an unfinished merge), or a name stands there twice.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise LockInvalid(path, [(1, f"cannot be read: {exc.strerror}")]) from exc
    except UnicodeDecodeError as exc:
        raise LockInvalid(path, [(1, "is not UTF-8")]) from exc
    locked: dict[str, str] = {}
    problems: list[tuple[int, str]] = []
    for number, line in enumerate(lines, 1):
        found = _LINE.fullmatch(line)
        if found is None:
            problems.append((number, "must be a sha256 (64 hex digits), two spaces and a file's name"))
        elif found[2] in locked:
            problems.append((number, f"`{found[2]}` was released before: a version is released once"))
        else:
            locked[found[2]] = found[1]
    if problems:
        raise LockInvalid(path, problems)
    return locked


def lock_text(locked: Mapping[str, str]) -> str:
    """Return the content of a lock file: one line for each file, sorted by name."""
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(locked.items()))


def digest_of(file: Path) -> str:
    """Return the sha256 of a file's bytes, as hex digits."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def next_version(file: Path) -> str:
    """Return a name for the version after this one: the next number that is free; `x.j2` is succeeded by `x.v2.j2`."""
    found = _VERSION.fullmatch(file.name)
    before, number, after = (found[1], int(found[2]), found[3] or "") if found else (f"{file.stem}.v", 1, file.suffix)
    while True:
        number += 1
        name = f"{before}{number}{after}"
        if not (file.parent / name).exists():
            return name
