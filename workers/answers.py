"""A task's answer schema, compiled: what the server shall enforce, and the check that does not trust it to."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema_rs
import orjson

_WRONG_MAX_CHARS = 300
_VALUE = "the value"
"""Stands for the answer's own content in texts: these reach logs and dead letters."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,39}")


class SchemaInvalid(ValueError):
    """An answer schema's file cannot be used; the text says where and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledSchema:
    """`check` returns None for a value that the schema accepts, else where and what is wrong.

    `version`: 12 hex digits of a hash over the file.
    """

    schema: dict[str, Any]
    check: Callable[[Any], str | None]
    version: str


def compile_schema(path: Path) -> CompiledSchema:
    """Read and compile a JSON Schema; without `$schema` it is draft 2020-12. `format` is enforced.

    No reference is fetched, neither from a network nor from a file. `pattern` runs on a linear-time engine, so that no
    answer can stall the worker: no lookaround, no back-references.

    Raises:
        SchemaInvalid: unreadable, not JSON, not an object, or no schema.
    """
    try:
        source = path.read_bytes()
        schema = orjson.loads(source)
    except OSError as exc:
        raise SchemaInvalid(f"{path}: cannot be read: {exc.strerror}") from exc
    except orjson.JSONDecodeError as exc:
        raise SchemaInvalid(f"{path}({exc.lineno},{exc.colno}) is not JSON: {exc.msg}") from exc
    if not isinstance(schema, dict):
        raise SchemaInvalid(f"{path}: must be an object, as model servers take no other schema")
    return CompiledSchema(schema=schema, check=_checker(path, schema), version=hashlib.sha256(source).hexdigest()[:12])


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """What a schema says of one place in an answer. `schema` None: nothing.

    `closed`: and no answer can have it. `required`: every answer has it.
    """

    schema: dict[str, Any] | None
    closed: bool = False
    required: bool = True


def members(schema: dict[str, Any], steps: list[str]) -> Member:
    """Return what the schema says of the place that a path leads to, through properties and local references.

    What only `anyOf`, `allOf` and their like say is not looked at: then nothing is said, and nothing closed.
    """
    node, required = _resolved(schema, schema), True
    for step in steps:
        names = node.get("properties")
        if not isinstance(names, dict) or step not in names:
            return Member(schema=None, closed=node.get("additionalProperties") is False and not _COMPOSED & node.keys())
        required = required and step in node.get("required", ())
        node = _resolved(names[step], schema)
    return Member(schema=node, required=required)


_COMPOSED = frozenset({"$ref", "anyOf", "oneOf", "allOf", "if", "patternProperties", "dependentSchemas"})


def _resolved(node: Any, root: dict[str, Any]) -> dict[str, Any]:
    """Return the schema that a node is or, by `#/...`, refers to; an empty one when that cannot be told."""
    seen: list[str] = []
    while isinstance(node, dict) and isinstance(way := node.get("$ref"), str) and way.startswith("#/"):
        if way in seen:
            return {}
        seen.append(way)
        node = root
        for step in way[2:].split("/"):
            node = node.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(node, dict) else None
    return node if isinstance(node, dict) else {}


def _checker(path: Path, schema: dict[str, Any]) -> Callable[[Any], str | None]:
    try:
        validator = jsonschema_rs.validator_for(
            schema,
            validate_formats=True,
            ignore_unknown_formats=False,
            offline=True,
            mask=_VALUE,
            pattern_options=jsonschema_rs.RegexOptions(),
        )
    except jsonschema_rs.ValidationError as exc:
        raise SchemaInvalid(f"{path}: {_what_is_wrong(exc, schema)}") from exc
    validate = validator.validate

    def check(value: Any) -> str | None:
        try:
            validate(value)  # the first error only: all those of a large answer would hold the loop for 0.1 s
        except jsonschema_rs.ValidationError as exc:
            return _described(exc)[:_WRONG_MAX_CHARS]
        return None

    return check


def _described(error: jsonschema_rs.ValidationError) -> str:
    """Return place and cause. Names that the model made up are shown only if they look like names."""
    where = "/".join(map(str, error.instance_path)) or "the answer"
    unexpected = getattr(error.kind, "unexpected", None)
    if not unexpected:
        return f"{where}: {error.message}"
    name = str(unexpected[0])
    return f"{where}: a property that the schema does not allow: {name if _NAME.fullmatch(name) else 'an odd name'}"


def _what_is_wrong(error: jsonschema_rs.ValidationError, schema: dict[str, Any]) -> str:
    """Return what is wrong with a schema, with the place and the words in it."""
    found: Any = schema
    for step in error.instance_path:
        found = found[step]
    where = "/".join(map(str, error.instance_path)) or "the schema"
    what = error.message.replace(_VALUE, repr(found)[:80]) if error.instance_path else error.message
    if what.endswith('"regex"'):
        what = "not a regular expression of the linear-time engine (no lookaround, no back-references)"
    elif "any of the schemas" in what:
        what = f"{repr(found)[:80]} is none of what JSON Schema allows here"
    return f"{where}: {what}"[:_WRONG_MAX_CHARS]
