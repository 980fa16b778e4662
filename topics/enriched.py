"""OUT: records that the model answered, with an answer that passed its check.

Key, timestamp and (where the counts match) partition are the input's. A tombstone arrives as a tombstone: null value,
our headers only with outcome `erased`.
"""

from functools import lru_cache

from topics.headers import MODEL, OUTCOME, PROMPT_VERSION, SOURCE, TASK, TIER, Header, labelled
from topics.provenance import Provenance
from topics.shapes import decode, encode

__all__ = ["ENRICHED", "ERASED", "MODEL_TIER", "decode", "encode", "headers", "tombstone_headers"]

ENRICHED = "enriched"
ERASED = "erased"
MODEL_TIER = "model"


def headers(provenance: Provenance) -> list[Header]:
    """Return our headers, so that `merge` and `only` keep what re-enrichment needs."""
    source = (SOURCE, provenance.source.encode())
    return [source, *_shared(provenance.task, provenance.tier, provenance.model, provenance.prompt_version)]


@lru_cache(maxsize=256)
def _shared(task: str, tier: str, model: str | None, prompt_version: str) -> list[Header]:
    """Return what thousands of records have in common."""
    return labelled((TASK, task), (OUTCOME, ENRICHED), (TIER, tier), (MODEL, model), (PROMPT_VERSION, prompt_version))


def tombstone_headers(*, source: str, task: str) -> list[Header]:
    """Return our headers on a tombstone, the same on enriched and fallback."""
    return labelled((SOURCE, source), (TASK, task), (OUTCOME, ERASED))
