"""Failures in a row, in the order in which the calls BEGAN. Plain decisions, time passed in (monotonic).

The order in which they end misleads twice: answers to calls from before an outage still come during it, and a failure
may be quicker than an answer, so that of a hundred calls begun together the ten that fail end first.
"""

import math
from collections import deque
from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Call:
    """One call. `counts` unless it is for a record that has failed before, and may itself be to blame."""

    number: int
    began_s: float
    counts: bool
    ended_s: float = math.inf
    reason: str = ""
    left_out: bool = False


class Streak:
    """The calls that began after the last one that was answered (of the answered ones, the last to begin).

    A streak is `enough` of them, one begun after the other, that have all failed; one that still runs ends it. It must
    also be more than one moment: a stall, or a restart, fails all calls that ran side by side, and the server may be
    well again. So the last of the streak has to have begun after another one had failed in the same way.

    With a share p of calls that fail each by itself it is found once in p ** -enough calls, however long they take.
    """

    def __init__(self, enough: int) -> None:
        self._enough = enough
        self._calls: deque[Call] = deque()
        self._left_out = 0
        self._begun = 0

    def begin(self, now_s: float, *, again: bool) -> Call:
        """Note a call; `again`: for a record that has failed before."""
        self._begun += 1
        call = Call(self._begun, now_s, counts=not again)
        self._calls.append(call)
        return call

    def answer(self, call: Call) -> None:
        """End a call that shows that the server worked: what began before it says nothing any more."""
        while self._calls and self._calls[0].number <= call.number:
            self._calls.popleft()

    def leave_out(self, call: Call) -> None:
        """End a call that says neither that the server works nor that it does not."""
        # Not taken out one by one: a revoke leaves out all that run, each of which would be looked for.
        call.left_out = True
        self._left_out += 1
        if 2 * self._left_out > len(self._calls):
            self._calls = deque(other for other in self._calls if not other.left_out)
            self._left_out = 0

    def fail(self, call: Call, reason: str, now_s: float) -> bool:
        """End a call that failed; return whether there is a streak."""
        if not call.counts:
            self.leave_out(call)
        call.ended_s, call.reason = now_s, reason
        return len(self._calls) >= self._enough and self._found()

    def clear(self) -> None:
        """Start anew; calls that run now do not count any more."""
        self._calls.clear()

    def _found(self) -> bool:
        count = 0
        failed_from_s: dict[str, float] = {}
        for call in self._calls:
            if call.left_out:
                continue
            if call.ended_s == math.inf:
                count = 0
                failed_from_s.clear()
                continue
            count += 1
            first_s = failed_from_s.get(call.reason, math.inf)
            if count >= self._enough and call.began_s >= first_s:
                return True
            failed_from_s[call.reason] = min(first_s, call.ended_s)
        return False
