"""OUT: records that a lower rung of the ladder answered. Same shape as the task's enriched topic.

`enrichment` is null for the tiers `review` and `skip`; with `shape: only` the value is then the JSON text `null`, which
is no tombstone. `provenance.reason` says why the model did not answer, `provenance.raw_answer` what it said instead.
"""

from topics.headers import OUTCOME, PROMPT_VERSION, REASON, SOURCE, TASK, TIER, Header, labelled
from topics.provenance import Provenance
from topics.shapes import decode, encode

__all__ = ["FALLBACK", "TIERS", "decode", "encode", "headers"]

FALLBACK = "fallback"
TIERS = ("rules", "review", "skip", "default")


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
