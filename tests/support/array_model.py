"""A `Model` behind which batches are tested: it answers each prompt of an array by that prompt, and keeps its calls."""

import json

from tests.support.scripted_model import ScriptedModel
from workers.errors import AnswerEmpty, AnswerTooLarge, BadAnswer, Declined, NoAnswer, ServerFault
from workers.ports import Ask, Frame
from workers.records import Passage, Prompt, Reply

SPOILS: dict[str, type[NoAnswer]] = {"refused": Declined, "poison": ServerFault, "endless": AnswerTooLarge}


class ArrayModel(ScriptedModel):
    """Says `answer to X` to X, nothing to `empty`, and refuses a request that holds a word of `SPOILS` as a whole.

    `asked` are the prompts of each call; `running` how many calls run.
    """

    def __init__(self, *script: str) -> None:
        super().__init__(*script)
        self.asked: list[list[str]] = []
        self.running = 0

    def frame(self, ask: Ask) -> Frame:
        """Return a frame with something to say before the user's text."""
        return Frame(b'{"prompt":', b"}", f"{ask.system}\n\n")

    async def complete(self, prompt: Prompt, passage: Passage, *, wait_s: float) -> Reply:
        """Answer when the gate is open."""
        hole = json.loads(prompt.body)["prompt"]
        texts = [text.split("\n\n", 1)[1] for text in ([hole] if isinstance(hole, str) else hole)]
        self.asked.append(texts)
        self.running += 1
        try:
            whole = await super().complete(prompt, passage, wait_s=wait_s)
        finally:
            self.running -= 1
        for word, error in SPOILS.items():
            if word in texts:
                raise error(word)
        said = [self._said(text, whole) for text in texts]
        if prompt.records > 1:
            whole.members = tuple(said)
            return whole
        if isinstance(said[0], BadAnswer):
            raise said[0]
        return said[0]

    def _said(self, text: str, whole: Reply) -> Reply | BadAnswer:
        if text == "empty":
            return AnswerEmpty("said nothing")
        return Reply(f"answer to {text}", whole.model, whole.endpoint, "stop", 11, 7, whole.latency_s, whole.attempts)
