"""Hugging Face's text-generation-inference: OpenAI's route, with a `response_format` of its own."""

from typing import Any

from workers.llm.dialects.openai import OpenAI, schema_name


class Tgi(OpenAI):
    """As OpenAI, but the schema stands under `value`: OpenAI's nesting is refused (serde: tag "type", content "value").

    `json_schema` is known since May 2025; a server before that wants `json_object` and is not supported.
    """

    def _response_format(self, name: str, schema: dict[str, Any]) -> dict[str, Any]:
        return {"type": "json_schema", "value": {"name": schema_name(name), "schema": schema}}
