"""OpenAI's older /v1/completions, as vLLM and llama.cpp serve it: an array of prompts is one request.

There is no chat template: the prompt is the task's system text, a blank line and the user's text, as they stand. Both
servers answer an array with one choice per prompt, each with its `index` (run with vLLM 0.22.1, llama.cpp 0.7.0).
"""

from typing import Any, ClassVar

import orjson

from workers.errors import AnswerEmpty, AnswerRefused, BadAnswer, BadEnvelope
from workers.llm.dialects.card import Answers, Card, listed_context_tokens
from workers.llm.dialects.chat import Completion, counts_in, envelope_of, name_in
from workers.llm.status import TABLE, Row
from workers.portable import BY_DIALECT, portable
from workers.ports import Ask, Frame


class Completions:
    """Structured output by vLLM's `structured_outputs` (0.10.2 and later) and by llama.cpp's `json_schema`.

    Both are sent: vLLM and llama.cpp each ignore the other's. A server that knows neither may ignore or refuse them.
    """

    path: ClassVar[str] = "/v1/completions"
    about: ClassVar[tuple[str, ...]] = ("/v1/models",)
    table: ClassVar[tuple[Row, ...]] = TABLE

    def frame(self, model: str, ask: Ask) -> Frame:
        """Return the body with a hole that takes a prompt as a JSON string, or an array of them."""
        options: dict[str, Any] = {"model": model, "max_tokens": ask.max_tokens, "temperature": ask.temperature}
        if ask.schema is not None:
            options["structured_outputs"] = {"json": portable(ask.schema, BY_DIALECT["completions"])}
            options["json_schema"] = portable(ask.schema, BY_DIALECT["llamacpp"])
        lead = f"{ask.system.rstrip()}\n\n" if ask.system else ""
        return Frame(orjson.dumps(options)[:-1] + b',"prompt":', b"}", lead)

    def card(self, model: str, said: Answers) -> Card:
        """Return what the server says of itself."""
        return Card(context_tokens=listed_context_tokens(said, model))

    def read(self, body: bytes) -> Completion:
        """Return the completion in the body of a 200; with `members` when it answers several prompts.

        `usage` is of the whole call: each member has an equal share, the first ones the remainder. (llama.cpp counts
        the first prompt alone there, so that its sums are too small.)

        Raises:
            BadEnvelope: it is no completion, was cut, or does not answer each prompt once; retryable.
            AnswerEmpty: blanks only, as the answer to a single prompt.
            AnswerRefused: likewise, a filter refused.
        """
        envelope = envelope_of(body)
        if not isinstance(envelope, dict) or not isinstance(choices := envelope.get("choices"), list):
            raise BadEnvelope("200 without `choices`: no model server, or another dialect")
        counts = counts_in(envelope)
        model = name_in(envelope.get("model"))
        said = [
            _said(choice, model, (_share(counts[0], place, len(choices)), _share(counts[1], place, len(choices))))
            for place, choice in enumerate(_by_index(choices))
        ]
        if len(said) > 1:
            return Completion("", model, "", *counts, tuple(said))
        if isinstance(said[0], BadAnswer):
            raise said[0]
        return said[0]


def _by_index(choices: list[Any]) -> list[dict[str, Any]]:
    """Return the choices in the order of the prompts, whatever theirs is in the list."""
    placed: dict[int, dict[str, Any]] = {}
    for choice in choices:
        if isinstance(choice, dict) and isinstance(index := choice.get("index"), int):
            placed[index] = choice
    if not choices or sorted(placed) != [*range(len(choices))]:
        raise BadEnvelope(f"200 whose {len(choices)} choices are not one for each prompt, by `index`")
    return [placed[index] for index in range(len(choices))]


def _said(choice: dict[str, Any], model: str, counts: tuple[int, int]) -> Completion | BadAnswer:
    text, finish_reason = choice.get("text"), name_in(choice.get("finish_reason"))
    if finish_reason == "content_filter":
        return AnswerRefused("the model refused (finish_reason content_filter)", name_in(text), counts)
    if not isinstance(text, str) or not text.strip():
        return AnswerEmpty(f"the model said nothing (finish_reason {finish_reason or 'missing'})", tokens=counts)
    return Completion(text, model, finish_reason, *counts)


def _share(count: int, place: int, places: int) -> int:
    return count // places + (place < count % places)
