"""How long it took, exactly: from the timestamps and provenances in the output topics, not from a histogram."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from topics import deadletters, enriched
from topics.provenance import Provenance
from topics.spec import Kind
from workers.errors import BreakerOpen
from workers.records import Record

PERCENTS = (50, 95, 99)
BREAKER_WINDOW_S = 10.0
"""The configuration's default: how far back the worker looks when it measures its model's pace."""

PACE_SLACK_RATIO = 1.25
PACE_SLACK_RECORDS = 5
"""The worker measures that pace from its calls, we from the topics, and not at the same moments."""

Outputs = Mapping[Kind, Sequence[Record]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Percentiles in seconds, by nearest rank, to the millisecond; None when there were no records."""

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
    return round(ordered[math.ceil(len(ordered) * percent / 100) - 1], 3) if ordered else None


def latencies(outputs: Outputs) -> dict[str, Spread]:
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
    return _produced_at_s(said) - record.timestamp_ms / 1000


def _produced_at_s(said: Provenance) -> float:
    return datetime.fromisoformat(said.produced_at).timestamp()


def _dead_after_s(record: Record) -> float:
    return (record.timestamp_ms - deadletters.decode(record.value, record.headers).failure.timestamp_ms) / 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """The outage as the worker's log and the topics tell it. Moments are seconds since the epoch.

    `pace_per_s`: answers of the model per second before; `left_unasked`: records that left down the ladder because the
    breaker was open; `answered_after`: records that the model answered once the breaker had closed.
    """

    opened_at_s: float
    closed_at_s: float
    pace_per_s: float
    left_unasked: int
    answered_after: int

    @property
    def open_s(self) -> float:
        """How long the breaker was open."""
        return self.closed_at_s - self.opened_at_s

    def problems(self) -> list[str]:
        """Return whether records left faster than the model had answered before, and whether it answered again."""
        found = []
        left = f"{self.left_unasked} records left down the ladder in {self.open_s:.1f} s"
        if self.left_unasked > self.pace_per_s * self.open_s * PACE_SLACK_RATIO + PACE_SLACK_RECORDS:
            found.append(f"{left}, faster than the model's {self.pace_per_s:.0f}/s")
        if not self.answered_after:
            found.append("the model answered no record after its return")
        return found


def outage(outputs: Outputs, *, opened_at_s: float, closed_at_s: float) -> Outage:
    """Return what the topics tell about the time between these moments."""
    answered_at_s = [_produced_at_s(said) for _, said in _answers(outputs["enriched"])]
    return Outage(
        opened_at_s=opened_at_s,
        closed_at_s=closed_at_s,
        pace_per_s=_pace_per_s(answered_at_s, until_s=opened_at_s),
        left_unasked=sum(said.reason == BreakerOpen.reason for _, said in _answers(outputs["fallback"])),
        answered_after=sum(at_s > closed_at_s for at_s in answered_at_s),
    )


def _pace_per_s(answered_at_s: Iterable[float], *, until_s: float) -> float:
    """Return the model's answers per second before `until_s`, over what the breaker's window can have seen."""
    times_s = [at_s for at_s in answered_at_s if until_s - BREAKER_WINDOW_S < at_s <= until_s]
    return len(times_s) / max(1.0, max(times_s) - min(times_s)) if times_s else 0.0
