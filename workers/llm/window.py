"""What an endpoint did in the last seconds, in one-second buckets: the breaker's ratio and the model's pace."""

from collections import deque


class Window:
    """Counts calls, failures and answers over `span_s` seconds. Adding costs a comparison and a few sums.

    The rate of answers is measured from `enough` answers on and then kept: seconds in which nothing was answered, an
    outage for one, do not pull it down.
    """

    def __init__(self, span_s: float, enough: int) -> None:
        self._span_s = span_s
        self._enough = enough
        self._buckets: deque[_Bucket] = deque()
        self._last_answer_s = 0.0
        self._rate_per_s: float | None = None
        self.calls = 0
        self.failures = 0
        self.answers = 0

    def add(self, now_s: float, *, failed: bool = False, answered: bool = False) -> None:
        """Count one call that ended now."""
        second = int(now_s)
        if not self._buckets or self._buckets[-1].second != second:
            self._turn(now_s, second)
        bucket = self._buckets[-1]
        bucket.calls += 1
        self.calls += 1
        if failed:
            bucket.failures += 1
            self.failures += 1
        elif answered:
            bucket.answers += 1
            self.answers += 1
            self._last_answer_s = now_s

    def rate_per_s(self) -> float | None:
        """Return the last measured rate of answers, None before any measurement."""
        if self.answers >= self._enough:
            self._rate_per_s = self.answers / max(1.0, self._last_answer_s - self._buckets[0].opened_at_s)
        return self._rate_per_s

    def forget(self) -> None:
        """Start counting anew; the measured rate stays."""
        self.rate_per_s()
        self._buckets.clear()
        self.calls = self.failures = self.answers = 0

    def _turn(self, now_s: float, second: int) -> None:
        self.rate_per_s()
        while self._buckets and self._buckets[0].second <= now_s - self._span_s:
            old = self._buckets.popleft()
            self.calls -= old.calls
            self.failures -= old.failures
            self.answers -= old.answers
        self._buckets.append(_Bucket(second, now_s))


class _Bucket:
    __slots__ = ("answers", "calls", "failures", "opened_at_s", "second")

    def __init__(self, second: int, opened_at_s: float) -> None:
        self.second = second
        self.opened_at_s = opened_at_s
        self.calls = self.failures = self.answers = 0
