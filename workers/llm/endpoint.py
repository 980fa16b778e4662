"""One URL of a model: its slots, its cool-down and its breaker. Plain decisions, no I/O, time passed in (monotonic)."""

import math
from dataclasses import dataclass

from workers.errors import BadAnswer, Busy, PenstockError, TimedOut
from workers.llm.auto_limit import IN_USE_RATIO, AutoLimit
from workers.llm.backoff import cool_down_s
from workers.llm.breaker import DOUBT, Breaker
from workers.llm.streak import Call, Streak

OUTAGE_REFUSALS = 3
"""So many refusals in a row, each after a pause and fewer calls, are no congestion: nobody is served."""


@dataclass(slots=True, eq=False)
class Grant:
    """The right to make one call: a slot that is held until it is settled or released, once."""

    endpoint: "Endpoint"
    epoch: int
    trial: bool
    call: Call
    held: bool = True

    @property
    def stands(self) -> bool:
        """Whether the breaker still says what it said when the slot was handed over."""
        return self.epoch == self.endpoint.breaker.epoch


class Endpoint:
    """Calls that may run now: `room`, which is `limit`, at most `slots`.

    While nothing but failures ends, the room is three: a server that hangs gets no further load of calls when the first
    one times out, and each of those would be a record that waits for nothing. The first answer gives it back.

    429 and 503 halve the limit and cool the endpoint down, for as long as the server asks, else for pauses that double
    while it goes on. One congestion, one cut: refusals of calls that began before the last cut change nothing, or 64
    calls refused together would cut it to one; nor does the trial of an open breaker, a single call. Refused again,
    with not one answer in between, one call at a time finds out as well as many. Answers give the limit back, one slot
    per answer up to what the cuts alone have left, and from there one per `limit` answers; after an outage one per
    answer, until it is what it was (TCP's slow start and congestion avoidance, RFC 5681).

    With `auto` the slots are what it asks for: they move after calls that ended. It is told of each cut, and many
    timeouts are one too; after a breaker that opened the calls come back as after an outage.

    `waking`: somebody warms it up, nobody else may ask. `last_used_s`: when a call last began or ended.
    """

    def __init__(self, index: int, label: str, slots: int, breaker: Breaker, *, auto: AutoLimit | None = None) -> None:
        self.index = index
        self.label = label
        self.slots = slots if auto is None else auto.limit
        self.breaker = breaker
        self.auto = auto
        self.in_use = 0
        self.limit = self.slots
        self._quick_below = self.slots
        self.cool_until_s = -math.inf
        self.waking = False
        self.last_used_s = math.inf
        self._credit = 0
        self._cut_at_s = -math.inf
        self._refusals = 0
        self._streak = Streak(breaker.enough_in_a_row)

    @property
    def room(self) -> int:
        """So many calls may run at once now."""
        return min(self.limit, DOUBT) if self.breaker.in_doubt else self.limit

    def admits(self, now_s: float) -> bool:
        """Return whether a call may begin now."""
        return self.in_use < self.room and now_s >= self.cool_until_s and not self.waking and self.breaker.admits(now_s)

    def works(self, now_s: float) -> bool:
        """Return whether calls may begin as soon as a slot is free."""
        return self.breaker.closed and now_s >= self.cool_until_s and not self.waking

    def sleeps(self, now_s: float, idle_s: float) -> bool:
        """Return whether nobody has used it for so long, though it worked."""
        return now_s - self.last_used_s > idle_s and not self.in_use and self.works(now_s)

    def admits_from_s(self) -> float:
        """Return the moment from which time alone lets a call begin; infinity when it takes the end of another call."""
        if self.waking or self.in_use >= self.room:
            return math.inf
        return max(self.cool_until_s, self.breaker.admits_from_s())

    def enter(self, now_s: float, *, again: bool = False) -> Grant:
        """Take a slot that `admits` allowed; `again`: for a record that has failed before, here or elsewhere."""
        trial = self.breaker.enter()
        self.in_use += 1
        self.last_used_s = now_s
        return Grant(self, self.breaker.epoch, trial, self._streak.begin(now_s, again=again))

    def release(self, grant: Grant) -> None:
        """Give a slot back without a verdict: cancelled, or not used. Without effect when it was settled."""
        if grant.held:
            grant.held = False
            self.in_use -= 1
            self._streak.leave_out(grant.call)
            self.breaker.abandon(grant.epoch, trial=grant.trial)

    def settle(self, grant: Grant, error: PenstockError | None, now_s: float) -> None:
        """Give a slot back after a call that ended with `error`, None for an answer."""
        grant.held = False
        self.in_use -= 1
        self.last_used_s = now_s
        epoch = self.breaker.epoch
        in_a_row = self._in_a_row(grant.call, error, now_s)
        self.breaker.record(grant.epoch, error, now_s, in_a_row=in_a_row, running=self.in_use)
        if epoch != self.breaker.epoch:
            self._streak.clear()
        fresh = grant.call.began_s >= self._cut_at_s
        if isinstance(error, Busy):
            self._cool(error, fresh=fresh, now_s=now_s)
        elif error is None and fresh:
            self._refusals = 0
            if grant.trial:
                self._quick_below = self.slots
            if self.limit < self.slots:
                self._grow()
        if self.auto is not None:
            self._follow(self.auto, grant, error, now_s)

    def _in_a_row(self, call: Call, error: PenstockError | None, now_s: float) -> bool:
        if isinstance(error, Busy):
            self._streak.leave_out(call)
        elif error is None or not error.blames_endpoint:
            self._streak.answer(call)
        else:
            return self._streak.fail(call, error.reason, now_s)
        return False

    def _cool(self, error: Busy, *, fresh: bool, now_s: float) -> None:
        fresh = fresh and self.breaker.closed
        if fresh:
            self._refusals += 1
            if self.auto is not None and self._refusals == 1:
                self.auto.refused(self.limit, "refused")
            elif self.auto is not None and self._refusals == OUTAGE_REFUSALS:
                self.auto.outage()
            self._cut(now_s)
            if self._refusals > 1:
                self.limit = 1
            if self._refusals >= OUTAGE_REFUSALS:
                self._quick_below = self.slots
        pause_s = error.retry_after_s
        if pause_s is None:
            # While the breaker is open its trials are pause enough: they find out when the endpoint is back.
            pause_s = cool_down_s(self._refusals) if fresh else 0.0
        self.cool_until_s = max(self.cool_until_s, now_s + pause_s)

    def _cut(self, now_s: float) -> None:
        self.limit = self._quick_below = max(1, self.limit // 2)
        self._credit = 0
        self._cut_at_s = now_s

    def _follow(self, auto: AutoLimit, grant: Grant, error: PenstockError | None, now_s: float) -> None:
        """Tell of a call that ended, and have the slots that follow from it."""
        full = self.in_use + 1 >= IN_USE_RATIO * self.slots
        if grant.trial and error is None:
            auto.outage()
            self.limit, self._quick_below = 1, self.slots
        elif isinstance(error, TimedOut) and self.breaker.closed and grant.call.began_s >= self._cut_at_s:
            if auto.timed_out(grant.call.began_s, now_s, full=full):
                auto.refused(self.limit, "timed_out")
                self._cut(now_s)
        elif not isinstance(error, Busy):
            answered = error is None or isinstance(error, BadAnswer)
            auto.ended(grant.call.began_s, now_s, answered=answered, full=full)
        if auto.limit != self.slots:
            self._resize(auto.limit)

    def _resize(self, slots: int) -> None:
        """Have so many slots; a limit that was cut grows on to there."""
        if self.limit >= self.slots or self.limit > slots:
            self.limit = slots
        if self._quick_below >= self.slots:
            self._quick_below = slots
        self.slots = slots

    def _grow(self) -> None:
        self._credit += 1
        if self._credit >= self.limit or self.limit < self._quick_below:
            self.limit += 1
            self._credit = 0
