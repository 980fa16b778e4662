"""Any bytes as a model's answer, and as the envelope around one: an enrichment that passed its check, or no answer."""

import contextlib
from dataclasses import replace
from typing import Any

import orjson

from tests.fuzz.shipped import shipped_task
from tests.support.wire import NOW_S, make_record, make_reply, make_task
from topics import enriched
from workers.errors import AnswerEmpty, AnswerRefused, BadAnswer, BadEnvelope
from workers.llm.dialects.openai import Completion, OpenAI
from workers.outcome import Enriched
from workers.records import Reply
from workers.stages.s4_parse import parse
from workers.stages.s5_route import route
from workers.task import Task

TRIAGE = shipped_task()
ANYTHING = replace(make_task(), check=lambda _: None)
TEXT = make_task(answer={"text": {"max_chars": 100}})
OUTPUT = make_task()


def one_input(raw: bytes) -> None:
    """Read `raw` as an envelope, and parse what it says, or else itself, for three tasks."""
    text, finish_reason = raw.decode("utf-8", "replace"), "length" if raw[-1:] == b"." else "stop"
    with contextlib.suppress(BadEnvelope, AnswerEmpty, AnswerRefused):
        said = OpenAI().read(raw)
        _is_typed(said)
        text, finish_reason = said.text, said.finish_reason
    reply = replace(make_reply(), text=text, finish_reason=finish_reason)
    for task in (TRIAGE, ANYTHING, TEXT):
        enrichment = _parsed(reply, task)
        if enrichment is not None:
            _can_be_written(enrichment[0])


def _parsed(reply: Reply, task: Task) -> tuple[Any] | None:
    refused = None
    try:
        value = parse(reply, task)
    except BadAnswer as error:
        refused = error
    if refused is not None:
        assert not refused.retryable
        assert len(str(refused)) <= 400
        assert len(refused.raw) <= 2_048
        return None
    if task.check is not None:
        assert task.check(value) is None
    else:
        assert isinstance(value, str)
        assert 0 < len(value) <= 100
    return (value,)


def _can_be_written(enrichment: Any) -> None:
    [outgoing] = route(make_record(), Enriched(enrichment, make_reply()), OUTPUT, {}, wall_s=lambda: NOW_S)
    assert outgoing.value is not None
    assert enriched.decode(outgoing.value).enrichment == enrichment
    assert orjson.loads(orjson.dumps(enrichment)) == enrichment


def _is_typed(said: Completion) -> None:
    assert isinstance(said.text, str)
    assert said.text.strip()
    assert isinstance(said.model, str)
    assert isinstance(said.finish_reason, str)
    assert said.input_tokens >= 0
    assert said.output_tokens >= 0
