"""Pydantic's errors as one sentence each, at the place where the mistake was written."""

import functools
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic_core import ErrorDetails

from workers.settings.model import Settings
from workers.settings.problems import did_you_mean, shown
from workers.settings.tree import Mark, Path, Tree
from workers.settings.types import FaultAt

_KINDS = {dict: "a mapping", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a fraction"}

# By pydantic's error type; the names in braces come from its context.
_SENTENCES = {
    "model_type": "must be a mapping, not {kind}",
    "dict_type": "must be a mapping, not {kind}",
    "list_type": "must be a list, not {kind}",
    "string_type": "must be text, not {kind}",
    "path_type": "must be the path of a file, not {kind}",
    "int_type": "must be a whole number, not {kind}",
    "float_type": "must be a number, not {kind}",
    "bool_type": "must be true or false, not {kind}",
    "finite_number": "must be a finite number",
    "literal_error": "must be one of {expected}",
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than_equal": "must be at most {le:g}",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
    "too_long": "takes nothing inside",
    "string_pattern_mismatch": "must match {pattern}",
}

# By pydantic's error type and the setting: what a list of allowed values does not tell.
_HINTS = {("literal_error", "dialect"): "; most gateways speak `openai` as well"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Complaint:
    """What is wrong with the value, or the key, at `path`. `kind`: pydantic's error type."""

    kind: str
    path: Path
    mark: Mark
    what: str


def complaints(errors: Iterable[ErrorDetails], tree: Tree) -> Iterator[Complaint]:
    """Yield one complaint per error, except about values that were reported already."""
    for error in errors:
        kind, loc = error["type"], error["loc"]
        if isinstance(fault := error.get("ctx", {}).get("error"), FaultAt):
            loc += fault.at
        path = written_path(loc[:-1] if kind == "missing" else loc, tree, last=kind == "extra_forbidden")
        if path in tree.spoilt:
            continue
        if kind == "missing":
            what = f"{shown(loc[-1])} is missing in {dotted(path)}"
            yield Complaint(kind=kind, path=path, mark=tree.key_mark(path), what=what)
        elif kind == "extra_forbidden":
            yield Complaint(kind=kind, path=path, mark=tree.key_mark(path), what=_unknown_key(path))
        else:
            yield Complaint(kind=kind, path=path, mark=tree.mark(path), what=f"{dotted(path)} {_sentence(error)}")


def written_path(loc: tuple[str | int, ...], tree: Tree, *, last: bool) -> Path:
    """Return pydantic's `loc` without the names of union branches, which nobody wrote.

    The longest part of `loc` that the text has, its last element included when `last` is set.
    """
    for dropped in range(len(loc) + 1):
        for gaps in itertools.combinations(range(len(loc)), dropped):
            path = tuple(step for place, step in enumerate(loc) if place not in gaps)
            if path in tree.values and not (last and path[-1:] != loc[-1:]):
                return path
    return ()


def dotted(path: Path) -> str:
    """Return `tasks.triage.ladder[0].rules`, as one says it."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")
    return shown(text) if text else "the configuration"


def _sentence(error: ErrorDetails) -> str:
    context: dict[str, Any] = error.get("ctx", {})
    if error["type"] == "value_error":  # raised by the model's own validators, which write sentences
        said = str(context["error"])
        return said if said.startswith("must ") else f"needs one thing: {said}"
    kind = _KINDS.get(type(error["input"]), "empty")
    template = _SENTENCES.get(error["type"])
    said = template.format(kind=kind, **context) if template else error["msg"]
    return said + _HINTS.get((error["type"], str(error["loc"][-1])), "")


def _unknown_key(path: Path) -> str:
    *around, key = path
    known = known_keys(tuple(around))
    place = f" in {dotted(tuple(around))}" if around else ""
    if key in known:  # of another rung: each is a mapping of its own
        return f"{shown(key)} does not belong beside the other keys{place}: begin a new list entry with `-`"
    return f"unknown key {shown(key)}{place}{did_you_mean(str(key), known)}"


@functools.cache
def _json_schema() -> dict[str, Any]:
    return Settings.model_json_schema()


def known_keys(path: Path) -> set[str]:
    """Return the keys that the configuration may have at `path`."""
    places = list(_branches(_json_schema()))
    for step in path:
        places = [branch for place in places for child in _children(place, step) for branch in _branches(child)]
    return {key for place in places for key in place.get("properties", {})}


def _branches(place: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the schema itself, or what its references and unions lead to."""
    if "$ref" in place:
        yield from _branches(_json_schema()["$defs"][place["$ref"].rpartition("/")[2]])
    else:
        yield place
    for branch in [*place.get("anyOf", []), *place.get("oneOf", [])]:
        yield from _branches(branch)


def _children(place: dict[str, Any], step: str | int) -> Iterator[dict[str, Any]]:
    more = place.get("items") if isinstance(step, int) else place.get("additionalProperties")
    if isinstance(step, str) and step in place.get("properties", {}):
        yield place["properties"][step]
    elif isinstance(more, dict):
        yield more
