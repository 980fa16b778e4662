"""LOOP: records that wait in the task's own retry topic for a model that was away (`when_unavailable: defer`).

Key, value and headers are the input's, identical except forged `__penstock.*` headers, so that the record is the same
again when it is taken up. Its own Kafka timestamp is the moment of the deferral: it is due a fixed time later. Headers
of ours say the rest, and unlike those of an input they are believed: nobody but Penstock writes to this topic.
"""

import re
from dataclasses import dataclass

from topics import requests
from topics.headers import OUTCOME, PREFIX, REASON, SOURCE, TASK, Header, Headers, labelled, writable_name

DEFERRED = "deferred"

RETRY = "__penstock.retry."
DEFERRALS = RETRY + "deferrals"
FROM = RETRY + "from"
TIMESTAMP_MS = RETRY + "timestamp_ms"

_TIMESTAMP_FORMAT = re.compile(rb"-?(0|[1-9][0-9]{0,18})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Where a deferred record lay in its input topic, its timestamp there, and how often it has been deferred (1..).

    `timestamp_ms` is Kafka's own unit, -1: none.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    deferrals: int


def headers(originals: Headers, retry: Retry, *, source: str, task: str, reason: str) -> list[Header]:
    """Return all input headers that are not forged, then ours. `source` is the first origin, for outputs and audit."""
    return [
        *((writable_name(name), value) for name, value in originals if not name.startswith(PREFIX)),
        *requests.encode(requests.decode(originals)),
        *labelled(
            (SOURCE, source),
            (TASK, task),
            (OUTCOME, DEFERRED),
            (REASON, reason),
            (DEFERRALS, str(retry.deferrals)),
            (FROM, f"{retry.topic}/{retry.partition}/{retry.offset}"),
            (TIMESTAMP_MS, str(retry.timestamp_ms)),
        ),
    ]


def decode(all_headers: Headers) -> Retry | None:
    """Return what the headers say, None when one is missing or malformed: then it is no record that Penstock wrote."""
    said = {name: value or b"" for name, value in all_headers if name.startswith(RETRY)}
    deferrals, came_from, timestamp_ms = (said.get(name, b"") for name in (DEFERRALS, FROM, TIMESTAMP_MS))
    if not (
        requests.is_count(deferrals)
        and requests.is_source(came_from)
        and _TIMESTAMP_FORMAT.fullmatch(timestamp_ms)
        and deferrals != b"0"
    ):
        return None
    topic, partition, offset = came_from.decode().rsplit("/", 2)
    return Retry(
        topic=topic,
        partition=int(partition),
        offset=int(offset),
        timestamp_ms=int(timestamp_ms),
        deferrals=int(deferrals),
    )


def originals(all_headers: Headers) -> list[Header]:
    """Return the headers that the input record had: all but ours, with those that a replay had set."""
    kept = (requests.ORIGIN, requests.REPLAY)
    return [header for header in all_headers if not header[0].startswith(PREFIX) or header[0] in kept]
