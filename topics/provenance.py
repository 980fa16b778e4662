"""How an enrichment came about: the third member of every wrapped value."""

import time
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any


@dataclass(slots=True, kw_only=True)
class Provenance:
    """Who answered, how, and at what cost. None is written as null and means unknown or not applicable.

    `source` is `<topic>/<partition>/<offset>` of the record's first appearance. `model` and `endpoint` are those that
    answered; for a fallback no model did, and `endpoint` is the one that failed. `latency_s` is the successful call
    alone, and so are the tokens; for a fallback they are those of all answers that were thrown away. `cost_usd` is what
    all answered calls for the record cost together, null where the model that answered has no price, and for a fallback
    where no answer that was thrown away had one. `reason` is null when the model answered. `produced_at` is RFC 3339,
    UTC, milliseconds.

    The others are only written when there is something to say. `raw_answer`: what the model said when it was of no use,
    at most 2,048 characters. `repairs`: what it took to get the enrichment out of the model (`fenced`, `embedded`,
    `thought`, `escaped`, `larger_budget`, `asked_again`). `passed_by`: which models of the ladder should have answered
    before, pairs of name and reason. `shared`, `cached`: the answer is that of a call made for another record. `batch`:
    for how many records the call was. `cut`: which texts the model saw in part only.
    """

    source: str
    task: str
    tier: str
    model: str | None = None
    endpoint: str | None = None
    prompt_version: str
    schema_version: str
    attempts: int
    latency_s: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None
    reason: str | None = None
    produced_at: str
    raw_answer: str | None = None
    repairs: tuple[str, ...] = ()
    passed_by: tuple[tuple[str, str], ...] = ()
    shared: bool = False
    cached: bool = False
    batch: int = 0
    cut: tuple[dict[str, Any], ...] = ()


def encode(provenance: Provenance) -> dict[str, Any]:
    """Return the JSON object, members in the order of the wire contract."""
    members: dict[str, Any] = {
        "source": provenance.source,
        "task": provenance.task,
        "tier": provenance.tier,
        "model": provenance.model,
        "endpoint": provenance.endpoint,
        "prompt_version": provenance.prompt_version,
        "schema_version": provenance.schema_version,
        "attempts": provenance.attempts,
        "latency_s": provenance.latency_s,
        "input_tokens": provenance.input_tokens,
        "output_tokens": provenance.output_tokens,
        "cost_usd": provenance.cost_usd,
        "reason": provenance.reason,
        "produced_at": provenance.produced_at,
    }
    if provenance.raw_answer is not None:
        members["raw_answer"] = provenance.raw_answer
    if provenance.repairs:
        members["repairs"] = list(provenance.repairs)
    if provenance.passed_by:
        members["passed_by"] = [{"model": model, "reason": reason} for model, reason in provenance.passed_by]
    if provenance.shared:
        members["shared"] = True
    if provenance.cached:
        members["cached"] = True
    if provenance.batch:
        members["batch"] = provenance.batch
    if provenance.cut:
        members["cut"] = list(provenance.cut)
    return members


_NAMES = frozenset(field.name for field in fields(Provenance))


def decode(members: dict[str, Any]) -> Provenance:
    """Return the provenance that `members` holds; members that a later version adds are ignored.

    Raises:
        ValueError: a member is missing.
    """
    try:
        return Provenance(**{name: value for name, value in members.items() if name in _NAMES})
    except TypeError as exc:
        raise ValueError(f"not a provenance: {exc}") from exc


def rfc3339(wall_s: float) -> str:
    """Return seconds since the epoch as `2025-01-31T09:30:00.250Z`."""
    return _millisecond(int(wall_s * 1000))


@lru_cache(maxsize=4)
def _millisecond(whole_ms: int) -> str:
    """At full rate a dozen records share a millisecond."""
    whole_s, rest_ms = divmod(whole_ms, 1000)
    return f"{_second(whole_s)}.{rest_ms:03d}Z"


@lru_cache(maxsize=4)
def _second(whole_s: int) -> str:
    """Thousands of records share a second, and strftime costs as much as the rest of the provenance."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole_s))
