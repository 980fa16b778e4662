"""Ends a worker whose Kafka client is stuck while Kafka is well: only a new process helps, and a supervisor starts one.

The sign: the client gets no answer for long, and a fresh one gets answers to the same questions. Kafka itself being
away is never a reason.
"""

import asyncio
from collections.abc import Awaitable, Callable

from aiokafka.errors import KafkaError

from workers.clock import monotonic_s
from workers.errors import EX_SOFTWARE, Exit
from workers.log import get_logger
from workers.stream.assignment import Assignment
from workers.stream.lag import Lag

LOOK_EVERY_S = 5.0
QUIET_S = 30.0
"""So long without an answer before a fresh client is asked: shorter silences are ordinary."""
STUCK_S = 120.0
"""So long a fresh client must have been answered, and this one not, beyond the longest time that aiokafka itself waits
for one answer (its request timeout): after that it would have tried again on a new connection."""
ANSWER_MAX_S = 10.0

log = get_logger(__name__)


class Watchdog:
    """Looks every 5 s. `answers` asks a fresh client, and raises KafkaError or OSError when the cluster is not well."""

    def __init__(
        self,
        assignment: Assignment,
        lag: Lag,
        answers: Callable[[], Awaitable[object]],
        request_timeout_s: float,
        *,
        clock: Callable[[], float] = monotonic_s,
    ) -> None:
        self._assignment = assignment
        self._lag = lag
        self._answers = answers
        self._stuck_s = STUCK_S + request_timeout_s
        self._clock = clock
        self._generation = assignment.generation
        self._settled_at_s = clock()
        self._answered_looks = 0

    async def run(self) -> None:
        """Look for ever.

        Raises:
            Exit: 70 when the client is stuck.
        """
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await self.look()

    async def look(self) -> None:
        """Compare with a fresh client when this one has been without an answer, or without an assignment, for a while.

        Raises:
            Exit: 70 when the fresh one has been answered at every look for so long that this one should have been.
        """
        now_s = self._clock()
        if self._assignment.settled or self._assignment.generation != self._generation:
            self._generation, self._settled_at_s = self._assignment.generation, now_s
        quiet_s = max(self._lag.silent_s(), now_s - self._settled_at_s)
        if quiet_s < QUIET_S or not await self._well():
            self._answered_looks = 0
            return
        self._answered_looks += 1  # not by the clock: it goes on while this process is frozen
        both_s = self._answered_looks * LOOK_EVERY_S
        if both_s > self._stuck_s:
            raise Exit(
                EX_SOFTWARE,
                f"the Kafka client is stuck: no answer for {quiet_s:.0f} s, and a new client has been answered"
                f" for {both_s:.0f} s",
            )

    async def _well(self) -> bool:
        """Whether a fresh client is answered, in bounded time."""
        asking = asyncio.ensure_future(self._answers())
        done, _ = await asyncio.wait({asking}, timeout=ANSWER_MAX_S)
        if not done:
            asking.cancel()
            return False
        error = asking.exception()
        if error is not None and not isinstance(error, KafkaError | OSError):
            raise error
        return error is None
