"""What lint says of an answer schema: what no server of the task enforces, and where `confidence` stands in it."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.settings_files import MARK, SOUND, write_sound
from workers.cli.configuration import examine
from workers.settings.problems import Problem

LABEL = {"enum": ["spam", "other"]}


def on(dialect: str, text: str = SOUND) -> str:
    """Return the sound configuration with its model in this dialect."""
    return text.replace("    model: tiny\n", f"    dialect: {dialect}\n    model: tiny\n")


def closed(**properties: Any) -> str:
    """Return a schema as text: a closed object with a label and these properties."""
    inner = {"label": LABEL, **properties}
    return json.dumps(
        {"type": "object", "properties": inner, "required": ["label"], "additionalProperties": False}, indent=1
    )


def said(folder: Path, text: str, schema: str) -> list[Problem]:
    """Return all problems."""
    return examine(write_sound(folder, text, answer__json=schema), environ={})[1]


def test_an_unenforced_keyword_is_told_at_its_place(tmp_path: Path) -> None:
    """A warning with file, line and column of the keyword, the dialect, and what it costs."""
    marked = '{"type": "object",\n "properties": {"label": {"enum": ["spam", "other"]},\n  "n": {«"minimum": 1}}}'
    [one] = said(tmp_path, on("llamacpp"), marked.replace(MARK, ""))
    assert (one.file.name, one.line, one.column, one.severity) == ("answer.json", 3, 9, "warning")
    assert one.what.startswith("`minimum` is not enforced by servers of dialect `llamacpp`, it is only checked here")
    assert "costs a second ask" in one.what


def test_a_refused_keyword_is_told_as_left_out(tmp_path: Path) -> None:
    """The server would answer 400: it is not sent, and lint says so. An annotation is left out without a word."""
    schema = closed(tags={"type": "array", "items": {"type": "string"}, "uniqueItems": True, "default": []})
    [one] = said(tmp_path, on("vllm"), schema)
    assert one.what.startswith("`uniqueItems` is not sent to servers of dialect `vllm`: they refuse it")
    assert not [one for one in said(tmp_path, on("openai"), schema) if "default" in one.what]


def test_what_openai_refuses_as_a_whole_comes_with_what_to_do(tmp_path: Path) -> None:
    """An optional property and an open object, each at its own place."""
    open_and_optional = '{\n "properties": {"label": {"enum": ["spam", "other"]}}}'
    told = {(one.line, one.column): one.what for one in said(tmp_path, SOUND, open_and_optional)}
    assert set(told) == {(1, 1), (2, 17)}
    assert "add it; otherwise a server of dialect `openai` can refuse the whole schema" in told[1, 1]
    assert "not in `required`: add it there" in told[2, 17]
    assert said(tmp_path, on("vllm"), open_and_optional) == []


def test_one_line_for_each_keyword_and_dialect(tmp_path: Path) -> None:
    """A keyword in many places is one line at the first of them; two models of one dialect are one server's kind."""
    schema = closed(**{f"n{place}": {"type": "number", "maximum": place} for place in range(5)})
    text = on("ollama").replace("  small:", "  large: {dialect: ollama, model: m, url: 'http://localhost:1'}\n  small:")
    text = text.replace("    ladder:\n", "    ladder:\n      - model: large\n")
    [one] = said(tmp_path, text, schema)
    assert "(and in 4 more places)" in one.what
    assert json.loads(schema)["properties"]["n0"]
    assert one.line == next(place for place, line in enumerate(schema.splitlines(), 1) if '"maximum": 0' in line)
    both = said(tmp_path, text.replace("large: {dialect: ollama", "large: {dialect: tgi"), schema)
    assert [problem.what.split("dialect `")[1].split("`")[0] for problem in both] == ["ollama", "tgi"]


def test_a_schema_of_another_kind_does_not_drown_the_rest(tmp_path: Path) -> None:
    """Eight keywords are told of, the others counted."""
    many = {"minProperties": 0, "maxProperties": 9, "propertyNames": {}, "patternProperties": {}, "not": {"const": 1}}
    many |= {"if": {}, "then": {}, "dependentRequired": {}, "dependentSchemas": {}, "unevaluatedProperties": {}}
    problems = said(tmp_path, on("llamacpp"), closed(deep={"type": "object", **many}))
    assert len(problems) == 9
    assert [one.what for one in problems if one.what.startswith("2 more keywords")]
    assert {one.severity for one in problems} == {"warning"}


# What the schema says of the field, and: severity and a part of what is said; None when nothing is.
FIELDS: dict[str, tuple[dict[str, Any], str | None, str]] = {
    "a number": ({"type": "number", "maximum": 1}, None, ""),
    "a number or null": ({"type": ["number", "null"]}, None, ""),
    "a reference": ({"$ref": "#/$defs/sure"}, None, ""),
    "one of several": ({"enum": [0.1, 0.9]}, None, ""),
    "a text": ({"type": "string"}, "error", "is no number by the answer schema"),
    "anything": ({}, "warning", "does not say that `sure` is a number"),
    "never so sure": ({"type": "number", "maximum": 0.5}, "error", "no answer reaches it"),
}


@pytest.mark.parametrize("name", FIELDS)
def test_the_field_of_confidence_is_a_number_of_the_schema(name: str, tmp_path: Path) -> None:
    """A typing error there would send every record down the ladder as `uncertain`."""
    inner, severity, what = FIELDS[name]
    schema = json.loads(closed(sure=inner))
    schema["required"] = ["label", "sure"]
    schema["$defs"] = {"sure": {"type": "number"}}
    text = on("vllm").replace(
        "{schema: answer.json}", "{schema: answer.json, confidence: {field: sure, at_least: 0.7}}"
    )
    text = text.replace("      - default: {label: other}\n", "").replace("{label: spam}", "{label: spam, sure: 1}")
    rules = "rules:\n  - when: {field: text, contains_any: [buy]}\n    then: {label: spam, sure: 0.1}\n"
    path = write_sound(tmp_path, text, answer__json=json.dumps(schema), rules__yaml=rules)
    problems = [one for one in examine(path, environ={})[1] if one.file.name == "penstock.yaml"]
    if severity is None:
        assert problems == []
    else:
        [one] = problems
        assert (one.severity, one.line) == (severity, text[: text.index("confidence:")].count("\n") + 1)
        assert what in one.what


def test_a_field_of_confidence_that_the_schema_does_not_have(tmp_path: Path) -> None:
    """In a closed object it cannot come: an error. In an open one it may, and where it may be missing lint says so."""
    text = on("vllm").replace("{schema: answer.json}", "{schema: answer.json, confidence: {at_least: 0.7}}")
    [one] = said(tmp_path, text, closed())
    assert (one.severity, "allows no `confidence`" in one.what) == ("error", True)
    [one] = said(tmp_path, text, closed().replace(' "additionalProperties": false', ' "additionalProperties": true'))
    assert (one.severity, "does not say that" in one.what) == ("warning", True)
    [one] = said(tmp_path, text, closed(confidence={"type": "number"}))
    assert (one.severity, "is not required" in one.what) == ("warning", True)


def test_a_nested_field_of_confidence(tmp_path: Path) -> None:
    """Its path leads through properties."""
    text = on("vllm").replace("{schema: answer.json}", "{schema: answer.json, confidence: {field: a.b, at_least: 0.7}}")
    inner = {"type": "object", "properties": {"b": {"type": "integer"}}, "required": ["b"]}
    [one] = said(tmp_path, text, closed(a=inner))
    assert "`a.b` is not required" in one.what
    both = closed(a=inner).replace('"label"\n ]', '"label",\n  "a"\n ]')
    assert not [one for one in said(tmp_path, text, both) if "not required" in one.what]
