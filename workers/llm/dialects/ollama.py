"""Ollama's own /api/chat. Its OpenAI route is spoken by the dialect `openai`."""

from typing import ClassVar

import orjson

from workers.errors import AnswerEmpty, BadEnvelope
from workers.json_text import loads
from workers.llm.dialects.openai import Completion
from workers.ports import Ask, Frame

_TEXT_MAX_CHARS = 256


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
        system = orjson.dumps({"role": "system", "content": ask.system}) + b"," if ask.system else b""
        head = orjson.dumps(asked)[:-1] + b',"messages":[' + system + b'{"role":"user","content":'
        return Frame(head, b"}]}")

    def read(self, body: bytes) -> Completion:
        """Return the completion in the body of a 200.

        Raises:
            BadEnvelope: it is no completion, or was cut; retryable.
            AnswerEmpty: null content or blanks only.
        """
        try:
            envelope = loads(body)
        except orjson.JSONDecodeError as exc:
            raise BadEnvelope(f"200 with {len(body)} bytes that are no JSON: cut, or no model server") from exc
        if not isinstance(envelope, dict) or not isinstance(said := envelope.get("message"), dict):
            raise BadEnvelope("200 without `message`: no Ollama, or another dialect")
        if envelope.get("done") is not True:
            raise BadEnvelope("200 that is not `done`: a part of a stream")
        text, finish_reason = said.get("content"), _text(envelope.get("done_reason"))
        if not isinstance(text, str) or not text.strip():
            raise AnswerEmpty(f"the model said nothing (done_reason {finish_reason or 'missing'})")
        counts = _count(envelope.get("prompt_eval_count")), _count(envelope.get("eval_count"))
        return Completion(text, _text(envelope.get("model")), finish_reason, *counts)


def _text(value: object) -> str:
    return value[:_TEXT_MAX_CHARS] if isinstance(value, str) else ""


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0
