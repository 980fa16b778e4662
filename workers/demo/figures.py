"""How long it took, exactly: from the timestamps and provenances in the output topics, not from a histogram."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from topics import deadletters, enriched
from topics.provenance import Provenance
from topics.spec import Kind
from workers.records import Record

PERCENTS = (50, 95, 99)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Percentiles in seconds, by nearest rank; None when there were no records."""

    records: int
    p50_s: float | None
    p95_s: float | None
    p99_s: float | None


def spread(durations_s: Iterable[float]) -> Spread:
    """Return the percentiles of some durations."""
    ordered = sorted(durations_s)
    p50_s, p95_s, p99_s = (_rank(ordered, percent) for percent in PERCENTS)
    return Spread(records=len(ordered), p50_s=p50_s, p95_s=p95_s, p99_s=p99_s)


def _rank(ordered: Sequence[float], percent: int) -> float | None:
    return ordered[math.ceil(len(ordered) * percent / 100) - 1] if ordered else None


def latencies(outputs: dict[Kind, list[Record]]) -> dict[str, Spread]:
    """Return the spreads by what they measure.

    `by_model`, `by_ladder`, `dead_letter`: from the input record's timestamp until its outcome was made, waiting
    included. `model_call`: the call that answered, alone.
    """
    by_model = list(_answers(outputs["enriched"]))
    by_ladder = list(_answers(outputs["fallback"]))
    return {
        "by_model": spread(_age_s(*answer) for answer in by_model),
        "by_ladder": spread(_age_s(*answer) for answer in by_ladder),
        "dead_letter": spread(map(_dead_after_s, outputs["dlq"])),
        "model_call": spread(said.latency_s for _, said in by_model if said.latency_s is not None),
    }


def _answers(records: Iterable[Record]) -> Iterable[tuple[Record, Provenance]]:
    for record in records:
        if record.value is not None and (said := enriched.decode(record.value).provenance) is not None:
            yield record, said


def _age_s(record: Record, said: Provenance) -> float:
    return produced_at_s(said) - record.timestamp_ms / 1000


def produced_at_s(said: Provenance) -> float:
    """Return when an outcome was made, in seconds since the epoch."""
    return datetime.fromisoformat(said.produced_at).timestamp()


def _dead_after_s(record: Record) -> float:
    return (record.timestamp_ms - deadletters.decode(record.value, record.headers).failure.timestamp_ms) / 1000


def pace_per_s(outputs: dict[Kind, list[Record]], *, until_s: float, window_s: float) -> float:
    """Return the model's answers per second in the last `window_s` before `until_s`: what the breaker's window saw."""
    times_s = [
        at_s
        for _, said in _answers(outputs["enriched"])
        if until_s - window_s < (at_s := produced_at_s(said)) <= until_s
    ]
    return len(times_s) / max(1.0, max(times_s) - min(times_s)) if times_s else 0.0


def left_unasked(outputs: dict[Kind, list[Record]]) -> int:
    """Return how many records left down the ladder because the breaker was open."""
    return sum(said.reason == "breaker_open" for _, said in _answers(outputs["fallback"]))
