"""`${VAR}`, `${VAR:default}` and `${file:/path}` inside a text. The one place that reads the environment."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

_VARIABLE = re.compile(
    r"\$\$\{"  # an escaped `${`
    r"|\$\{file:(?P<file>[^}]+)\}"
    r"|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<default>:[^}]*)?\}"
    r"|(?P<broken>\$\{)"
)
SECRET_MAX_BYTES = 64 << 10
"""A secret file larger than this is a mistake (a device, a log), not a secret."""


class VariableUnusable(ValueError):
    """The variable or its file is not there; the text names it and never shows a value."""


class FileText(str):
    """A text with something out of a file in it. `again` returns it as the file has it now, or VariableUnusable."""

    __slots__ = ("again",)
    again: Callable[[], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expanded:
    """A text after substitution. `whole`: it was nothing but one variable. `secrets`: what came out of files."""

    text: str
    whole: bool = False
    secrets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Variables:
    """Where values come from: the environment, and files relative to the configuration's folder."""

    environ: Mapping[str, str]
    folder: Path

    def expand(self, text: str) -> Expanded:
        """Return `text` with its variables replaced; `$${` stands for a literal `${`.

        An environment variable that is unset or empty takes the default, when one is given.

        Raises:
            VariableUnusable: one of them has no value.
        """
        secrets: list[str] = []

        def value_of(found: re.Match[str]) -> str:
            if found["broken"]:
                raise VariableUnusable(
                    "`${` starts no variable: write `${NAME}`, or `$${` for the characters themselves"
                )
            if found["file"]:
                secrets.append(_read_secret(self.folder / found["file"]))
                return secrets[-1]
            return self._lookup(found["name"], found["default"]) if found["name"] else "${"

        only = _VARIABLE.fullmatch(text)
        expanded = _VARIABLE.sub(value_of, text)
        if secrets:
            expanded = FileText(expanded)
            expanded.again = lambda: self.expand(text).text
        return Expanded(text=expanded, whole=bool(only and only["name"]), secrets=tuple(filter(None, secrets)))

    def _lookup(self, name: str, default: str | None) -> str:
        value = self.environ.get(name)
        if default is not None:
            return value or default[1:]
        if value is None:
            raise VariableUnusable(
                f"the environment variable `{name}` is not set: set it, or write a default, `${{{name}:default}}`"
            )
        return value


def read_environment() -> Mapping[str, str]:
    """Return this process's environment."""
    return os.environ


def _read_secret(path: Path) -> str:
    """Return a secret file's text without its line end."""
    try:
        if not path.is_file():
            raise VariableUnusable(f"the file of `${{file:{path}}}` is not there")
        with path.open("rb") as file:
            raw = file.read(SECRET_MAX_BYTES + 1)
    except OSError as exc:
        raise VariableUnusable(f"the file of `${{file:{path}}}` cannot be read: {exc.strerror}") from exc
    if len(raw) > SECRET_MAX_BYTES:
        raise VariableUnusable(f"the file of `${{file:{path}}}` is larger than {SECRET_MAX_BYTES} bytes")
    try:
        return raw.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise VariableUnusable(f"the file of `${{file:{path}}}` is not UTF-8") from None
