"""The awaiting part of admission: a future per waiter and one timer per model. What is decided is in `line`."""

import asyncio
import math
from collections.abc import Callable, Collection, Sequence

from workers.clock import monotonic_s
from workers.errors import PenstockError
from workers.llm.endpoint import Endpoint, Grant
from workers.llm.line import Line, Waiter
from workers.records import Passage


class Admission:
    """Hands out the slots of a model's endpoints. For one event loop."""

    def __init__(self, endpoints: Sequence[Endpoint], clock: Callable[[], float] = monotonic_s) -> None:
        self.line = Line(endpoints)
        self._clock = clock
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_s = math.inf

    def take(self, failed: Collection[Endpoint] = ()) -> Grant | None:
        """Return a slot if one can be had without waiting."""
        return self.line.take(failed, self._clock())

    async def wait(
        self, passage: Passage, wait_s: float, *, failed: Collection[Endpoint] = (), last: bool = False
    ) -> Grant:
        """Return a slot as soon as one is handed over.

        Raises:
            BreakerOpen, Misconfigured: `wait_s` passed while no endpoint's breaker was closed.
            DeadlineOver, Stale: the passage's time ended first.

        Cancellation leaves the line, and passes on a slot that was handed over in the same moment.
        """
        while True:
            grant = await self._line_up(passage, wait_s, failed=failed, last=last)
            if grant.stands:
                return grant
            # The breaker opened between hand-over and wake-up: open means that nobody asks.
            self.release(grant)

    def settle(self, grant: Grant, error: PenstockError | None) -> None:
        """Give a slot back after a call that ended with `error`, None for an answer."""
        self.line.settle(grant, error, self._clock())
        self._set_timer()

    def release(self, grant: Grant) -> None:
        """Give a slot back without a verdict. Without effect when it was settled."""
        if grant.held:
            self.line.release(grant, self._clock())
            self._set_timer()

    def woken(self, endpoint: Endpoint) -> None:
        """Let in who waits for an endpoint that somebody has warmed up."""
        endpoint.waking, endpoint.last_used_s = False, self._clock()
        self.line.advance(endpoint.last_used_s)
        self._set_timer()

    def close(self) -> None:
        """Stop the timer; whoever still waits has to be cancelled by its owner."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._timer_at_s = None, math.inf

    async def _line_up(self, passage: Passage, wait_s: float, *, failed: Collection[Endpoint], last: bool) -> Grant:
        future: asyncio.Future[Grant | PenstockError] = asyncio.get_running_loop().create_future()
        now_s = self._clock()
        waiter = Waiter(future, passage, wait_s, now_s, failed, last)
        self.line.join(waiter, now_s)
        self._set_timer()
        try:
            verdict = await future
        except asyncio.CancelledError:
            self.line.leave(waiter, self._clock())
            self._set_timer()
            raise
        if isinstance(verdict, PenstockError):
            raise verdict
        return verdict

    def _set_timer(self) -> None:
        wake_at_s = self.line.wake_at_s
        if wake_at_s == self._timer_at_s:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_at_s = wake_at_s
        if wake_at_s < math.inf:
            pause_s = max(0.0, wake_at_s - self._clock())
            self._timer = asyncio.get_running_loop().call_later(pause_s, self._wake)

    def _wake(self) -> None:
        self._timer, self._timer_at_s = None, math.inf
        self.line.advance(self._clock())
        self._set_timer()
