"""One timer for all calls: set for the earliest time that something may be due, and then everything is looked at."""

import asyncio
from collections.abc import Callable

from workers.clock import monotonic_s

GRAIN_S = 0.02
"""Never looked at more often: a call may end this much later than its timeout."""


class Sweeper:
    """Calls `sweep(now_s)`, which returns when it wants to be called next (infinity: not), at most every `GRAIN_S`."""

    def __init__(self, sweep: Callable[[float], float]) -> None:
        self._sweep = sweep
        self._due_s = float("inf")
        self._timer: asyncio.TimerHandle | None = None

    def by(self, at_s: float) -> None:
        """Look at `at_s` (monotonic) at the latest."""
        if at_s < self._due_s:
            self.stop()
            self._due_s = at_s
            self._timer = asyncio.get_running_loop().call_later(max(0.0, at_s - monotonic_s()), self._run)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._due_s = None, float("inf")

    def _run(self) -> None:
        self._timer, self._due_s = None, float("inf")
        now_s = monotonic_s()
        next_s = self._sweep(now_s)
        if next_s != float("inf"):
            self.by(max(next_s, now_s + GRAIN_S))
