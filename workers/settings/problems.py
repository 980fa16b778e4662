"""What is wrong with a configuration, in words for the person who wrote it."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Severity = Literal["error", "warning"]
_SHOWN_MAX_CHARS = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One finding and its place. `line` and `column` count from 1; an error stops the worker, a warning does not."""

    file: Path
    line: int
    column: int
    what: str
    severity: Severity = "error"

    def __str__(self) -> str:
        mark = "warning: " if self.severity == "warning" else ""
        return f"{self.file}({self.line},{self.column}) {mark}{self.what}"


class SettingsInvalid(Exception):
    """The configuration cannot be used. Trying again does not help; the process ends with 78."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = sorted_problems(problems)
        super().__init__("\n".join(map(str, self.problems)))


def sorted_problems(problems: Iterable[Problem]) -> list[Problem]:
    """Return each problem once, in reading order."""
    return sorted(set(problems), key=lambda problem: (str(problem.file), problem.line, problem.column, problem.what))


def shown(text: object) -> str:
    """Return `text` in backticks, on one line, printable on any terminal; cut to a readable length, but for a path."""
    line = str(text).encode("unicode_escape" if not str(text).isprintable() else "utf-8").decode()
    if len(line) > _SHOWN_MAX_CHARS and not isinstance(text, Path):  # the end of a path is what says which file
        line = line[:_SHOWN_MAX_CHARS] + "..."
    return f"`{line}`"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return what to add to `no such name`: the nearest known one, else all of them when they are few."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {shown(near[0])}?"
    return f"; known here: {', '.join(names)}" if names else ""
