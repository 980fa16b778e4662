"""A call that belongs to nobody: it runs for all who are aboard, and ends with the last of them."""

import asyncio
from collections.abc import Callable, Coroutine
from copy import copy
from dataclasses import dataclass
from typing import Any, Self

from workers.clock import monotonic_s
from workers.errors import PenstockError, Stale
from workers.records import Passage, Reply


class JointPassage(Passage):
    """The passage of such a call: its clock and its being busy are those of everybody aboard."""

    __slots__ = ("aboard",)

    def __init__(self, deadline_s: float) -> None:
        super().__init__(deadline_s)
        self.aboard: list[Passage] = []

    def begin(self, now_s: float) -> None:
        """Start everybody's deadline."""
        super().begin(now_s)
        for passage in self.aboard:
            passage.begin(now_s)

    def occupy(self) -> None:
        """Let a revoke or a drain wait for everybody aboard."""
        super().occupy()
        for passage in self.aboard:
            passage.occupy()

    def free(self) -> None:
        """Let a revoke or a drain cancel everybody aboard."""
        super().free()
        for passage in self.aboard:
            passage.free()


@dataclass(slots=True, eq=False)
class JointCall:
    """One call for several records. `payer` is the record whose reply counts its attempts.

    - The deadline is that of the call, from its first slot: nobody waits longer than alone.
    - A failure is everybody's: each gets a copy of the error, and the task's rules say for each what follows.
    - `max_age_s` is of the record: it leaves alone while the call still waits for a slot.
    - Cancelled, a record leaves alone; the call is cancelled with the last one, and its slot is free when that returns.
    - Breaker and metrics see the one call.
    """

    call: asyncio.Task[Reply]
    passage: JointPassage
    payer: Passage

    @classmethod
    def start(cls, make: Callable[[JointPassage], Coroutine[Any, Any, Reply]], payer: Passage) -> Self:
        """Start the call; `payer` has to `ride` next."""
        passage = JointPassage(payer.deadline_s)
        passage.unretried = payer.unretried
        call = asyncio.create_task(make(passage))
        call.add_done_callback(_noted)
        return cls(call, passage, payer)

    @property
    def over(self) -> bool:
        """Whether it has ended, or is ending because everybody has left."""
        return self.call.done() or self.call.cancelling() > 0

    async def ride(self, passage: Passage) -> Reply:
        """Come aboard, and return the call's reply.

        Raises:
            Stale: the record grew too old before the call began.
            PenstockError: this record's own copy of the call's: tracebacks and causes are not shared.
        """
        joint = self.passage
        if joint.ends_at_s is not None:
            passage.begin(monotonic_s())
            if joint.busy:
                passage.occupy()
        joint.aboard.append(passage)
        try:
            await self._landed(passage)
        finally:
            await self._leave(passage)
        error = self.call.exception()
        if isinstance(error, PenstockError):
            raise copy(error) from error.__cause__
        return self.call.result()

    async def _landed(self, passage: Passage) -> None:
        if passage.stale_at_s is not None:
            await asyncio.wait([self.call], timeout=max(0.0, passage.stale_at_s - monotonic_s()))
            if not self.call.done() and self.passage.ends_at_s is None:
                raise Stale("grew too old while it waited for the model")
        await asyncio.wait([self.call])

    async def _leave(self, passage: Passage) -> None:
        """Go from board; the last one takes the call along."""
        aboard = self.passage.aboard
        aboard[:] = [other for other in aboard if other is not passage]  # Passage compares by value
        passage.free()
        if self.payer is passage:
            if aboard and not self.call.done():
                self.payer = aboard[0]
            else:
                passage.attempts += self.passage.attempts
        if not aboard and not self.call.done():
            self.call.cancel()
            await asyncio.wait([self.call])


def _noted(call: asyncio.Task[Reply]) -> None:
    """Take note of a failure: everybody may have left in this very moment, and asyncio would log it as lost."""
    if not call.cancelled():
        call.exception()
