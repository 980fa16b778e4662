"""Ollama's own /api/chat. Its OpenAI route is spoken by the dialect `openai`."""

from typing import ClassVar

from workers.errors import AnswerEmpty, BadEnvelope
from workers.llm.dialects.card import Answers, Card, json_of, number
from workers.llm.dialects.chat import Completion, conversation, count_in, envelope_of, name_in
from workers.llm.status import TABLE, Row
from workers.portable import BY_DIALECT, portable
from workers.ports import Ask, Frame
from workers.records import REPETITION


class Ollama:
    """Structured output by `format`.

    `truncate: false` makes a prompt that is too long a 400, not a silent cut. `shift: false` ends an answer with the
    context; else half of what came before, the prompt with it, is dropped without a word to make room for more.
    """

    path: ClassVar[str] = "/api/chat"
    about: ClassVar[tuple[str, ...]] = ("/api/ps",)
    table: ClassVar[tuple[Row, ...]] = TABLE

    def __init__(self, keep_alive: float | str | None = None) -> None:
        self._keep_alive = keep_alive

    def frame(self, model: str, ask: Ask) -> Frame:
        """Return the body with a hole that takes the user's text as a JSON string, quotes included."""
        asked = {
            "model": model,
            "stream": False,
            "truncate": False,
            "shift": False,
            "options": {"temperature": ask.temperature, "num_predict": ask.max_tokens},
        }
        if ask.schema is not None:
            asked["format"] = portable(ask.schema, BY_DIALECT["ollama"])
        if self._keep_alive is not None:
            asked["keep_alive"] = self._keep_alive
        return conversation(asked, ask.system)

    def card(self, model: str, said: Answers) -> Card:
        """Return the context of the model as it is loaded (since 0.12); nothing while it is not."""
        loaded = json_of(said, "/api/ps").get("models")
        for entry in loaded if isinstance(loaded, list) else ():
            if isinstance(entry, dict) and entry.get("name") in (model, f"{model}:latest"):
                return Card(context_tokens=number(entry.get("context_length")))
        return Card()

    def read(self, body: bytes) -> Completion:
        """Return the completion in the body of a 200.

        One that is not `done` was broken off: 30 equal tokens in a row are taken for a loop (its llm/server.go). No
        tokens are counted then; the finish reason is `repetition`.

        Raises:
            BadEnvelope: it is no completion, or was cut; retryable.
            AnswerEmpty: null content or blanks only.
        """
        envelope = envelope_of(body)
        if not isinstance(envelope, dict) or not isinstance(said := envelope.get("message"), dict):
            raise BadEnvelope("200 without `message`: no Ollama, or another dialect")
        text, is_done = said.get("content"), envelope.get("done") is True
        finish_reason = name_in(envelope.get("done_reason")) if is_done else REPETITION
        counts = count_in(envelope.get("prompt_eval_count")), count_in(envelope.get("eval_count"))
        if not isinstance(text, str) or not text.strip():
            raise AnswerEmpty(f"the model said nothing (done_reason {finish_reason or 'missing'})", tokens=counts)
        return Completion(text, name_in(envelope.get("model")), finish_reason, *counts)
