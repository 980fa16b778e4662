"""Ollama's own /api/chat. Its OpenAI route is spoken by the dialect `openai`."""

from typing import ClassVar

from workers.errors import AnswerEmpty, BadEnvelope
from workers.llm.dialects.chat import Completion, conversation, count_in, envelope_of, name_in
from workers.ports import Ask, Frame


class Ollama:
    """Structured output by `format`. `truncate: false` makes a prompt that is too long a 400, not a silent cut."""

    path: ClassVar[str] = "/api/chat"

    def frame(self, model: str, ask: Ask) -> Frame:
        """Return the body with a hole that takes the user's text as a JSON string, quotes included."""
        asked = {
            "model": model,
            "stream": False,
            "truncate": False,
            "options": {"temperature": ask.temperature, "num_predict": ask.max_tokens},
        }
        if ask.schema is not None:
            asked["format"] = ask.schema
        return conversation(asked, ask.system)

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
        if not isinstance(text, str) or not text.strip():
            raise AnswerEmpty(f"the model said nothing (done_reason {finish_reason or 'missing'})")
        counts = count_in(envelope.get("prompt_eval_count")), count_in(envelope.get("eval_count"))
        return Completion(text, name_in(envelope.get("model")), finish_reason, *counts)
