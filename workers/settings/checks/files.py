"""Files that a configuration names: there, and readable."""

import difflib
from collections.abc import Iterator
from pathlib import Path

from workers.settings import tree
from workers.settings.model import TaskSettings
from workers.settings.problems import Problem, shown
from workers.settings.rungs import RulesRung
from workers.settings.source import Loaded


def check(loaded: Loaded) -> Iterator[Problem]:
    """Yield every file that is not there or cannot be read."""
    for at, file in named_files(loaded):
        if what := unreadable(file):
            yield loaded.problem(at, what)


def named_files(loaded: Loaded) -> Iterator[tuple[tree.Path, Path]]:
    """Yield every file that the configuration names, with the value that names it."""
    security = loaded.settings.kafka.security
    for name in ("ca_file", "cert_file", "key_file", "oauth_token_file"):
        if file := getattr(security, name):
            yield ("kafka", "security", name), file
    for name, model in loaded.settings.models.items():
        if model.ca_file:
            yield ("models", name, "ca_file"), model.ca_file
        if model.tokenizer:
            yield ("models", name, "tokenizer"), model.tokenizer
    for name, task in loaded.settings.tasks.items():
        for way, file in _files_of(task):
            yield ("tasks", name, *way), file


def _files_of(task: TaskSettings) -> Iterator[tuple[tree.Path, Path]]:
    yield ("prompt", "system"), task.prompt.system
    yield ("prompt", "user"), task.prompt.user
    if task.answer.schema_file:
        yield ("answer", "schema"), task.answer.schema_file
    for place, rung in enumerate(task.ladder):
        if isinstance(rung, RulesRung) and isinstance(rung.rules, Path):
            yield ("ladder", place, "rules"), rung.rules


def _neighbour(file: Path) -> str:
    """Return the file of the same folder that was probably meant, as a question; '' when there is none."""
    try:
        names = [each.name for each in file.parent.iterdir()]
    except OSError:
        return f"; there is no folder {shown(file.parent)}"
    near = difflib.get_close_matches(file.name, names, n=1)
    return f"; did you mean {shown(near[0])}?" if near else ""


def unreadable(file: Path) -> str | None:
    """Return why a file cannot be read, None when it can."""
    try:
        with file.open("rb"):
            return None
    except FileNotFoundError:
        return f"no such file: {shown(file)}{_neighbour(file)}"
    except IsADirectoryError:
        return f"{shown(file)} is a directory"
    except (OSError, ValueError) as exc:
        return f"{shown(file)} cannot be read: {getattr(exc, 'strerror', None) or exc}"
