"""OpenAI's /v1/chat/completions, as vLLM, llama.cpp, Ollama and most gateways speak it too."""

import re
from typing import Any, ClassVar

from workers.errors import AnswerEmpty, AnswerRefused, BadEnvelope
from workers.llm.dialects.card import Answers, Card, listed_context_tokens
from workers.llm.dialects.chat import Completion, conversation, counts_in, envelope_of, name_in
from workers.llm.status import TABLE, Row
from workers.portable import BY_DIALECT, Enforcement, portable
from workers.ports import Ask, Frame

_NAME_REFUSED = re.compile(r"[^a-zA-Z0-9_-]")


class OpenAI:
    """Structured output by `response_format`, strict. OpenAI itself then wants every key required and no others."""

    path: ClassVar[str] = "/v1/chat/completions"
    about: ClassVar[tuple[str, ...]] = ("/v1/models",)
    enforcement: ClassVar[Enforcement] = BY_DIALECT["openai"]
    table: ClassVar[tuple[Row, ...]] = TABLE

    def frame(self, model: str, ask: Ask) -> Frame:
        """Return the body with a hole that takes the user's text as a JSON string, quotes included."""
        options = {"model": model, "max_tokens": ask.max_tokens, "temperature": ask.temperature}
        if ask.schema is not None:
            options["response_format"] = self._response_format(ask.name, portable(ask.schema, self.enforcement))
        return conversation(options, ask.system)

    def card(self, model: str, said: Answers) -> Card:
        """Return what the server says of itself, by the paths in `about`."""
        return Card(context_tokens=listed_context_tokens(said, model))

    def _response_format(self, name: str, schema: dict[str, Any]) -> dict[str, Any]:
        spec = {"name": schema_name(name), "strict": True, "schema": schema}
        return {"type": "json_schema", "json_schema": spec}

    def read(self, body: bytes) -> Completion:
        """Return the completion in the body of a 200.

        Raises:
            BadEnvelope: it is no completion, or was cut; retryable.
            AnswerEmpty: no choices, null content or blanks only.
            AnswerRefused: the model, or a filter, refused.
        """
        envelope = envelope_of(body)
        if not isinstance(envelope, dict) or not isinstance(choices := envelope.get("choices"), list):
            raise BadEnvelope("200 without `choices`: no model server, or another dialect")
        counts = counts_in(envelope)
        if not choices:
            raise AnswerEmpty("the server sent no choices", tokens=counts)
        choice = choices[0]
        if not isinstance(choice, dict) or not isinstance(said := choice.get("message"), dict):
            raise BadEnvelope("200 whose first choice has no `message`")
        text, finish_reason = said.get("content"), name_in(choice.get("finish_reason"))
        if said.get("refusal") or finish_reason == "content_filter":
            told = f"the model refused (finish_reason {finish_reason or 'missing'})"
            raise AnswerRefused(told, name_in(text), counts)
        if not isinstance(text, str) or not text.strip():
            raise AnswerEmpty(f"the model said nothing (finish_reason {finish_reason or 'missing'})", tokens=counts)
        return Completion(text, name_in(envelope.get("model")), finish_reason, *counts)


def schema_name(name: str) -> str:
    """Return `name` as OpenAI takes it: 1 to 64 of [a-zA-Z0-9_-]."""
    return _NAME_REFUSED.sub("_", name)[:64] or "answer"
