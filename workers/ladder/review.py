"""The rung that asks a person, as often as persons can look."""

from collections import deque
from collections.abc import Callable
from typing import Any

from workers import metrics
from workers.errors import PenstockError
from workers.ports import DECLINED
from workers.records import Request

_HOUR_S = 3_600.0


class Review:
    """Flags records for review, without enrichment: at most `max_per_hour` in any hour, per replica.

    It remembers when it asked: a bucket that starts full would let twice the limit through in its first hour.
    """

    tier = "review"

    def __init__(self, max_per_hour: int, *, clock: Callable[[], float], task_name: str) -> None:
        self._asked_at_s: deque[float] = deque(maxlen=max_per_hour)
        self._clock = clock
        self._suppressed = metrics.REVIEW_SUPPRESSED.labels(task_name)

    def answer(self, request: Request, error: PenstockError) -> Any:  # noqa: ARG002 - the port's shape
        """Return None (no enrichment, a person decides), or `DECLINED` when the hour is full."""
        now_s = self._clock()
        if len(self._asked_at_s) == self._asked_at_s.maxlen and now_s - self._asked_at_s[0] < _HOUR_S:
            self._suppressed.inc()
            return DECLINED
        self._asked_at_s.append(now_s)
        return None
