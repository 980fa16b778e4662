"""No work on one record holds the event loop for long, whatever is in it: so nothing needs a thread of its own."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from workers.answers import compile_schema
from workers.ladder.conditions import OPERATORS
from workers.loop_lag import WARN_S
from workers.nesting import too_deep
from workers.salvage import candidates
from workers.stages.s2_prompt import _harmless

INPUT, ANSWER = 256 << 10, 1 << 20
"""The default of `max_input_bytes`, and of `max_response_bytes`."""

INPUTS = {
    "brackets": "[" * (INPUT // 2) + "]" * (INPUT // 2),
    "quotes": '"\\""' * (INPUT // 4),
    "control tokens": "<|" * (INPUT // 2),
    "control tokens of another script": "é<|" * (INPUT // 4),
    "zero-width spaces": "\u200b" * INPUT,
}
ANSWERS = {
    "braces": "{" * ANSWER,
    "unfinished objects": '{"a":' * (ANSWER // 5),
    "fences": "```json\n{" * (ANSWER // 9),
    "many objects": '{"a":1}' * (ANSWER // 7),
    "escapes": '{"a":"' + '\\"' * (ANSWER // 2),
}
PATTERNS = ["^(a+)+$", "^(a|aa)+$", "(a+a+)+y"]
"""Each takes a backtracking engine longer than the universe, on 60 characters."""


def seconds(work: Callable[[], object]) -> float:
    """CPU time of this thread: a busy machine does not count."""
    began_s = time.thread_time()
    work()
    return time.thread_time() - began_s


def parsed(answer: str) -> None:
    """Do what the parse stage does with an answer that is no JSON."""
    for _, candidate in candidates(answer):
        try:
            orjson.loads(candidate)
        except orjson.JSONDecodeError:
            continue


@pytest.mark.fault("P4")
@pytest.mark.parametrize("name", INPUTS)
def test_no_input_is_long_to_read(name: str) -> None:
    """The largest input that is taken, made to be slow: its depth check and its prompt."""
    text = INPUTS[name]
    assert seconds(lambda: (too_deep(text.encode()), _harmless(text))) < WARN_S / 2


@pytest.mark.fault("P4")
@pytest.mark.parametrize("name", ANSWERS)
def test_no_answer_is_long_to_search(name: str) -> None:
    """The largest answer that is taken, made to be slow: the search for JSON inside it."""
    assert seconds(lambda: parsed(ANSWERS[name])) < WARN_S / 2


@pytest.mark.fault("P4")
@pytest.mark.parametrize("pattern", PATTERNS)
def test_no_expression_is_long_to_match(pattern: str, tmp_path: Path) -> None:
    """Expressions of rules and of answer schemas run in linear time."""
    text = "a" * ANSWER + "b"
    path = tmp_path / "schema.json"
    path.write_text(json.dumps({"properties": {"text": {"type": "string", "pattern": pattern}}}))
    schema, rule = compile_schema(path), OPERATORS["matches"](pattern)
    assert seconds(lambda: (schema.check({"text": text}), rule(text))) < WARN_S / 2
