"""What calls came to that began in one round, and what their limit is worth.

Goodput is not counted, which with few answers, or answers that come in batches, is mostly noise. It is N times the
answers per second of a slot in use (Little's law).
"""

import math
from dataclasses import dataclass

WORTH, WORTH_AT, WORTH_GROWS = 0.1, 64, 0.25
"""Of 1 % more calls at once goodput must rise by 0.1 % with 64 of them, by a little more with many: 0.14 % with 256.
On an H200 with vLLM 0.22.1 it rises by 0.2 % up to 256 and falls from there on; 0.25 would stop at 64, with 76 % of the
answers. A little more with many, so that of several workers on one server those with many calls give up first."""

WORTH_FEW = 0.8
"""Divided by the calls, what goodput must rise by in addition: 0.2 % with four. A server that batches gives much more
for the first calls; one that works on one or four at a time gives nothing, and each more waits a whole latency."""

ENOUGH = 16
"""Calls before anything is decided."""

OVER_RATIO = 0.05
"""Calls above the user's latency ceiling that are one too many: it is a ceiling for the 95th percentile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What calls that began in a round came to."""

    limit: int = 0
    """How many calls might run at once."""
    calls: int = 0
    answers: int = 0
    lasted_s: float = 0.0
    """All of them together."""
    squares_s2: float = 0.0
    """Of how long each lasted, added up: how much that varies."""
    over: int = 0
    """Longer than the user's latency ceiling."""
    rounds: int = 1
    """How many it is made of."""

    def __add__(self, other: "Tally") -> "Tally":
        """Return both together. They are of one limit, or one of them is of nothing."""
        return Tally(
            limit=other.limit,
            calls=self.calls + other.calls,
            answers=self.answers + other.answers,
            lasted_s=self.lasted_s + other.lasted_s,
            squares_s2=self.squares_s2 + other.squares_s2,
            over=self.over + other.over,
            rounds=self.rounds + other.rounds,
        )

    @property
    def enough(self) -> bool:
        """Whether it may decide anything."""
        return self.calls >= ENOUGH and self.per_s > 0

    @property
    def mean_s(self) -> float:
        """How long a call took; infinity of none."""
        return self.lasted_s / self.calls if self.calls else math.inf

    @property
    def variance(self) -> float:
        """The square of the relative standard error of `mean_s`."""
        return max(0.0, self.squares_s2 * self.calls / self.lasted_s**2 - 1) / self.calls

    @property
    def per_s(self) -> float:
        """Goodput: answers per second with all of the limit in use."""
        return self.limit * self.answers / self.lasted_s if self.lasted_s else 0.0

    @property
    def utility(self) -> float:
        """What the limit is worth: the logarithm of its goodput, less what so many calls must earn."""
        if not self.per_s:
            return -math.inf
        many = WORTH / WORTH_GROWS * math.pow(self.limit / WORTH_AT, WORTH_GROWS)
        return math.log(self.per_s) - many + WORTH_FEW / self.limit

    @property
    def too_slow(self) -> bool:
        """Whether more than a twentieth was above the user's latency ceiling."""
        return self.over > OVER_RATIO * self.calls


NOTHING = Tally(rounds=0)
