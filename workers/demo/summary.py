"""The demo's result: what programs get as JSON, what the report shows, and whether the demo has kept its promise."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from workers.demo.account import Account, End
from workers.demo.figures import Outage, Spread
from workers.demo.samples import Sample


@dataclass(slots=True, kw_only=True)
class Summary:
    """One run. `lag` is read from the broker's committed offsets; None: not got so far. `code` is the exit code."""

    broker: str
    model: str
    simulated: list[str]
    records: int
    account: Account | None = None
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
        account, outage = self.account, self.outage
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
                for end, count in (sorted_ends(account) if account else [])
            ],
            "lost": len(account.lost) if account else None,
            "repeated": len(account.repeated) if account else None,
            "review_copies": account.review_copies if account else None,
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


def sorted_ends(account: Account) -> list[tuple[End, int]]:
    """Return the ends in the order of the ladder: the model's, then rung by rung, then dead letters and tombstones."""
    order = ("model", "rules", "review", "skip", "default", "")
    return sorted(
        account.ends.items(), key=lambda one: (order.index(one[0].tier), one[0].outcome != "rejected", one[0].reason)
    )
