"""Ollama's own /api/chat. Its OpenAI route is spoken by the dialect `openai`."""

from typing import ClassVar

from workers.errors import AnswerEmpty, BadEnvelope, Declined
from workers.llm.dialects.card import Answers, Card, json_of, number
from workers.llm.dialects.chat import Completion, conversation, count_in, envelope_of, name_in
from workers.llm.status import TABLE, Row
from workers.portable import BY_DIALECT, portable
from workers.ports import Ask, Frame

_REFUSED = ("invalid json schema in format", "invalid format: ", '" must be of type ')
"""Said with a 500 of a schema that it cannot enforce and of an option's type (its llm/server.go and api/types.go)."""


class Ollama:
    """Structured output by `format`. `truncate: false` makes a prompt that is too long a 400, not a silent cut."""

    path: ClassVar[str] = "/api/chat"
    about: ClassVar[tuple[str, ...]] = ("/api/ps",)
    table: ClassVar[tuple[Row, ...]] = (
        Row((500,), Declined, "the server refuses this request", says=_REFUSED),
        *TABLE,
    )

    def __init__(self, keep_alive: float | str | None = None) -> None:
        self._keep_alive = keep_alive

    def frame(self, model: str, ask: Ask) -> Frame:
        """Return the body with a hole that takes the user's text as a JSON string, quotes included."""
        asked = {
            "model": model,
            "stream": False,
            "truncate": False,
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

        Raises:
            BadEnvelope: it is no completion, or was cut; retryable.
            AnswerEmpty: null content or blanks only.
        """
        envelope = envelope_of(body)
        if not isinstance(envelope, dict) or not isinstance(said := envelope.get("message"), dict):
            raise BadEnvelope("200 without `message`: no Ollama, or another dialect")
        if envelope.get("done") is not True:
            raise BadEnvelope("200 that is not `done`: a part of a stream")
        text, finish_reason = said.get("content"), name_in(envelope.get("done_reason"))
        counts = count_in(envelope.get("prompt_eval_count")), count_in(envelope.get("eval_count"))
        if not isinstance(text, str) or not text.strip():
            raise AnswerEmpty(f"the model said nothing (done_reason {finish_reason or 'missing'})", tokens=counts)
        return Completion(text, name_in(envelope.get("model")), finish_reason, *counts)
