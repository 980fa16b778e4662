"""A `Model` that follows a script: the seam behind which stages, pipeline and worker are tested without a server.

    model = ScriptedModel("first answer", Declined("400"), then="the rest")

One step per `complete`: a text or a Reply is what the model says, an error is raised, as if the real client had already
tried again. The contract suite (tests/contract/test_model_contract.py) holds it to what the real client does.
"""

import asyncio
from collections import deque
from dataclasses import dataclass, replace

from workers.clock import monotonic_s
from workers.errors import BadAnswer, Misconfigured, PenstockError
from workers.ports import Ask, Frame
from workers.records import Passage, Prompt, Reply

Step = str | Reply | PenstockError


@dataclass(slots=True)
class Call:
    """One `complete` as it was asked for."""

    body: bytes
    wait_s: float
    passage: Passage


class ScriptedModel:
    """Says what it is told to. While `gate` is cleared, calls run and do not end."""

    def __init__(self, *script: Step, then: Step = "{}", name: str = "scripted", pace_per_s: float = 1000.0) -> None:
        self.name = name
        self.script: deque[Step] = deque(script)
        self.then = then
        self.pace = pace_per_s
        self.calls: list[Call] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self._held: str | None = None
        self._last_answer_s: float | None = None

    def frame(self, ask: Ask) -> Frame:
        """Return a body that holds the system text and, in its hole, the user's text as a JSON string."""
        return Frame(b'{"model":"scripted","for":"%s","user":' % ask.name.encode(), b"}")

    async def complete(self, prompt: Prompt, passage: Passage, *, wait_s: float) -> Reply:
        """Return or raise the next step of the script."""
        self.calls.append(Call(prompt.body, wait_s, passage))
        step = self.script.popleft() if self.script else self.then
        began_s = monotonic_s()
        passage.begin(began_s)
        passage.attempts += 1
        passage.occupy()
        try:
            await self.gate.wait()
            await asyncio.sleep(0)
        finally:
            passage.free()
        self._held = str(step) if isinstance(step, Misconfigured) else None
        if isinstance(step, str | Reply | BadAnswer):
            self._last_answer_s = monotonic_s()
        if isinstance(step, PenstockError):
            raise step
        if isinstance(step, Reply):
            return replace(step, attempts=passage.attempts)
        return Reply(step, "scripted", "http://scripted", "stop", 11, 7, monotonic_s() - began_s, passage.attempts)

    def answered_since(self, at_s: float) -> bool:
        """Return whether any call has succeeded since `at_s`."""
        return self._last_answer_s is not None and self._last_answer_s >= at_s

    def held_reason(self) -> str | None:
        """Return why it is held: its last step was a fault of configuration."""
        return None if self._held is None else f"misconfigured: {self._held}"

    def pace_per_s(self) -> float:
        """Return the pace it was given."""
        return self.pace

    def goes_on_with(self, *script: Step) -> None:
        """Append steps to the script."""
        self.script.extend(script)
