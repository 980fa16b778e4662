"""IN: what Penstock accepts, and the two headers of its own that it believes.

Key: any bytes or null (null carries no order). Value: one JSON text (RFC 8259, UTF-8, no byte order mark, nested at
most 200 deep), or UTF-8 text with `input_format: text`; null is a tombstone. Headers: any; `ce_*` and `traceparent`
travel on.
"""

import re
from dataclasses import dataclass

from topics.headers import PREFIX, Header, Headers

ORIGIN = "__penstock.origin"
"""Set by whoever replays a record: `<topic>/<partition>/<offset>` of its first appearance."""

REPLAY = "__penstock.replay"
"""Set by whoever replays a record: how many times by now, at most 100."""

MAX_REPLAYS = 100

_SOURCE_FORMAT = re.compile(rb"[a-zA-Z0-9._-]{1,249}/(0|[1-9][0-9]{0,9})/(0|[1-9][0-9]{0,18})")
_COUNT_FORMAT = re.compile(rb"0|[1-9][0-9]{0,2}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """Where a record first came from and how often it was replayed; None when the input does not say so credibly."""

    origin: str | None = None
    replays: int | None = None


FRESH = Lineage()


def is_source(value: bytes) -> bool:
    """Return whether it is written as `<topic>/<partition>/<offset>`."""
    return _SOURCE_FORMAT.fullmatch(value) is not None


def is_count(value: bytes) -> bool:
    """Return whether it is a number from 0 to 999, as such numbers are written."""
    return _COUNT_FORMAT.fullmatch(value) is not None


def encode(lineage: Lineage) -> list[Header]:
    """Return the headers that say `lineage`."""
    headers: list[Header] = []
    if lineage.origin is not None:
        headers.append((ORIGIN, lineage.origin.encode()))
    if lineage.replays is not None:
        headers.append((REPLAY, str(lineage.replays).encode()))
    return headers


def decode(headers: Headers) -> Lineage:
    """Return what the headers say of the record's lineage: the first well-formed one of each name, the rest ignored."""
    origin: str | None = None
    replays: int | None = None
    for name, value in headers:
        if value is None or not name.startswith(PREFIX):
            continue
        if name == ORIGIN and origin is None and _SOURCE_FORMAT.fullmatch(value):
            origin = value.decode()
        elif name == REPLAY and replays is None and _COUNT_FORMAT.fullmatch(value) and int(value) <= MAX_REPLAYS:
            replays = int(value)
    return FRESH if origin is None and replays is None else Lineage(origin=origin, replays=replays)
