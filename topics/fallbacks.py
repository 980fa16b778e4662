"""OUT: records that a lower rung of the ladder answered. Same shape as the task's enriched topic.

`enrichment` is null for the tiers `review` and `skip`; with `shape: only` the value is then the JSON text `null`, which
is no tombstone. `provenance.reason` says why the model did not answer, `provenance.raw_answer` what it said instead.
"""

from typing import Any

from topics import shapes
from topics.headers import OUTCOME, PROMPT_VERSION, REASON, SOURCE, TASK, TIER, Header, labelled
from topics.provenance import Provenance
from topics.shapes import WRAP, Decoded, Shape

FALLBACK = "fallback"
TIERS = ("rules", "review", "skip", "default")


def encode(value: bytes, enrichment: Any, provenance: Provenance, shape: Shape = WRAP) -> bytes:
    """Return the value in the task's shape; `shapes.encode` says what it raises."""
    return shapes.encode(value, enrichment, provenance, shape)


def decode(value: bytes, shape: Shape = WRAP) -> Decoded:
    """Return input, enrichment and provenance.

    Raises:
        ValueError: not written by `encode` with that shape.
    """
    return shapes.decode(value, shape)


def headers(provenance: Provenance) -> list[Header]:
    """Return our headers: the tier that answered, and the reason why the model did not."""
    return labelled(
        (SOURCE, provenance.source),
        (TASK, provenance.task),
        (OUTCOME, FALLBACK),
        (TIER, provenance.tier),
        (REASON, provenance.reason),
        (PROMPT_VERSION, provenance.prompt_version),
    )
