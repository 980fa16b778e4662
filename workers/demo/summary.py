"""The demo's result: what programs get as JSON, what the report shows, and whether the demo has kept its promise."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from workers.audit import End, Verdict
from workers.demo.figures import Outage, Spread
from workers.demo.samples import Sample


@dataclass(slots=True, kw_only=True)
class Summary:
    """One run. `lag` is read from the broker's committed offsets; None: not got so far. `code` is the exit code."""

    broker: str
    model: str
    simulated: list[str]
    records: int
    verdict: Verdict | None = None
    lag: int | None = None
    latencies: Mapping[str, Spread] = field(default_factory=dict)
    outage: Outage | None = None
    samples: list[Sample] = field(default_factory=list)
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)
    code: int = 0

    def fail(self, problem: str, code: int = 1) -> None:
        """Note what is wrong; the first one's code is the exit code."""
        self.problems.append(problem)
        self.code = self.code or code

    def as_json(self) -> dict[str, Any]:
        """Return one JSON object; `ok` says it all."""
        verdict, outage = self.verdict, self.outage
        return {
            "ok": not self.problems,
            "problems": self.problems,
            "broker": self.broker,
            "model": self.model,
            "simulated": self.simulated,
            "seconds": round(self.seconds, 1),
            "records": self.records,
            "outcomes": [
                {"outcome": end.outcome, "tier": end.tier or None, "reason": end.reason or None, "records": count}
                for end, count in (sorted_ends(verdict) if verdict else [])
            ],
            "lost": len(verdict.lost) if verdict else None,
            "repeated": len(verdict.repeated) if verdict else None,
            "review_copies": verdict.review_copies if verdict else None,
            "lag": self.lag,
            "latency_s": {what: asdict(spread) for what, spread in self.latencies.items()},
            "outage": outage
            and {
                "breaker_open_s": round(outage.open_s, 2),
                "pace_before_per_s": round(outage.pace_per_s, 1),
                "left_unasked": outage.left_unasked,
                "answered_after": outage.answered_after,
            },
        }


def sorted_ends(verdict: Verdict) -> list[tuple[End, int]]:
    """Return the ends in the order of the ladder: the model's, then rung by rung, then dead letters and tombstones."""
    order = ("model", "rules", "review", "skip", "default", "")
    return sorted(
        verdict.ends.items(), key=lambda one: (order.index(one[0].tier), one[0].outcome != "rejected", one[0].reason)
    )
