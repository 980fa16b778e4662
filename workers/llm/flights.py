"""One call for identical requests: what asks the same, byte for byte, while it runs, waits for the same answer."""

import math
from dataclasses import replace

from workers import metrics
from workers.clock import monotonic_s
from workers.errors import BadAnswer
from workers.llm.aboard import JointCall
from workers.llm.before import Before
from workers.ports import Model
from workers.records import Passage, Prompt, Reply

_Key = tuple[bytes, float, float]


class SingleFlight(Before):
    """A `Model` (workers.ports) before another. Identical requests that run at the same time share one call.

    - Only requests of equal patience (`wait_s`) and equal `deadline_s` share, and only those that have not begun: a
      second ask goes alone. So what the call may do is what each would have been allowed to do by itself.
    - One who came aboard late may be told of a failure up to one call's time sooner; hence `_takes`.
    - The other replies say `shared`, with no attempt and no tokens. The rest is in `JointCall`.
    """

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self._flights: dict[_Key, JointCall] = {}
        self._shared = metrics.CALLS_SHARED.labels(self.name)

    async def complete(self, prompt: Prompt, passage: Passage, *, wait_s: float) -> Reply:
        """Return the answer of the one call. The contract is in `workers.ports.Model`."""
        if passage.ends_at_s is not None or wait_s not in (0.0, math.inf):
            return await self._model.complete(prompt, passage, wait_s=wait_s)
        key = (prompt.body, wait_s, passage.deadline_s)
        flight = self._flights.get(key)
        if flight is None or not _takes(flight, monotonic_s()):
            flight = self._start(key, prompt, passage)
        try:
            reply = await flight.ride(passage)
        except BadAnswer as error:
            error.shared = flight.payer is not passage
            raise
        if flight.payer is passage:
            return replace(reply, attempts=passage.attempts)
        self._shared.inc()
        return replace(reply, shared=True, attempts=passage.attempts, input_tokens=0, output_tokens=0)

    def _start(self, key: _Key, prompt: Prompt, payer: Passage) -> JointCall:
        flight = JointCall.start(lambda joint: self._model.complete(prompt, joint, wait_s=key[1]), payer)
        self._flights[key] = flight
        flight.call.add_done_callback(lambda _: self._close(key, flight))
        return flight

    def _close(self, key: _Key, flight: JointCall) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]


def _takes(flight: JointCall, now_s: float) -> bool:
    """Return whether another may still come aboard: no attempt has failed, and half of the deadline is left at least.

    Where a batch makes the attempts, a second one looks like the first while it runs.
    """
    joint = flight.passage
    at_first = joint.ends_at_s is None or (joint.attempts <= 1 and joint.busy)
    return at_first and not flight.over and 2 * joint.left_s(now_s) >= joint.deadline_s
