"""OUT: records that the model answered, with an answer that passed its check.

Key, timestamp and (where the counts match) partition are the input's. A tombstone arrives as a tombstone: null value,
our headers only with outcome `erased`.
"""

from topics.headers import MODEL, OUTCOME, PROMPT_VERSION, SOURCE, TASK, TIER, Header, labelled
from topics.provenance import Provenance
from topics.shapes import decode, encode

__all__ = ["ENRICHED", "ERASED", "MODEL_TIER", "decode", "encode", "headers", "tombstone_headers"]

ENRICHED = "enriched"
ERASED = "erased"
MODEL_TIER = "model"


def headers(provenance: Provenance) -> list[Header]:
    """Return our headers, so that `merge` and `only` keep what re-enrichment needs."""
    return labelled(
        (SOURCE, provenance.source),
        (TASK, provenance.task),
        (OUTCOME, ENRICHED),
        (TIER, provenance.tier),
        (MODEL, provenance.model),
        (PROMPT_VERSION, provenance.prompt_version),
    )


def tombstone_headers(*, source: str, task: str) -> list[Header]:
    """Return our headers on a tombstone, the same on enriched and fallback."""
    return labelled((SOURCE, source), (TASK, task), (OUTCOME, ERASED))
