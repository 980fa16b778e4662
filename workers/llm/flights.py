"""One call for identical requests: what asks the same, byte for byte, while it runs, waits for the same answer."""

import asyncio
import math
from copy import copy
from dataclasses import dataclass, replace

from workers import metrics
from workers.clock import monotonic_s
from workers.errors import PenstockError, Stale
from workers.llm.before import Before
from workers.ports import Model
from workers.records import Passage, Prompt, Reply

_Key = tuple[bytes, float, float]


class _Common(Passage):
    """The passage of a flight: what happens to it happens to everybody aboard."""

    __slots__ = ("aboard",)

    def __init__(self, deadline_s: float) -> None:
        self.aboard: list[Passage] = []
        super().__init__(deadline_s)

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        if name == "busy":
            for passage in self.aboard:
                passage.busy = bool(value)

    def begin(self, now_s: float) -> None:
        super().begin(now_s)
        for passage in self.aboard:
            passage.begin(now_s)


@dataclass(slots=True, eq=False)
class _Flight:
    """A call that belongs to nobody. `payer` is the record whose reply counts its attempts and tokens."""

    call: asyncio.Task[Reply]
    passage: _Common
    payer: Passage

    def takes(self, now_s: float) -> bool:
        """Whether another may still come aboard: no attempt has failed, and half of the deadline is left at least."""
        at_first = self.passage.attempts == 0 or (self.passage.attempts == 1 and self.passage.busy)
        return at_first and not self.call.done() and 2 * self.passage.left_s(now_s) >= self.passage.deadline_s


class SingleFlight(Before):
    """A `Model` (workers.ports) before another. Identical requests that run at the same time share one call.

    - Only requests of equal patience (`wait_s`) and equal `deadline_s` share, and only those that have not begun: a
      second ask goes alone. So what the call may do is what each would have been allowed to do by itself.
    - The deadline is that of the flight, from its first slot: nobody waits longer than alone. One who came aboard
      late may be told of a failure up to one call's time sooner; hence `takes`.
    - A failure is everybody's: each gets a copy of the error, and the task's rules say for each what follows.
    - `max_age_s` is of the record: it leaves alone while the flight still waits for a slot.
    - Cancelled, a record leaves alone; the call is cancelled with the last one, and its slot is free when that returns.
    - Breaker, metrics and tokens see the one call. The other replies say `shared`, with no attempt and no tokens.
    """

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self._flights: dict[_Key, _Flight] = {}
        self._shared = metrics.CALLS_SHARED.labels(self.name)

    async def complete(self, prompt: Prompt, passage: Passage, *, wait_s: float) -> Reply:
        """Return the answer of the one call. The contract is in `workers.ports.Model`."""
        if passage.ends_at_s is not None or wait_s not in (0.0, math.inf):
            return await self._model.complete(prompt, passage, wait_s=wait_s)
        key = (prompt.body, wait_s, passage.deadline_s)
        flight = self._flights.get(key)
        now_s = monotonic_s()
        if flight is None or not flight.takes(now_s):
            flight = self._start(key, prompt, passage)
        elif flight.passage.ends_at_s is not None:
            passage.begin(now_s)
            passage.busy = flight.passage.busy
        flight.passage.aboard.append(passage)
        try:
            await _landed(flight, passage)
        finally:
            await self._leave(key, flight, passage)
        return self._reply(flight, passage)

    def _start(self, key: _Key, prompt: Prompt, payer: Passage) -> _Flight:
        common = _Common(payer.deadline_s)
        call = asyncio.create_task(self._model.complete(prompt, common, wait_s=key[1]))
        flight = self._flights[key] = _Flight(call, common, payer)
        call.add_done_callback(lambda _: self._after(key, flight))
        return flight

    def _after(self, key: _Key, flight: _Flight) -> None:
        self._close(key, flight)
        if not flight.call.cancelled():
            flight.call.exception()  # Everybody may have left in this very moment: asyncio would log it as lost.

    async def _leave(self, key: _Key, flight: _Flight, passage: Passage) -> None:
        """Go from board; the last one takes the call along."""
        aboard = flight.passage.aboard
        aboard[:] = [other for other in aboard if other is not passage]  # Passage compares by value
        passage.busy = False
        if flight.payer is passage:
            if aboard and not flight.call.done():
                flight.payer = aboard[0]
            else:
                passage.attempts += flight.passage.attempts
        if not aboard and not flight.call.done():
            self._close(key, flight)
            flight.call.cancel()
            await asyncio.wait([flight.call])

    def _close(self, key: _Key, flight: _Flight) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]

    def _reply(self, flight: _Flight, passage: Passage) -> Reply:
        """Return this record's own reply, or raise its own copy of the error: tracebacks and causes are not shared."""
        error = flight.call.exception()
        if isinstance(error, PenstockError):
            raise copy(error) from error.__cause__
        reply = flight.call.result()
        if flight.payer is passage:
            return replace(reply, attempts=passage.attempts)
        self._shared.inc()
        return replace(reply, shared=True, attempts=passage.attempts, input_tokens=0, output_tokens=0)


async def _landed(flight: _Flight, passage: Passage) -> None:
    """Return when the call has ended.

    Raises:
        Stale: the record grew too old before the call began.
    """
    if passage.stale_at_s is not None:
        await asyncio.wait([flight.call], timeout=max(0.0, passage.stale_at_s - monotonic_s()))
        if not flight.call.done() and flight.passage.ends_at_s is None:
            raise Stale("grew too old while it waited for the model")
    await asyncio.wait([flight.call])
