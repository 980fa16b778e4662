"""Records that come back from a retry topic: which of them are due, and what they were before. Plain decisions.

The delay is one and the same for all records of a topic, so the order of offsets is the order in which they are due:
behind one that is not due there is nothing to look for. Clocks of replicas may differ by a little, and then offsets
still decide.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace

from topics import retries
from workers.records import Record

LOOK_AGAIN_S = 0.5
"""At least so long between two looks at records that were not due: each look fetches them once more. So a record may be
taken up this much later than it was due."""

CREDIBLE_DELAYS = 2
"""A wait of more delays than this comes from a clock that is wrong: the record is taken up at once, rather than its
partition standing still until that clock is right."""


def due(timestamps_ms: Sequence[int], delay_s: float, now_s: float) -> tuple[int, float]:
    """Return how many of these records, from the first on, are due, and in how many seconds to look again (0: all are).

    `timestamps_ms` are Kafka's, in the order of offsets; `now_s` is wall time.
    """
    for place, timestamp_ms in enumerate(timestamps_ms):
        wait_s = timestamp_ms / 1000 + delay_s - now_s
        if 0 < wait_s <= CREDIBLE_DELAYS * delay_s:
            return place, max(wait_s, LOOK_AGAIN_S)
    return len(timestamps_ms), 0.0


def restored(record: Record, topics: Collection[str]) -> tuple[Record, int]:
    """Return the record as it was in its input topic, and how often it has been deferred.

    So all that follows (prompt, outputs, dead letter, age) is as if it came from there. One that names none of the
    task's `topics` (its inputs and its retry topic) was not written by Penstock: it is a record of its own.
    """
    retry = retries.decode(record.headers)
    if retry is None or retry.topic not in topics:
        return record, 0
    original = replace(
        record,
        topic=retry.topic,
        partition=retry.partition,
        offset=retry.offset,
        timestamp_ms=retry.timestamp_ms,
        headers=retries.originals(record.headers),
    )
    return original, retry.deferrals
