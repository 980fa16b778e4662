"""OUT: records that no answer could be found for. Key, value and headers are the input's; headers of ours say why.

A record that does not fit goes as a stub: a small JSON value with its sha256, size and coordinates.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from topics import requests
from topics.headers import OUTCOME, PREFIX, SOURCE, TASK, Header, Headers, as_text, capped, labelled, writable_name

REJECTED = "rejected"

ERRORS = "__penstock.errors."
STUB = ERRORS + "stub"
"""`true` when the value is a stub. All other names carry Kafka Connect's suffixes (KIP-298) where it has one."""

MESSAGE_MAX_CHARS = 500
STUB_KEY_MAX_BYTES = 16 << 10
"""A longer key is left out of a stub: a stub that does not fit either would hold its task for ever."""

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""C0, C1, line separators, bidirectional overrides and lone surrogates: a log or a terminal may obey them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What went wrong, where. Coordinates and timestamp (Kafka's ms, -1: none) are those of the record in this pass."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    stage: str
    reason: str
    exception_class: str
    exception_message: str
    attempts: int = 0
    endpoint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stub:
    """What is left of a record that did not fit: `sha256` (hex) and size of its value, and which record it was."""

    sha256: str
    size_bytes: int
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A dead letter taken apart. `value` and `headers` are what the input had; `stub` is set when they were dropped."""

    source: str
    task: str
    failure: Failure
    value: bytes | None
    headers: list[Header]
    stub: Stub | None


def headers(originals: Headers, failure: Failure, *, source: str, task: str, stub: bool = False) -> list[Header]:
    """Return all input headers that are not forged, then ours. In a stub the input's are capped like an output's."""
    kept: list[Header] = [(writable_name(name), value) for name, value in originals if not name.startswith(PREFIX)]
    return [
        *(capped(kept) if stub else kept),
        *requests.encode(requests.decode(originals)),
        *labelled((SOURCE, source), (TASK, task), (OUTCOME, REJECTED)),
        *_errors(failure),
        *labelled((STUB, "true" if stub else None)),
    ]


def _errors(failure: Failure) -> list[Header]:
    return labelled(
        (ERRORS + "topic", failure.topic),
        (ERRORS + "partition", str(failure.partition)),
        (ERRORS + "offset", str(failure.offset)),
        (ERRORS + "timestamp", str(failure.timestamp_ms)),
        (ERRORS + "stage", failure.stage),
        (ERRORS + "reason", failure.reason),
        (ERRORS + "exception.class.name", failure.exception_class),
        (ERRORS + "exception.message", scrubbed(failure.exception_message)),
        (ERRORS + "attempts", str(failure.attempts)),
        (ERRORS + "endpoint", failure.endpoint),
    )


def scrubbed(text: str) -> str:
    """Return at most 500 characters of `text`, those that could command a terminal or forge a log line blanked."""
    return _UNPRINTABLE.sub(" ", text[:MESSAGE_MAX_CHARS])


def encode_stub(value: bytes | None, *, source: str) -> bytes:
    """Return the JSON that stands for `value`."""
    body = value or b""
    digest = hashlib.sha256(body).hexdigest()
    return orjson.dumps({"stub": True, "sha256": digest, "size_bytes": len(body), "source": source})


def stub_key(key: bytes | None) -> bytes | None:
    """Return `key`, or None when it is so long that even a stub might not fit with it."""
    return None if key is not None and len(key) > STUB_KEY_MAX_BYTES else key


def decode(value: bytes | None, all_headers: Headers) -> DeadLetter:
    """Take a dead letter apart.

    Raises:
        ValueError: a header that every dead letter has is missing or malformed.
    """
    said = as_text([header for header in all_headers if header[0].startswith(PREFIX)])
    try:
        return DeadLetter(
            source=said[SOURCE],
            task=said[TASK],
            failure=_failure(said),
            value=None if STUB in said else value,
            headers=[header for header in all_headers if _is_original(header[0])],
            stub=_stub(value) if STUB in said else None,
        )
    except (KeyError, TypeError) as exc:
        raise ValueError(f"not a dead letter of Penstock: {exc!r}") from exc


def _is_original(name: str) -> bool:
    return not name.startswith(PREFIX) or name in (requests.ORIGIN, requests.REPLAY)


def _failure(said: Mapping[str, str]) -> Failure:
    return Failure(
        topic=said[ERRORS + "topic"],
        partition=int(said[ERRORS + "partition"]),
        offset=int(said[ERRORS + "offset"]),
        timestamp_ms=int(said[ERRORS + "timestamp"]),
        stage=said[ERRORS + "stage"],
        reason=said[ERRORS + "reason"],
        exception_class=said[ERRORS + "exception.class.name"],
        exception_message=said[ERRORS + "exception.message"],
        attempts=int(said[ERRORS + "attempts"]),
        endpoint=said.get(ERRORS + "endpoint"),
    )


def _stub(value: bytes | None) -> Stub:
    members: dict[str, Any] = orjson.loads(value or b"{}")
    return Stub(sha256=members["sha256"], size_bytes=members["size_bytes"], source=members["source"])
