"""`penstock schema`: the configuration's JSON Schema, for editors."""

import json
from typing import Any

from workers.settings.model import Settings

_VARIABLE = {"type": "string", "pattern": r"\$\{[^}]+\}", "description": "replaced when the worker starts"}
_NARROW_TYPES = {"integer", "number", "boolean"}


def schema() -> None:
    """Print the configuration's JSON Schema, for editors.

    Draft 2020-12; gives an editor completion, descriptions and checks.

    Example: penstock schema > penstock.schema.json, and as a configuration's first line
    `# yaml-language-server: $schema=penstock.schema.json`.
    """
    print(json.dumps(editor_schema(), indent=2))


def editor_schema() -> dict[str, Any]:
    """Return the schema of what a person writes: `${VAR}` may stand wherever a value may."""
    described: dict[str, Any] = with_variables(Settings.model_json_schema())
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **described,
        "title": "Penstock configuration",
        "description": "One deployment: a consumer group, the models it asks, and its tasks.",
    }


def with_variables(part: Any) -> Any:
    """Return a part of a schema in which numbers, truth values and choices may be written as a variable."""
    if isinstance(part, list):
        return [with_variables(child) for child in part]
    if not isinstance(part, dict):
        return part
    open_part = {
        name: child if name in ("default", "examples", "enum", "const") else with_variables(child)
        for name, child in part.items()
    }
    is_text = part.get("type") == "string"
    is_narrow = part.get("type") in _NARROW_TYPES or (is_text and ("enum" in part or "pattern" in part))
    if not is_narrow:
        return open_part
    beside = {name: open_part.pop(name) for name in ("title", "description", "default", "examples") if name in part}
    return {**beside, "anyOf": [open_part, _VARIABLE]}
