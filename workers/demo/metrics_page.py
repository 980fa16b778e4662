"""A worker's /metrics as the demo reads them: the exposition text, and what a person wants to know of it."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

_LINE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')

BREAKER_STATES = {0: "closed", 1: "half-open", 2: "open"}
Series = tuple[str, dict[str, str], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One reading. `answered_by` counts finished records: by tier, and `dead letter` and `tombstone`.

    `breaker` is `closed`, `half-open` or `open`; `breaker_opened` says how often it has opened, by the reason.
    `model_answers` counts calls that brought a completion, `in_flight` is as old as the worker's own sampling (2 s).
    """

    answered_by: Counter[str] = field(default_factory=Counter)
    in_flight: int = 0
    calls_running: int = 0
    breaker: str = "closed"
    breaker_opened: Counter[str] = field(default_factory=Counter)
    model_answers: int = 0

    @property
    def done(self) -> int:
        """Finished records."""
        return self.answered_by.total()


def series(text: str) -> Iterator[Series]:
    """Yield every series of an exposition text (format 0.0.4): name, labels, value."""
    for name, labels, value in _LINE.findall(text):
        yield name, dict(_LABEL.findall(labels)), float(value)


def snapshot(text: str) -> Snapshot:
    """Return what an exposition text says."""
    answered_by: Counter[str] = Counter()
    opened: Counter[str] = Counter()
    sums: Counter[str] = Counter()
    for name, labels, value in series(text):
        match name:
            case "penstock_records_total":
                answered_by[_who(labels)] += int(value)
            case "penstock_breaker_opened_total":
                opened[labels["reason"]] += int(value)
            case "penstock_model_calls_total" if labels["outcome"] == "ok":
                sums["model_answers"] += int(value)
            case "penstock_in_flight_records" | "penstock_model_calls_running" | "penstock_breaker_state":
                sums[name] += int(value)
    return Snapshot(
        answered_by=answered_by,
        in_flight=sums["penstock_in_flight_records"],
        calls_running=sums["penstock_model_calls_running"],
        breaker=BREAKER_STATES[sums["penstock_breaker_state"]],  # the demo's model has one endpoint
        breaker_opened=opened,
        model_answers=sums["model_answers"],
    )


def _who(labels: dict[str, str]) -> str:
    return labels["tier"] or {"rejected": "dead letter", "erased": "tombstone"}[labels["outcome"]]
