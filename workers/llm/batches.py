"""Several records in one call, each with a prompt of its own: for a server that takes an array of prompts."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field, replace

from workers import metrics
from workers.errors import AnswerTooLarge, BadAnswer, Declined, ServerFault
from workers.llm.aboard import JointCall, JointPassage
from workers.llm.before import Before
from workers.ports import Frame, Model
from workers.records import Passage, Prompt, Reply
from workers.settings.batch import BatchSettings

_Key = tuple[Frame, float]

SPOILED = (Declined, ServerFault, AnswerTooLarge)
"""400, 500, an answer without end. Timeouts, refusals of load and lost connections are the server's own."""

_SMOOTHING = 0.1
"""The weight of the newest call in the mean size of a batch."""


@dataclass(slots=True, eq=False)
class _Place:
    """One record's place in a batch: its position in the array, once the array is sent."""

    prompt: Prompt
    position: int = 0


@dataclass(slots=True, eq=False)
class _Batch:
    """A call that is being filled, or has been sent: then `records` says with how many."""

    key: _Key
    places: list[_Place] = field(default_factory=list)
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    records: int = 0


class Batches(Before):
    """A `Model` (workers.ports) before another. Up to `max_records` that come within `linger_s` share one call.

    - Never two records in one prompt: none can write another's answer.
    - Only first asks of one frame and one `deadline_s`. What comes again after a failure goes alone: it may have been
      the cause, and then it fails alone.
    - The first waits `linger_s` for others, even while slots are free; a full batch goes at once. Its array is fixed
      then, not when it has a slot.
    - Failed as a whole in a way that one member can cause (`SPOILED`): each is asked once more, alone.
    - Attempts are counted by one of them. Tokens are the dialect's to share out.
    """

    def __init__(self, model: Model, settings: BatchSettings) -> None:
        super().__init__(model)
        self._settings = settings
        self._filling: dict[_Key, tuple[_Batch, JointCall]] = {}
        self._mean_records = 1.0
        self._sizes = metrics.BATCH_RECORDS.labels(self.name)

    async def complete(self, prompt: Prompt, passage: Passage, *, wait_s: float) -> Reply:
        """Return this record's own answer from the one call. The contract is in `workers.ports.Model`."""
        if prompt.frame is None or passage.ends_at_s is not None or wait_s > 0:
            return await self._model.complete(prompt, passage, wait_s=wait_s)
        batch, call = self._batch((prompt.frame, passage.deadline_s), passage)
        place = _Place(prompt)
        batch.places.append(place)
        if len(batch.places) >= self._settings.max_records:
            self._close(batch)
        try:
            reply = await call.ride(passage)
        except SPOILED:
            if batch.records == 1:
                raise
        else:
            return _own(reply, place, passage)
        finally:
            batch.places.remove(place)
        return await self._model.complete(prompt, passage, wait_s=wait_s)

    def pace_per_s(self) -> float:
        """Return the rate in records: that of the model behind is in calls."""
        return self._model.pace_per_s() * self._mean_records

    def _batch(self, key: _Key, payer: Passage) -> tuple[_Batch, JointCall]:
        """Return the batch that is being filled; a new one where there is none, or all have left it."""
        filling = self._filling.get(key)
        if filling is None or filling[1].over:
            batch = _Batch(key)
            filling = batch, JointCall.start(lambda joint: self._call(batch, joint), payer)
            self._filling[key] = filling
        return filling

    def _close(self, batch: _Batch) -> None:
        """Let nobody else in."""
        batch.closed.set()
        filling = self._filling.get(batch.key)
        if filling is not None and filling[0] is batch:
            del self._filling[batch.key]

    async def _call(self, batch: _Batch, joint: JointPassage) -> Reply:
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.linger_s):
                    await batch.closed.wait()
        finally:
            self._close(batch)
        prompts: list[Prompt] = []
        for place in batch.places:  # those who have left by now are not among them
            place.position = len(prompts)
            prompts.append(place.prompt)
        batch.records = len(prompts)
        self._sizes.observe(batch.records)
        self._mean_records += _SMOOTHING * (batch.records - self._mean_records)
        frame = batch.key[0]
        asked = prompts[0] if len(prompts) == 1 else frame.around_all([prompt.text for prompt in prompts])
        return await self._model.complete(asked, joint, wait_s=0.0)


def _own(reply: Reply, place: _Place, passage: Passage) -> Reply:
    """Return what one record got.

    Raises:
        BadAnswer: nothing that is an answer; the others have theirs.
    """
    own = reply.members[place.position] if reply.members else reply
    if isinstance(own, BadAnswer):
        raise own
    return replace(own, attempts=passage.attempts, batch=len(reply.members))
