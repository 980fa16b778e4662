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
    """One reading; the worker renders its page once a second. `breaker` is `closed`, `half-open` or `open`.

    `answered_by` counts finished records: by tier, and `dead letter` and `tombstone`. `in_flight` is sampled by the
    worker every 2 s.
    """

    answered_by: Counter[str] = field(default_factory=Counter)
    in_flight: int = 0
    breaker: str = "closed"

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
    in_flight = breaker = 0
    for name, labels, value in series(text):
        match name:
            case "penstock_records_total":
                answered_by[_who(labels)] += int(value)
            case "penstock_in_flight_records":
                in_flight += int(value)
            case "penstock_breaker_state":
                breaker = max(breaker, int(value))
    return Snapshot(answered_by=answered_by, in_flight=in_flight, breaker=BREAKER_STATES[breaker])


def _who(labels: dict[str, str]) -> str:
    return labels["tier"] or {"rejected": "dead letter", "erased": "tombstone"}[labels["outcome"]]
