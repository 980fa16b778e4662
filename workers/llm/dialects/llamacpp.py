"""llama.cpp's llama-server: OpenAI's route, whose `response_format` it enforces with a grammar."""

from typing import ClassVar

from workers.llm.dialects.card import Answers, Card, gauge, json_of, number
from workers.llm.dialects.openai import OpenAI
from workers.portable import BY_DIALECT, Enforcement


class LlamaCpp(OpenAI):
    """As OpenAI. It answers to any model name, and says 503 "Loading model" until it can answer."""

    about: ClassVar[tuple[str, ...]] = ("/v1/models", "/props", "/metrics")
    enforcement: ClassVar[Enforcement] = BY_DIALECT["llamacpp"]

    def card(self, model: str, said: Answers) -> Card:
        """Return what the server says of itself; of its load only when it was started with `--metrics`."""
        return (
            super()
            .card(model, said)
            ._replace(
                slots=number(json_of(said, "/props").get("total_slots")),
                running=gauge(said, "llamacpp:requests_processing"),
                waiting=gauge(said, "llamacpp:requests_deferred"),
            )
        )
