"""vLLM: OpenAI's route and OpenAI's `response_format`, which every version since 0.6.3 enforces.

Its grammars allow blanks between JSON tokens, and a small model can fill `max_tokens` with them. The cure is the
server's: `--structured-outputs-config '{"backend": "xgrammar", "disable_any_whitespace": true}'` (0.22.1 does not start
with the second alone). The field of the same name in a request's `structured_outputs` is not sent: the xgrammar backend
reads the engine's configuration only and drops it without a word (vllm-project/vllm#48765), and #48812 proposes to
answer 400 instead.
"""

from typing import ClassVar

from workers.llm.dialects.card import Answers, Card, gauge
from workers.llm.dialects.openai import OpenAI
from workers.portable import BY_DIALECT, Enforcement


class Vllm(OpenAI):
    """As OpenAI. `guided_json` and any unknown field would be ignored with a 200, so no vendor field is sent."""

    about: ClassVar[tuple[str, ...]] = ("/v1/models", "/metrics")
    enforcement: ClassVar[Enforcement] = BY_DIALECT["vllm"]

    def card(self, model: str, said: Answers) -> Card:
        """Return what the server says of itself; its queue has no bound, and its batch no fixed size."""
        return (
            super()
            .card(model, said)
            ._replace(
                running=gauge(said, "vllm:num_requests_running"), waiting=gauge(said, "vllm:num_requests_waiting")
            )
        )
