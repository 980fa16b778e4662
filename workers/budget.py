"""What a task has used today, and whether it may use more. Decides; nothing here waits or asks."""

from collections.abc import Callable, Mapping
from typing import Literal

from workers import clock
from workers.settings.budget import BudgetSettings

Kind = Literal["tokens", "usd"]

DAY_S = 86_400
BYTES_PER_TOKEN = 3
"""Of a server that counts no tokens. English has about four bytes a token, JSON and other scripts fewer."""


class Budget:
    """The limits of one task on this replica, and what is used of them since midnight UTC.

    A limit is the configured one times this replica's share of the task's partitions; the whole of it until the first
    assignment, when no record has come yet. A call may be made while less than the limit is used, so that n calls at
    the same time pass it by less than n times the largest of them.

    The day only goes forward: a wall clock that is set back refills nothing, and a day that has begun too early is
    not begun again.
    """

    def __init__(self, settings: BudgetSettings, wall_s: Callable[[], float] = clock.wall_s) -> None:
        limits: dict[Kind, float | None] = {"tokens": settings.tokens_per_day, "usd": settings.usd_per_day}
        self.when_spent = settings.when_spent
        self.stopped_by: str | None = None
        """Why the task has stopped (`when_spent: stop`). Only a restart clears it: a person has to decide."""
        self._limits: dict[Kind, float] = {kind: limit for kind, limit in limits.items() if limit is not None}
        self._used: dict[Kind, float] = dict.fromkeys(self._limits, 0.0)
        self._share = 1.0
        self._wall_s = wall_s
        self._day = int(wall_s() // DAY_S)
        self._told: set[Kind] = set()

    def take_share(self, owned: int, partitions: int) -> None:
        """Note that this replica now has `owned` of the `partitions` of the task; nothing when none is known."""
        if partitions > 0:
            self._share = owned / partitions

    @property
    def idle(self) -> bool:
        """Whether this replica has no partition: then nothing may be used, and nobody waits for it."""
        return self._share == 0

    def charge(self, tokens: int, usd: float) -> None:
        """Add what an answered call used."""
        self._begin_day()
        for kind, amount in (("tokens", tokens), ("usd", usd)):
            if kind in self._used:
                self._used[kind] += amount

    def refuses(self, *, costs: bool) -> Kind | None:
        """Return the limit that forbids a call, None while it may be made. `costs`: whether its model has a price."""
        self._begin_day()
        for kind, limit in self._limits.items():
            if self._used[kind] >= limit * self._share and (costs or kind == "tokens"):
                return kind
        return None

    def spent_ratios(self) -> Mapping[Kind, float]:
        """Return how much of each limit is used: 1 and more is spent. 0 while no partition is assigned."""
        self._begin_day()
        return {
            kind: self._used[kind] / (limit * self._share) if not self.idle else 0.0
            for kind, limit in self._limits.items()
        }

    def says(self, kind: Kind) -> str:
        """Return in words that a limit is spent."""
        return (
            f"{kind}_per_day is spent: {self._used[kind]:.10g} of {self._limits[kind] * self._share:.10g}, "
            f"this replica's share of {self._limits[kind]:.10g}"
        )

    def first_refusal(self, kind: Kind) -> bool:
        """Return whether this is the first time today that it is asked: a log needs one line, not one a record."""
        if kind in self._told:
            return False
        self._told.add(kind)
        return True

    def _begin_day(self) -> None:
        day = int(self._wall_s() // DAY_S)
        if day > self._day:
            self._day = day
            self._used = dict.fromkeys(self._limits, 0.0)
            self._told.clear()


def tokens_used(asked: bytes, said: str, input_tokens: int = 0, output_tokens: int = 0) -> tuple[int, int]:
    """Return input and output tokens of an answered call: the server's count, an estimate where it is 0.

    Each for itself: a server that has the prompt in its cache may leave out the one and not the other.
    """
    return (
        input_tokens or estimated_tokens(asked),
        output_tokens or estimated_tokens(said.encode("utf-8", "replace")),
    )


def estimated_tokens(text: bytes) -> int:
    """Return about how many tokens a text has, rounded up."""
    return -(-len(text) // BYTES_PER_TOKEN)
