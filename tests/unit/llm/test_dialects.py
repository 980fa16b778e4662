"""How requests are spelled and answers are read."""

import json
import re
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.dialects import DIALECTS, speaking
from tests.support.fault_server import completion
from tests.support.llm_settings import ASK, model_settings
from workers.errors import AnswerEmpty, AnswerRefused, BadEnvelope, NoAnswer
from workers.llm.dialects import Dialect, dialect_of
from workers.llm.dialects.openai import schema_name
from workers.llm.transport import target
from workers.ports import Ask


def spoken(name: str) -> Dialect:
    """Return the dialect of that name."""
    return dialect_of(model_settings("http://h", **speaking(name)))


@pytest.mark.parametrize("name", ["openai", "vllm", "llamacpp"])
def test_the_frame_takes_a_json_string(name: str) -> None:
    """Head, the user's text as JSON and tail make the documented body, and nothing but it."""
    frame = spoken(name).frame("tiny", ASK)
    assert json.loads(frame.head + json.dumps('a "quoted"\nticket').encode() + frame.tail) == {
        "model": "tiny",
        "max_tokens": 64,
        "temperature": 0.0,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "triage", "strict": True, "schema": ASK.schema},
        },
        "messages": [
            {"role": "system", "content": "Sort tickets."},
            {"role": "user", "content": 'a "quoted"\nticket'},
        ],
    }


def test_text_answers_ask_for_no_format() -> None:
    """Without a schema there is no response_format, without a system text no system turn."""
    ask = Ask(name="t", system="", schema=None, max_tokens=5, temperature=0.5)
    frame = spoken("openai").frame("m", ask)
    body = json.loads(frame.head + b'"hi"' + frame.tail)
    assert body["messages"] == [{"role": "user", "content": "hi"}]
    assert "response_format" not in body


@given(st.text(max_size=100))
def test_schema_names_are_what_openai_takes(name: str) -> None:
    """Any name becomes 1 to 64 of [a-zA-Z0-9_-]."""
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", schema_name(name))


def read(envelope: Any) -> tuple[str, str, str, int, int]:
    """Read an envelope given as JSON: text, model, finish reason, tokens read and written."""
    return spoken("openai").read(json.dumps(envelope).encode())[:5]


def test_a_completion_is_read() -> None:
    """Text, model, finish reason and both token counts."""
    assert read(completion("hi", "length")) == ("hi", "tiny", "length", 11, 7)


def test_what_a_server_leaves_out() -> None:
    """Missing usage, model and finish reason are no failure."""
    assert read({"choices": [{"message": {"content": "hi"}}]}) == ("hi", "", "", 0, 0)
    assert read({**completion("hi"), "usage": {"prompt_tokens": "many"}})[3:] == (0, 0)


@pytest.mark.parametrize(
    ("envelope", "error"),
    [
        ({"choices": []}, AnswerEmpty),
        (completion(None), AnswerEmpty),
        (completion(" \n\t"), AnswerEmpty),
        (completion("   ", "length"), AnswerEmpty),
        (completion(None, tool_calls=[{}]), AnswerEmpty),
        (completion(None, refusal="I cannot"), AnswerRefused),
        (completion("half", "content_filter"), AnswerRefused),
        ({}, BadEnvelope),
        ([], BadEnvelope),
        ({"error": {"message": "x"}}, BadEnvelope),
        ({"choices": "x"}, BadEnvelope),
        ({"choices": [1]}, BadEnvelope),
        ({"choices": [{"text": "x"}]}, BadEnvelope),
    ],
)
def test_what_is_no_answer(envelope: object, error: type[NoAnswer]) -> None:
    """Empty, refused, and not a completion at all are three different things."""
    with pytest.raises(error):
        read(envelope)


@given(st.sampled_from(DIALECTS), st.binary(max_size=200))
def test_no_body_breaks_the_reading(name: str, body: bytes) -> None:
    """Whatever a server sends, reading ends in a completion or in one of our errors."""
    with suppress(NoAnswer):
        spoken(name).read(body)


@pytest.mark.parametrize("url", ["http://h:8000", "http://h:8000/", "http://h:8000/v1", "http://h:8000/v1/"])
def test_the_root_is_found(url: str) -> None:
    """A server's root may be given with or without a slash or /v1; the label is the root."""
    to = target(url, "/v1/chat/completions")
    assert str(to.url) == "http://h:8000/v1/chat/completions"
    assert to.label == "http://h:8000"


def test_a_prefix_stays_and_userinfo_goes() -> None:
    """A gateway's path is kept; user and password become a header and leave the label."""
    to = target("https://me:canary@gw/llm/v1?x=canary#canary", "/v1/chat/completions")
    assert str(to.url) == "https://gw/llm/v1/chat/completions"
    assert "canary" not in to.label
    assert to.headers == {"Authorization": "Basic bWU6Y2FuYXJ5"}


@pytest.mark.parametrize("url", ["h:8000", "ftp://h", "http://", "file:///etc/passwd"])
def test_other_urls_are_refused(url: str) -> None:
    """Only http and https with a host."""
    with pytest.raises(ValueError, match="http"):
        target(url, "/x")
