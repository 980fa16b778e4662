"""How fast records may leave down the ladder while the model is away: no faster than the model answered before."""

from collections.abc import Callable

from workers.clock import monotonic_s


class Pace:
    """Hands out turns, one per 1/rate seconds. A 10 s outage must not turn a backlog of a million into rules."""

    def __init__(self, *, unlimited: bool, clock: Callable[[], float] = monotonic_s) -> None:
        self._unlimited = unlimited
        self._clock = clock
        self._next_at_s = 0.0

    def turn_s(self, rate_per_s: float) -> float:
        """Take the next turn and return the seconds until it comes."""
        if self._unlimited:
            return 0.0
        now_s = self._clock()
        at_s = max(now_s, self._next_at_s)
        self._next_at_s = at_s + 1.0 / rate_per_s
        return at_s - now_s

    def give_back(self, rate_per_s: float) -> None:
        """Return a turn that was not used because the model came back."""
        if not self._unlimited:
            self._next_at_s -= 1.0 / rate_per_s
