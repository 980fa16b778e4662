"""Reading one configuration file: strictly, with every problem at once, and with places that people can click on."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr, ValidationError

from workers.log.redact import Redactor
from workers.settings import tree as trees
from workers.settings.model import Settings
from workers.settings.problems import Problem, SettingsInvalid, Severity, sorted_problems
from workers.settings.tree import Tree, read_tree
from workers.settings.variables import Variables, read_environment
from workers.settings.wording import Complaint, complaints

SIZE_MAX_BYTES = 1 << 20
"""A configuration larger than this is another file given by mistake."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """One configuration: its settings (with absolute paths), its folder and where everything stood."""

    settings: Settings
    file: Path
    folder: Path
    marks: Tree
    secrets: frozenset[str]
    redactor: Redactor

    def problem(self, path: trees.Path, what: str, *, severity: Severity = "error", at_key: bool = False) -> Problem:
        """Return a problem with the value at `path`, or with its key, secrets hidden."""
        line, column = self.marks.key_mark(path) if at_key else self.marks.mark(path)
        return self.problem_in(self.file, line, column, what, severity=severity)

    def problem_in(self, file: Path, line: int, column: int, what: str, *, severity: Severity = "error") -> Problem:
        """Return a problem in a file that the configuration names, secrets hidden."""
        return Problem(file=file, line=line, column=column, what=self.redactor.text(what), severity=severity)


def load(path: Path, environ: Mapping[str, str] | None = None) -> Loaded:
    """Return the configuration in `path`. `environ` stands for this process's environment.

    Raises:
        SettingsInvalid: with every problem of the file's shape; `checks.check` finds what a shape cannot say.
    """
    loaded, problems = read(path, environ)
    if loaded is None or problems:
        raise SettingsInvalid(problems)
    return loaded


def read(path: Path, environ: Mapping[str, str] | None = None) -> tuple[Loaded | None, list[Problem]]:
    """Return what could be read of `path` and every problem of its shape.

    Keys that are unknown or given twice are left out of what could be read, so that the rest can still be checked.
    """
    try:
        text = _read_text(path)
    except SettingsInvalid as exc:
        return None, exc.problems
    folder = path.absolute().parent
    tree = read_tree(text, Variables(environ=read_environment() if environ is None else environ, folder=folder))
    found = list(tree.problems)
    settings: Settings | None = None
    if isinstance(tree.root, dict):
        settings, complained = _validated(tree, folder)
        found += [(complaint.mark, complaint.what) for complaint in complained]
    elif not found:
        found.append((tree.mark(()), _no_mapping(tree.root)))
    secrets = frozenset(tree.secrets | set(_secrets_of(settings)))
    redactor = Redactor(secrets)
    problems = sorted_problems(
        Problem(file=path, line=line, column=column, what=redactor.text(what)) for (line, column), what in found
    )
    if settings is None or tree.spoilt:
        return None, problems
    loaded = Loaded(settings=settings, file=path, folder=folder, marks=tree, secrets=secrets, redactor=redactor)
    return loaded, problems


def _validated(tree: Tree, folder: Path) -> tuple[Settings | None, list[Complaint]]:
    settings, found = _attempt(tree, folder)
    # A variable's value looks like a number, and text was wanted (a group called 7): then it was text.
    as_text = {complaint.path for complaint in found if complaint.kind.endswith("_type")} & tree.texts.keys()
    for path in as_text:
        _put(tree.root, path, tree.texts[path])
    if as_text:
        settings, found = _attempt(tree, folder)
    unknown = [complaint.path for complaint in found if complaint.kind == "extra_forbidden"]
    if unknown and settings is None:
        for path in unknown:
            del _parent(tree.root, path)[path[-1]]
        settings, _ = _attempt(tree, folder)
    return settings, found


def _attempt(tree: Tree, folder: Path) -> tuple[Settings | None, list[Complaint]]:
    try:
        return Settings.model_validate(tree.root, context={"folder": folder}), []
    except ValidationError as exc:
        return None, list(complaints(exc.errors(include_url=False), tree))


def _parent(root: Any, path: trees.Path) -> Any:
    for step in path[:-1]:
        root = root[step]
    return root


def _put(root: Any, path: trees.Path, text: str) -> None:
    _parent(root, path)[path[-1]] = text


def _no_mapping(root: Any) -> str:
    wanted = "a configuration is a mapping with `kafka`, `models` and `tasks`"
    if root is None:
        return f"the file is empty; {wanted}"
    return f"{wanted}; this is {'a list' if isinstance(root, list) else 'a single value'}"


def _read_text(path: Path) -> str:
    def invalid(what: str, line: int = 1) -> SettingsInvalid:
        return SettingsInvalid([Problem(file=path, line=line, column=1, what=what)])

    try:
        with path.open("rb") as file:
            raw = file.read(SIZE_MAX_BYTES + 1)
    except FileNotFoundError:
        raise invalid("no such file") from None
    except IsADirectoryError:
        raise invalid("this is a directory; give a file in it") from None
    except (OSError, ValueError) as exc:
        raise invalid(f"cannot be read: {getattr(exc, 'strerror', None) or exc}") from exc
    if len(raw) > SIZE_MAX_BYTES:
        raise invalid(f"larger than {SIZE_MAX_BYTES} bytes: this is no configuration")
    try:
        return raw.decode()
    except UnicodeDecodeError as exc:
        raise invalid("not UTF-8", raw.count(b"\n", 0, exc.start) + 1) from None


def _secrets_of(value: Any) -> Iterator[str]:
    """Yield every secret inside settings."""
    if isinstance(value, SecretStr):
        if value.get_secret_value():
            yield value.get_secret_value()
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _secrets_of(getattr(value, name))
    elif isinstance(value, dict):
        for child in value.values():
            yield from _secrets_of(child)
    elif isinstance(value, list):
        for child in value:
            yield from _secrets_of(child)
