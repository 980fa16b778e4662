"""A server of one's own: its body is a template with holes, its answer stands where the configuration says."""

from typing import Any, ClassVar

import orjson

from workers.errors import AnswerEmpty, AnswerOffSchema, BadEnvelope
from workers.json_text import MISSING, lookup
from workers.llm.dialects.card import Answers, Card
from workers.llm.dialects.chat import Completion, count_in, envelope_of, name_in
from workers.llm.status import TABLE, Row
from workers.nesting import MAX_DEPTH
from workers.ports import Ask, Frame
from workers.settings.custom import PROMPT, WHOLE, CustomSettings, placeholder_in, plain

_HOLE = b"\x00"
"""Stands for the user's text while the rest is encoded: JSON has it nowhere (RFC 8259, section 7)."""


class Custom:
    """As `models.NAME.custom` says. Statuses mean what they mean elsewhere (FastAPI: 422 for a body it refuses)."""

    about: ClassVar[tuple[str, ...]] = ()
    table: ClassVar[tuple[Row, ...]] = TABLE

    def __init__(self, settings: CustomSettings) -> None:
        self._settings = settings
        self.path = settings.path

    def frame(self, model: str, ask: Ask) -> Frame:
        """Return the body with a hole that takes the user's text as a JSON string, quotes included."""
        fills = {
            PROMPT: orjson.Fragment(_HOLE),
            "system": ask.system,
            "schema": ask.schema,
            "model": model,
            "max_tokens": ask.max_tokens,
            "temperature": ask.temperature,
        }
        head, tail = orjson.dumps(_filled(self._settings.body, fills)).split(_HOLE)
        return Frame(head, tail)

    def card(self, model: str, said: Answers) -> Card:  # noqa: ARG002 - nothing is asked
        """Return what the server says of itself: nothing that is known here."""
        return Card()

    def read(self, body: bytes) -> Completion:
        """Return the completion in the body of a 200.

        Raises:
            BadEnvelope: it is no JSON, or has no answer at the path; retryable.
            AnswerEmpty: null or blanks only.
            AnswerOffSchema: an object that nests too deep to be written.
        """
        envelope, at = envelope_of(body), self._settings
        finish_reason = name_in(_at(at.finish_reason, envelope))
        counts = count_in(_at(at.input_tokens, envelope)), count_in(_at(at.output_tokens, envelope))
        text = _text(_at(at.answer, envelope), at.answer, finish_reason, counts)
        return Completion(text, name_in(_at(at.model, envelope)), finish_reason, *counts)


def _filled(value: Any, fills: dict[str, Any]) -> Any:
    """Return the template with its placeholders replaced, each by a value of its own type."""
    if isinstance(value, dict):
        return {key: _filled(child, fills) for key, child in value.items()}
    if isinstance(value, list):
        return [_filled(child, fills) for child in value]
    if isinstance(value, str):
        name = placeholder_in(value)
        return plain(value) if name is None else fills[name]
    return value


def _at(path: str | None, envelope: Any) -> Any:
    if path is None:
        return MISSING
    return lookup(envelope, [] if path == WHOLE else path.split("."))


def _text(said: Any, path: str, finish_reason: str, counts: tuple[int, int]) -> str:
    """Return an answer as text, an object or a list as JSON."""
    if said is None or (isinstance(said, str) and not said.strip()):
        told = f"the model said nothing at `{path}` (finish_reason {finish_reason or 'missing'})"
        raise AnswerEmpty(told, tokens=counts)
    if isinstance(said, str):
        return said
    if not isinstance(said, dict | list):
        what = "no such member" if said is MISSING else "a number, true or false"
        raise BadEnvelope(f"200 without an answer at `{path}` (custom.answer): {what}")
    try:
        return orjson.dumps(said).decode()
    except orjson.JSONEncodeError as exc:  # reads 1,024 levels, writes 254
        raise AnswerOffSchema(f"nests deeper than {MAX_DEPTH}", tokens=counts) from exc
