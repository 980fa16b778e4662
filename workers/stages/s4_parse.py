"""Stage 4: from what the model said to an enrichment that passed its check."""

from collections.abc import Callable
from typing import Any

import orjson

from workers import metrics
from workers.errors import (
    AnswerCut,
    AnswerEmpty,
    AnswerNotJson,
    AnswerOffSchema,
    AnswerTooLong,
    AnswerUncertain,
    BadAnswer,
)
from workers.json_text import loads, loads_raw_controls, lookup
from workers.nesting import MAX_DEPTH, too_deep
from workers.records import REPETITION, Reply
from workers.salvage import Rung, candidates, without_thought
from workers.task import Task

_Check = Callable[[Any], str | None]

_BROKEN_OFF = ("length", REPETITION)
"""The end of such an answer is not the model's own."""


def parse(reply: Reply, task: Task) -> Any:
    """Return the enrichment: a value that passed the task's schema, or the stripped text when the answer is text.

    A text that begins with the model's thought is what follows it.

    JSON as orjson reads it: NaN and Infinity are refused, of duplicate keys the last one counts, integers beyond 64
    bits become floats. An answer that is JSON as a whole is judged as it is; else the texts inside it are looked at (a
    fence, an object in prose), and the one that passes the schema counts. When several pass, and differ, none does: a
    draft, an example and a second thought look like an answer. Nothing is repaired in an answer but control characters
    that stand in its strings as they are, where it is JSON as a whole otherwise.

    Raises (none is retryable; each keeps the answer in `raw`, no text quotes it):
        AnswerEmpty: nothing but blanks.
        AnswerNotJson, AnswerOffSchema: for answers by schema; and AnswerOffSchema for a text that is a thought without
            an end.
        AnswerTooLong: for text answers.
        AnswerUncertain: it says itself that it is less sure than `answer.confidence` wants.
        AnswerCut: one of the above, or any text, and `finish_reason` says that the model ran out of tokens. Not a text
            that is too long already: more tokens would not make it shorter.
    """
    text = reply.text.strip()
    try:
        if not text:
            raise AnswerEmpty("nothing but blanks", reply.text)
        value = _text(text, reply, task) if task.check is None else _json(text, reply, task, task.check)
    except BadAnswer as exc:
        if reply.finish_reason == "length" and not isinstance(exc, AnswerTooLong):
            raise AnswerCut(f"max_tokens reached after {reply.output_tokens} tokens; {exc}", reply.text) from exc
        raise
    _demand_confidence(value, reply, task)
    return value


def _demand_confidence(value: Any, reply: Reply, task: Task) -> None:
    wanted = task.settings.answer.confidence
    if wanted is None:
        return
    said = lookup(value, wanted.field.split("."))
    if isinstance(said, bool) or not isinstance(said, int | float):
        raise AnswerUncertain(f"no number at `{wanted.field}`", reply.text)
    if said < wanted.at_least:
        raise AnswerUncertain(f"`{wanted.field}` is {said:g}, at_least is {wanted.at_least:g}", reply.text)


def _text(text: str, reply: Reply, task: Task) -> str:
    limit = task.settings.answer.text
    said = without_thought(text)
    if said is None:
        raise AnswerOffSchema("a thought that does not end", reply.text)
    if not said:
        raise AnswerEmpty("nothing but a thought", reply.text)
    if limit is not None and len(said) > limit.max_chars:
        raise AnswerTooLong(f"{len(said)} characters, max_chars is {limit.max_chars}", reply.text)
    if reply.finish_reason in _BROKEN_OFF:  # half a text has no schema that could tell
        raise BadAnswer("the text is not whole", reply.text)
    if said != text:
        _note_repair("thought", reply, task)
    return said


def _note_repair(rung: Rung, reply: Reply, task: Task) -> None:
    metrics.ANSWERS_SALVAGED.labels(task.name, rung).inc()
    reply.repairs += (rung,)


def _json(text: str, reply: Reply, task: Task, check: _Check) -> Any:
    try:
        value, repair = _read(text)
    except orjson.JSONDecodeError as exc:
        return _salvaged(text, reply, task, check, exc)
    if wrong := _wrong(text, value, check):
        raise AnswerOffSchema(wrong, reply.text)
    if reply.finish_reason in _BROKEN_OFF and isinstance(value, int | float) and not isinstance(value, bool):
        raise AnswerNotJson("a number that may have had more digits", reply.text)  # all else has an end of its own
    if repair is not None:
        _note_repair(repair, reply, task)
    return value


def _read(text: str) -> tuple[Any, Rung | None]:
    try:
        return loads(text), None
    except orjson.JSONDecodeError as exc:
        try:
            return loads_raw_controls(text), "escaped"
        except orjson.JSONDecodeError:
            raise exc from None  # it says best where the text is no JSON


def _salvaged(text: str, reply: Reply, task: Task, check: _Check, error: orjson.JSONDecodeError) -> Any:
    first_wrong: str | None = None
    fits: dict[bytes, tuple[Rung, Any]] = {}
    for rung, candidate in candidates(text, cut=reply.finish_reason in _BROKEN_OFF):
        try:
            value = loads(candidate)
        except orjson.JSONDecodeError:
            continue
        wrong = _wrong(candidate, value, check)
        if wrong is None:
            fits.setdefault(orjson.dumps(value, option=orjson.OPT_SORT_KEYS), (rung, value))
        first_wrong = first_wrong or wrong
    if len(fits) > 1:
        raise AnswerOffSchema(f"{len(fits)} different answers in one", reply.text) from error
    for rung, value in fits.values():
        _note_repair(rung, reply, task)
        return value
    if first_wrong:
        raise AnswerOffSchema(first_wrong, reply.text) from error
    raise AnswerNotJson(str(error), reply.text) from error


def _wrong(text: str, value: Any, check: _Check) -> str | None:
    """Say what is wrong with a parsed answer. Deep ones are refused before the schema: no output could hold them."""
    return f"nests deeper than {MAX_DEPTH}" if too_deep(text.encode()) else check(value)
