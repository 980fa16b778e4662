"""Header names of ours, and which of the input's headers travel on.

Kafka's header keys are UTF-8 text, not unique; values are bytes or null. Order is kept.
"""

import re
from collections.abc import Sequence

Header = tuple[str, bytes | None]
Headers = Sequence[Header]

PREFIX = "__penstock."
"""Ours alone: whatever arrives under it is forged, except what `requests` reads."""

SOURCE = "__penstock.source"
TASK = "__penstock.task"
OUTCOME = "__penstock.outcome"
TIER = "__penstock.tier"
REASON = "__penstock.reason"
MODEL = "__penstock.model"
PROMPT_VERSION = "__penstock.prompt_version"

MAX_ENTRIES = 64
MAX_BYTES = 16 << 10

_CLOUD_PREFIX = "ce_"  # CloudEvents, Kafka protocol binding 1.0.2, section 3.2.3.1
_TRACEPARENT = "traceparent"
_TRACEPARENT_FORMAT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
"""W3C Trace Context, section 3.2: anything else is ignored by whoever gets it, so it need not travel."""


def passed_on(headers: Headers) -> list[Header]:
    """Return the `ce_*` headers and the well-formed `traceparent` of an input record, in order, within the caps."""
    return capped([header for header in headers if _passes(*header)])


def _passes(name: str, value: bytes | None) -> bool:
    if name.startswith(_CLOUD_PREFIX):
        return True
    return name == _TRACEPARENT and value is not None and _TRACEPARENT_FORMAT.fullmatch(value) is not None


def capped(headers: Headers) -> list[Header]:
    """Return at most 64 headers of at most 16 KiB together; one that does not fit is left out, smaller ones follow."""
    kept: list[Header] = []
    room_bytes = MAX_BYTES
    for name, value in headers:
        name_text = writable_name(name)
        size_bytes = len(name_text.encode()) + len(value or b"")
        if size_bytes > room_bytes:
            continue
        kept.append((name_text, value))
        room_bytes -= size_bytes
        if len(kept) == MAX_ENTRIES:
            break
    return kept


def writable_name(name: str) -> str:
    r"""Return `name` as Kafka can store it: a lone surrogate (a key that was no UTF-8) is spelled out as `\udcff`."""
    return name if name.isascii() else name.encode("utf-8", "backslashreplace").decode()


def labelled(*pairs: tuple[str, str | None]) -> list[Header]:
    """Return headers of ours; what is None is left out, since an absent header says "not applicable"."""
    return [(name, text.encode()) for name, text in pairs if text is not None]


def as_text(headers: Headers) -> dict[str, str]:
    """Return headers as text by name, for reading them back. Of duplicates the last counts, null reads as ''."""
    return {name: (value or b"").decode("utf-8", "replace") for name, value in headers}
