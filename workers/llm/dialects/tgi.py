"""Hugging Face's text-generation-inference: OpenAI's route, with a `response_format` of its own."""

from typing import Any, ClassVar

from workers.llm.dialects.card import Answers, Card, gauge, json_of, number
from workers.llm.dialects.openai import OpenAI, schema_name
from workers.portable import BY_DIALECT, Enforcement


class Tgi(OpenAI):
    """As OpenAI, but the schema stands under `value`: OpenAI's nesting is refused (serde: tag "type", content "value").

    `json_schema` is known since May 2025; a server before that wants `json_object` and is not supported.
    """

    about: ClassVar[tuple[str, ...]] = ("/info", "/metrics")
    enforcement: ClassVar[Enforcement] = BY_DIALECT["tgi"]

    def card(self, model: str, said: Answers) -> Card:  # noqa: ARG002 - it serves one model
        """Return what the server says of itself (router/src/lib.rs, Info); past its slots it answers 429."""
        told = json_of(said, "/info")
        return Card(
            context_tokens=number(told.get("max_total_tokens")),
            slots=number(told.get("max_concurrent_requests")),
            running=gauge(said, "tgi_batch_current_size"),
            waiting=gauge(said, "tgi_queue_size"),
        )

    def _response_format(self, name: str, schema: dict[str, Any]) -> dict[str, Any]:
        return {"type": "json_schema", "value": {"name": schema_name(name), "schema": schema}}
