"""The guard against a bad deployment: a wrong prompt or schema must not drain a topic into the dead-letter topic."""

from workers.errors import Paused, PenstockError

BUDGET = 20
SUCCESSES_PER_REFILL = 20

OURS = frozenset({"prompt", "route", "internal", "parse"})
"""Stages whose failures are made by the deployment. `decode` failures are the producers', `call` the model's."""


class Guard:
    """How many more rejects of our own making a task may produce: 20, refilled by one per 20 successes.

    It decides before the dead letter is produced, in one synchronous step, so that no reject in flight slips by.
    """

    def __init__(self, *, with_decode: bool = False) -> None:
        self._stages = OURS | {"decode"} if with_decode else OURS
        self._successes = 0
        self.budget = BUDGET
        self.tripped_by: str | None = None
        """Why the task is paused, None while it is not. Only a restart clears it: a person has to look."""

    def allow(self, error: PenstockError) -> None:
        """Take one reject from the budget.

        Raises:
            Paused: the budget is spent; this reject must be neither produced nor acked.
        """
        if error.stage not in self._stages:
            return
        if self.budget == 0 or self.tripped_by is not None:
            self.tripped_by = self.tripped_by or f"{error.stage}: {error.reason}: {error}"[:300]
            raise Paused(self.tripped_by)
        self.budget -= 1

    def succeeded(self) -> None:
        """Note an output that was no reject."""
        if self.budget < BUDGET:
            self._successes += 1
            if self._successes >= SUCCESSES_PER_REFILL:
                self._successes = 0
                self.budget += 1
