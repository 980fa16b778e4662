"""At most so many lines of one template per period, and afterwards one line that says how many were left out."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

Template = tuple[str, str]
"""Logger and template (stdlib) or event (ours)."""

MAX_TEMPLATES = 1_024
"""Templates counted at once; those beyond share one count, so that formatted texts cannot fill the memory."""
OTHERS: Template = ("", "other templates")


@dataclass(slots=True)
class _Period:
    ends_at_s: float
    admitted: int = 0
    suppressed: int = 0


class RateLimit:
    """Counts lines per template. Safe to use from several threads."""

    def __init__(self, *, period_s: float, clock: Callable[[], float]) -> None:
        self._period_s = period_s
        self._clock = clock
        self._periods: dict[Template, _Period] = {}
        self._next_sweep_s = clock() + period_s
        self._lock = threading.Lock()

    def admit(self, template: Template, burst: int) -> bool:
        """Return whether a line of this template may pass; the first `burst` of a period may."""
        now_s = self._clock()
        with self._lock:
            if template not in self._periods and len(self._periods) >= MAX_TEMPLATES:
                template = OTHERS
            period = self._periods.get(template)
            if period is None:
                period = self._periods[template] = _Period(now_s + self._period_s)
            if period.admitted < burst:
                period.admitted += 1
                return True
            period.suppressed += 1
            return False

    def suppressed(self, *, everything: bool = False) -> list[tuple[Template, int]]:
        """Forget the periods that have ended (or all) and return what they suppressed. Cheap when nothing is due."""
        now_s = self._clock()
        if now_s < self._next_sweep_s and not everything:
            return []
        with self._lock:
            ended = [name for name, period in self._periods.items() if everything or period.ends_at_s <= now_s]
            counts = [(name, self._periods.pop(name).suppressed) for name in ended]
            self._next_sweep_s = min((period.ends_at_s for period in self._periods.values()), default=now_s)
        return [(name, count) for name, count in counts if count]
