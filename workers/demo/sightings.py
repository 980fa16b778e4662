"""What the demo has to see happen while it runs: the breaker in the worker's log, the ladder in its metrics."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from workers.demo.metrics_page import Snapshot

OPENED = "breaker_opened"
CLOSED = "breaker_closed"
RUNGS = {
    "rules": "the rules answer",
    "review": "what no rule knows goes to review, with a copy for a person",
    "default": "past the hour's reviews the default answers",
}
WHILE_AWAY = (OPENED, *RUNGS)
SENTENCES = {OPENED: "the breaker opened", **RUNGS, CLOSED: "the breaker closed"}

Logged = Callable[[str], Iterable[dict[str, Any]]]


@dataclass(slots=True)
class Sightings:
    """Finds what is new each time that somebody looks."""

    seen: set[str] = field(default_factory=set)

    def look(self, logged: Logged, now: Snapshot | None) -> Iterator[str]:
        """Yield a sentence for each thing that is new; `logged` gives the lines of the log that tell of something."""
        for line in logged(OPENED):
            if self._first(OPENED):
                yield f"the breaker opened ({line['reason']}): no more calls, but for a trial each second"
        for rung, sentence in RUNGS.items():
            if now is not None and now.answered_by[rung] and self._first(rung):
                yield sentence
        if any(logged(CLOSED)) and self._first(CLOSED):
            yield "the breaker closed: a trial was answered, the model is asked again"

    def has(self, *things: str) -> bool:
        """Return whether all of these have been seen."""
        return self.seen.issuperset(things)

    def missing(self) -> list[str]:
        """Return what was never seen, one sentence each."""
        return [f"never seen at the worker: {what}" for thing, what in SENTENCES.items() if thing not in self.seen]

    def _first(self, thing: str) -> bool:
        new = thing not in self.seen
        self.seen.add(thing)
        return new
