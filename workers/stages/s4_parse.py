"""Stage 4: from what the model said to an enrichment that passed its check."""

from collections.abc import Callable
from typing import Any

import orjson

from workers import metrics
from workers.errors import AnswerCut, AnswerEmpty, AnswerNotJson, AnswerOffSchema, AnswerTooLong, BadAnswer
from workers.json_text import loads
from workers.nesting import MAX_DEPTH, too_deep
from workers.records import Reply
from workers.salvage import candidates
from workers.task import Task

_Check = Callable[[Any], str | None]


def parse(reply: Reply, task: Task) -> Any:
    """Return the enrichment: a value that passed the task's schema, or the stripped text when the answer is text.

    JSON as orjson reads it: NaN and Infinity are refused, of duplicate keys the last one counts, integers beyond 64
    bits become floats. An answer that is JSON as a whole is judged as it is; else the first of the texts inside it
    that passes the schema counts (a fence, an object in prose).

    Raises (none is retryable; each keeps the answer in `raw`, no text quotes it):
        AnswerEmpty: nothing but blanks.
        AnswerNotJson, AnswerOffSchema: for answers by schema.
        AnswerTooLong: for text answers.
        AnswerCut: one of the above, or any text, and `finish_reason` says that the model ran out of tokens.
    """
    text = reply.text.strip()
    try:
        if not text:
            raise AnswerEmpty("nothing but blanks", reply.text)
        return _text(text, reply, task) if task.check is None else _json(text, reply, task, task.check)
    except BadAnswer as exc:
        if reply.finish_reason == "length":
            raise AnswerCut(f"max_tokens reached after {reply.output_tokens} tokens; {exc}", reply.text) from exc
        raise


def _text(text: str, reply: Reply, task: Task) -> str:
    limit = task.settings.answer.text
    if limit is not None and len(text) > limit.max_chars:
        raise AnswerTooLong(f"{len(text)} characters, max_chars is {limit.max_chars}", reply.text)
    if reply.finish_reason == "length":  # half a text has no schema that could tell
        raise BadAnswer("the text is not whole", reply.text)
    return text


def _json(text: str, reply: Reply, task: Task, check: _Check) -> Any:
    try:
        value = loads(text)
    except orjson.JSONDecodeError as exc:
        return _salvaged(text, reply, task, check, exc)
    if wrong := _wrong(text, value, check):
        raise AnswerOffSchema(wrong, reply.text)
    return value


def _salvaged(text: str, reply: Reply, task: Task, check: _Check, error: orjson.JSONDecodeError) -> Any:
    first_wrong: str | None = None
    for rung, candidate in candidates(text):
        try:
            value = loads(candidate)
        except orjson.JSONDecodeError:
            continue
        wrong = _wrong(candidate, value, check)
        if wrong is None:
            metrics.ANSWERS_SALVAGED.labels(task.name, rung).inc()
            reply.repairs += (rung,)
            return value
        first_wrong = first_wrong or wrong
    if first_wrong:
        raise AnswerOffSchema(first_wrong, reply.text) from error
    raise AnswerNotJson(str(error), reply.text) from error


def _wrong(text: str, value: Any, check: _Check) -> str | None:
    """Say what is wrong with a parsed answer. Deep ones are refused before the schema: no output could hold them."""
    return f"nests deeper than {MAX_DEPTH}" if too_deep(text.encode()) else check(value)
