"""Reading JSON, with one error of orjson's told apart: out of memory is no fault of the text; and finding a member."""

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
