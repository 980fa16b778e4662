"""Stage 1: from a record's bytes to its value."""

from typing import Any

import orjson

from workers.errors import EmptyValue, NotJson, NotUtf8, Reject, TooDeep, ValueTooLarge
from workers.json_text import loads
from workers.nesting import MAX_DEPTH, too_deep
from workers.records import Record, Request
from workers.task import Task


def decode(record: Record, task: Task) -> Request:
    """Return the record with its decoded value. Not for tombstones; the record's own bytes stay as they are.

    JSON as orjson reads it: of duplicate keys the last one, integers beyond 64 bits as floats. The outputs embed the
    input's bytes, so that neither is lost.

    Raises (none is retryable):
        EmptyValue, ValueTooLarge, NotUtf8: for both input formats.
        NotJson: not RFC 8259; also NaN, Infinity, 1e999, a byte order mark, and half a surrogate pair.
        TooDeep: nests deeper than 200.
        MemoryError: not the record's fault.
    """
    value = record.value
    if not value:
        raise EmptyValue("the value has no bytes")
    if len(value) > task.settings.max_input_bytes:
        raise ValueTooLarge(f"{len(value)} bytes, max_input_bytes is {task.settings.max_input_bytes}")
    return Request(record, _text(value) if task.settings.input_format == "text" else _json(value))


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as exc:
        raise NotUtf8(f"{exc.reason} at byte {exc.start}") from exc


def _json(value: bytes) -> Any:
    try:
        decoded = loads(value)
    except orjson.JSONDecodeError as exc:
        raise _what_is_wrong(value, exc) from exc
    if too_deep(value):
        raise TooDeep(f"nests deeper than {MAX_DEPTH}")
    return decoded


def _what_is_wrong(value: bytes, error: orjson.JSONDecodeError) -> Reject:
    """Tell apart what orjson raises one error for. Its texts name a place and never quote the value."""
    try:
        value.decode()
    except UnicodeDecodeError as exc:
        return NotUtf8(f"{exc.reason} at byte {exc.start}")
    if error.msg.startswith("depth limit exceeded"):
        return TooDeep(f"nests deeper than {MAX_DEPTH}")
    return NotJson(str(error))
