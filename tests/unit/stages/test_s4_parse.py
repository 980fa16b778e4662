"""Stage 4: what counts as an answer (rows E11-E14)."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.wire import make_reply, make_task
from workers import metrics
from workers.answers import compile_schema
from workers.errors import (
    AnswerCut,
    AnswerEmpty,
    AnswerNotJson,
    AnswerOffSchema,
    AnswerTooLong,
    BadAnswer,
)
from workers.records import REPETITION, Reply
from workers.stages.s4_parse import parse
from workers.task import Task

SCHEMA = Path(__file__).parents[3] / "config" / "schemas" / "triage.v1.json"
GOOD = {"category": "bug", "urgency": "low", "summary": "It crashes"}
JSON = orjson.dumps(GOOD).decode()
MEMBERS = "{" + ",".join(f'"k{n}":1' for n in range(80_000)) + "}"
"""About a mebibyte."""
TRIAGE = replace(make_task(), check=compile_schema(SCHEMA).check)
TEXT = make_task(answer={"text": {"max_chars": 10}})


def said(text: str, finish_reason: str = "stop") -> Reply:
    """Return a reply that says `text`."""
    return replace(make_reply(), text=text, finish_reason=finish_reason)


def anything(path: Path) -> Task:
    """Return a task whose schema accepts every JSON value."""
    path.write_text("{}")
    return replace(make_task(), check=compile_schema(path).check)


def salvaged(rung: str) -> float:
    """Return how many answers of the task needed this repair."""
    return float(metrics.ANSWERS_SALVAGED.labels(TRIAGE.name, rung)._value.get())


def test_an_answer_that_is_json_is_taken_as_it_is() -> None:
    """Blanks around it do not matter, and nothing is counted as repaired."""
    before = salvaged("fenced"), salvaged("embedded")
    assert parse(said(f"\n {JSON} \n"), TRIAGE) == GOOD
    assert (salvaged("fenced"), salvaged("embedded")) == before


@pytest.mark.parametrize(
    ("text", "rung"),
    [
        (f"```json\n{JSON}\n```", "fenced"),
        (f"```\n{JSON}```", "fenced"),
        (f"Here it is:\n```JSON\n{JSON}\n```\nAnything else?", "fenced"),
        (f"```json\n{JSON}", "fenced"),
        (f"```python\nprint()\n```\nand\n```json\n{JSON}\n```", "fenced"),
        (f"Sure! {JSON} I hope that helps.", "embedded"),
        (f"The set {{bug}} fits, so: {JSON}", "embedded"),
        (f"<think>{{</think>{JSON}", "embedded"),
        (f'{{"draft": 1}} or better {JSON}', "embedded"),
        (f'He said "look:\n{JSON}', "embedded"),
        (f'{{He said "look:\n{JSON}', "embedded"),
        (f"{JSON}{JSON}", "embedded"),
    ],
)
def test_an_answer_with_more_than_json_is_repaired_and_counted(text: str, rung: str) -> None:
    """The fence goes first, then the first object in the prose that passes the schema."""
    before = salvaged(rung)
    assert parse(said(text), TRIAGE) == GOOD
    assert salvaged(rung) == before + 1


SUMMARY = str(GOOD["summary"])


@pytest.mark.parametrize("control", ["\n", "\t", "\r\n", "\x00", "\x1f", "\n\\n", "\\\\\n"])
def test_a_control_character_in_a_string_stands_for_itself(control: str) -> None:
    """JSON wants it escaped; a grammar or a model that does not says the same. It is counted as a repair."""
    before = salvaged("escaped")
    reply = said(JSON.replace(SUMMARY, f"one{control}two"))
    meant = {"\n\\n": "\n\n", "\\\\\n": "\\\n"}.get(control, control)
    assert parse(reply, TRIAGE) == {**GOOD, "summary": f"one{meant}two"}
    assert reply.repairs == ("escaped",)
    assert salvaged("escaped") == before + 1


@pytest.mark.parametrize(
    "text",
    [
        JSON.replace(SUMMARY, "one\\\ntwo"),
        JSON.replace(f'{SUMMARY}"', "one\ntwo"),
        JSON.replace(f'"{SUMMARY}', "one\ntwo"),
        JSON.replace(SUMMARY, 'one\n"two'),
        JSON.replace("{", "{\x01"),
        f"Look: {JSON.replace(SUMMARY, 'one' + chr(9) + 'two')}",
    ],
    ids=["behind a backslash", "no end", "no beginning", "one quotation mark more", "not in a string", "in prose"],
)
def test_no_other_text_becomes_json_by_it(text: str) -> None:
    """What may have been meant in another way is no answer."""
    with pytest.raises(AnswerNotJson):
        parse(said(text), TRIAGE)


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("I cannot tell.", AnswerNotJson, "line 1"),
        (JSON[:-1], AnswerNotJson, "line 1"),
        ("{'category': 'bug'}", AnswerNotJson, "line 1"),
        ('{"category": NaN}', AnswerNotJson, "line 1"),
        ('{"category": 1e999}', AnswerNotJson, "infinity"),
        ("{" * 100, AnswerNotJson, "line 1"),
        ("{ " * 2_000 + "} " * 2_000, AnswerNotJson, "line 1"),
        ('{"category": "bug", "urgency": "low"}', AnswerOffSchema, 'the answer: "summary" is a required property'),
        (JSON.replace("bug", "spam"), AnswerOffSchema, "category: the value is not one of"),
        (JSON.replace('"bug"', "123456789012345678901234567890"), AnswerOffSchema, "category"),
        (
            JSON.replace("}", ',"sure":1,"odd name":2}'),
            AnswerOffSchema,
            "a property that the schema does not allow: sure",
        ),
        (f"[{JSON}]", AnswerOffSchema, 'not of type "object"'),
        ("null", AnswerOffSchema, 'not of type "object"'),
        (f"Sure: {JSON.replace('bug', 'spam')}", AnswerOffSchema, "category"),
        (" \n\t", AnswerEmpty, "blanks"),
    ],
)
def test_an_answer_that_is_none(text: str, error: type[BadAnswer], words: str) -> None:
    """The error says where and what, keeps the answer, and quotes none of it."""
    with pytest.raises(error) as caught:
        parse(said(text), TRIAGE)
    assert type(caught.value) is error
    assert words in str(caught.value)
    assert caught.value.raw == text[:2_048]
    assert "spam" not in str(caught.value)
    assert len(str(caught.value)) <= 300


@pytest.mark.parametrize("text", [JSON[:-4], '{"category": "bug"}', "Let me think", ""])
def test_an_answer_that_was_cut_says_so(text: str) -> None:
    """Out of tokens and of no use is its own error: the same request would end the same way."""
    with pytest.raises(AnswerCut, match="max_tokens") as caught:
        parse(said(text, "length"), TRIAGE)
    assert caught.value.raw == text


def test_a_whole_answer_counts_even_at_the_last_token() -> None:
    """What satisfies the schema is whole, whatever the finish reason."""
    assert parse(said(JSON, "length"), TRIAGE) == GOOD


def test_of_duplicate_keys_the_last_counts_and_big_integers_become_floats(tmp_path: Path) -> None:
    """An enrichment is what orjson reads, so that the output can hold it."""
    value = parse(said('{"a": 1, "a": 18446744073709551616}'), anything(tmp_path / "any.json"))
    assert value == {"a": 1.8446744073709552e19}
    assert isinstance(value["a"], float)


@pytest.mark.parametrize("wrapped", ["{}", "Sure: {}"])
def test_an_answer_too_deep_to_be_written_is_refused(tmp_path: Path, wrapped: str) -> None:
    """A schema that accepts everything does not let an answer through that no output could hold."""
    task = anything(tmp_path / "any.json")
    deep: Any = '{"a":' * 201 + "1" + "}" * 201
    with pytest.raises(AnswerOffSchema, match="deeper than 200"):
        parse(said(wrapped.replace("{}", deep)), task)
    parse(said(wrapped.replace("{}", '{"a":' * 200 + "1" + "}" * 200)), task)


def test_a_text_answer_is_stripped_and_bounded() -> None:
    """A text may be as long as `max_chars` says and not a character longer."""
    assert parse(said(" 0123456789\n"), TEXT) == "0123456789"
    with pytest.raises(AnswerTooLong, match="11 characters, max_chars is 10"):
        parse(said("0123456789a"), TEXT)
    with pytest.raises(AnswerEmpty):
        parse(said("  "), TEXT)


def test_a_text_answer_that_was_cut_is_no_answer() -> None:
    """Half a text cannot be told from a whole one by any schema."""
    with pytest.raises(AnswerCut):
        parse(said("012", "length"), TEXT)


def test_an_answer_that_the_server_broke_off_is_not_whole() -> None:
    """Ollama does so with one that goes round in circles: no more tokens would help, so it does not count as cut."""
    with pytest.raises(BadAnswer, match="not whole") as caught:
        parse(said("no no no", REPETITION), make_task())
    assert type(caught.value) is BadAnswer
    for text in (JSON[:-4], f'{{"draft": {JSON}, "no'):
        with pytest.raises(AnswerNotJson):
            parse(said(text, REPETITION), TRIAGE)
    assert parse(said(f"{JSON} no no no", REPETITION), TRIAGE) == GOOD


def test_a_number_that_was_broken_off_may_have_had_more_digits(tmp_path: Path) -> None:
    """Everything else has an end of its own."""
    for reason in ("length", REPETITION):
        with pytest.raises(BadAnswer, match="more digits"):
            parse(said("111", reason), anything(tmp_path / "any.json"))


def test_a_text_that_is_too_long_and_cut_is_too_long() -> None:
    """A larger budget would only make it longer: the second ask has to say how long it may be."""
    with pytest.raises(AnswerTooLong):
        parse(said("0123456789a", "length"), TEXT)


@pytest.mark.parametrize(
    "text",
    [
        "<think>A greeting,\nso hello.</think>\n\nhello",
        " \n<think></think>hello",
        "A greeting,\nso hello.\n</think>\n\nhello",
        "Hm.\n</think> \r\nhello",
    ],
)
def test_the_thought_before_a_text_is_no_part_of_it(text: str) -> None:
    """It is left out, counted, and noted for the provenance; `max_chars` is of the text."""
    before, reply = salvaged("thought"), said(text)
    assert parse(reply, TEXT) == "hello"
    assert reply.repairs == ("thought",)
    assert salvaged("thought") == before + 1


NOT_ALONE = ("a\n</think> b", "a </think>\nb", "a\n</think>\nb\n</think>\nc", "a <think>\n</think>\nb")


@pytest.mark.parametrize(
    "text", ["a <think> b", "a </think>", "</think> a", "<thinking>a", "hi <think>a</think>", "`<think>`", *NOT_ALONE]
)
def test_marks_of_thinking_elsewhere_are_part_of_a_text(text: str) -> None:
    """Only what stands before all else is taken for a thought: a text may be about thinking."""
    reply = said(text)
    assert parse(reply, make_task()) == text
    assert reply.repairs == ()


def test_only_the_first_thought_is_left_out() -> None:
    """What follows it is the answer, whatever it looks like."""
    assert parse(said("<think>a</think><think>b</think>c"), make_task()) == "<think>b</think>c"


def test_a_thought_without_a_text_is_no_answer() -> None:
    """One that never ends, one that was cut, and one with nothing behind it: three errors, none of them quotes it."""
    with pytest.raises(AnswerOffSchema, match="does not end") as caught:
        parse(said("<think>secret"), TEXT)
    assert caught.value.raw == "<think>secret"
    with pytest.raises(AnswerCut, match="does not end"):
        parse(said("<think>secret", "length"), TEXT)
    with pytest.raises(AnswerEmpty, match="nothing but a thought"):
        parse(said("<think>secret</think> \n"), TEXT)
    with pytest.raises(AnswerCut, match="not whole"):
        parse(said("<think>secret</think>half a te", "length"), make_task())


MIB = 1 << 20


@pytest.mark.parametrize(
    "text",
    [
        "{" * MIB,
        "[" * MIB,
        '{"a":' * 100_000 + "1" + "}" * 100_000,
        '{"' + '\\"' * (MIB // 2),
        '{"category":"' + "a" * MIB + '"}',
        MEMBERS,
        JSON[:-1] + "".join(f',"k{n}":1' for n in range(80_000)) + "}",
        "Sure: " + f"{JSON[:-1]},1}} " * (MIB // 70),
    ],
    ids=lambda text: text[:10].encode("unicode_escape").decode(),
)
def test_no_answer_of_a_mebibyte_holds_the_loop(text: str) -> None:
    """P4: whatever a model says, reading it takes less than 0.1 s of the loop's time (CPU time, the best of three).

    On a slow machine: less than `json.loads` takes there to read as much, five times.
    """
    spent_s, measure_s = [], []
    for _ in range(3):
        began_s = time.thread_time()
        json.loads(MEMBERS)
        read_s = time.thread_time()
        with pytest.raises(BadAnswer):
            parse(said(text), TRIAGE)
        measure_s.append(read_s - began_s)
        spent_s.append(time.thread_time() - read_s)
    assert min(spent_s) < max(0.1, 5 * min(measure_s))
