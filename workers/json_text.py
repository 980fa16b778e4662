"""Reading JSON, with one error of orjson's told apart: out of memory is no fault of the text; and finding a member."""

import json
from typing import Any

import orjson

MISSING = object()
"""What a path leads to when there is no such member."""


def loads(text: bytes | str) -> Any:
    """Return the value of a JSON text (RFC 8259, as orjson reads it).

    Raises:
        orjson.JSONDecodeError: it is no JSON.
        MemoryError: there was no room to parse it. orjson says that with a JSONDecodeError as well; taken for bad input
            it would turn every record into a dead letter while the process is short of memory.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as exc:
        if exc.msg.startswith("Not enough memory"):
            raise MemoryError(exc.msg) from exc
        raise


def loads_raw_controls(text: str) -> Any:
    """Return the value of a text that is JSON, but for control characters (U+0000 to U+001F) raw in its strings.

    Each stands for itself, so nothing is guessed; all else is read as `loads` does. JSON wants them escaped; vLLM's
    grammar lets them through (xgrammar 0.2.1, for strings with `minLength` or `maxLength` and where a `pattern` does),
    and models without a grammar write them.

    Raises:
        orjson.JSONDecodeError: it is not even that.
    """
    try:
        value = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return loads(text)
    return loads(json.dumps(value))


def lookup(value: Any, steps: list[str]) -> Any:
    """Follow a path through objects by name and through lists by position; `MISSING` where it breaks off."""
    for step in steps:
        if isinstance(value, dict):
            value = value.get(step, MISSING)
        elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            return MISSING
    return value
