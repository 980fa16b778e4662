"""What is wrong inside the files that a task names, at the line of that file."""

from pathlib import Path

import pytest

from tests.support.settings_files import FILES, MARK, SOUND, planted, write_sound
from workers.cli.configuration import examine

LADDER = "- rules: rules.yaml\n      - default: {label: other}"
HELD = "{field: a, exists: true}"

# Of one of the named files: its new content, with a mark, and what must be said there.
MISTAKES = {
    "template syntax": ("user.j2", "one\n«{% if record %}\n", "nexpected end of template"),
    "template filter": ("user.j2", "one\n\n«{{ record | to_json }}", "No filter named 'to_json'"),
    "unknown name": ("user.j2", "one\n«{{ record.x }} {{ recrod.x }}\n{{ recrod }}", "did you mean `record`?"),
    "another file": ("user.j2", "\n«{% include 'other.j2' %}", "include"),
    "empty template": ("user.j2", "«\n", "the file is empty"),
    "empty system prompt": ("system.txt", "«", "the file is empty"),
    "schema that is no JSON": ("answer.json", '{\n  "type": «oject}', "not JSON"),
    "schema that is none": ("answer.json", '{\n  "type": "object",\n  "properties": «[]}', "properties"),
    "schema of a text": ("answer.json", '{\n  "type": «"string"}', "an answer is an object"),
    "schema elsewhere": ("answer.json", '«{"$ref": "http://localhost:1/x.json"}', "http://localhost:1/x.json"),
    "rules that are no rules": ("rules.yaml", "rules:\n  - when: «{field: a}\n    then: {label: spam}\n", "operator"),
    "misspelt rules": (
        "rules.yaml",
        f"rules:\n  - «wen: {HELD}\n    when: {HELD}\n    then: {{label: spam}}\n",
        "did you mean `when`?",
    ),
    "rule's answer": (
        "rules.yaml",
        f"rules:\n  - when: {HELD}\n    then: «{{label: spma}}\n",
        "the answer schema refuses this",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_inside_a_named_file(name: str, tmp_path: Path) -> None:
    """The line is that of the file in which the mistake is, so that one can go there."""
    file, marked, what = MISTAKES[name]
    before = marked[: marked.index(MARK)]
    place = (before.count("\n") + 1, len(before.rpartition("\n")[2]) + 1)
    path = write_sound(tmp_path)
    (tmp_path / file).write_text(marked.replace(MARK, ""))
    problems = examine(path, environ={})[1]
    assert [(one.file.name, one.line, one.column, one.severity) for one in problems] == [(file, *place, "error")]
    assert what in problems[0].what


TEXT_TASKS = {"object for a text", "text too long"}

# What is replaced in the sound configuration, by what, and what must be said at the mark.
FIXED_ANSWERS = {
    "default off the schema": ("default: {label: other}", "default: {label: «none}", "the answer schema refuses this"),
    "default that misses a property": ("default: {label: other}", "default: «{}", "required property"),
    "text for an object": ("default: {label: other}", "default: «other", "a mapping, not text"),
    "object for a text": (LADDER, "- default: «{a: 1}", "is text, not a mapping"),
    "text too long": (LADDER, "- default: «abcdef", "longer than `answer.text.max_chars` (5)"),
}


@pytest.mark.parametrize("name", FIXED_ANSWERS)
def test_a_default_is_checked_as_an_answer_is(name: str, tmp_path: Path) -> None:
    """A default that the answer schema refuses would break every consumer, on the worst day."""
    old, new, what = FIXED_ANSWERS[name]
    text, place = planted(old, new)
    if name in TEXT_TASKS:
        text = text.replace("{schema: answer.json}", "{text: {max_chars: 5}}")
    problems = examine(write_sound(tmp_path, text), environ={})[1]
    assert [(one.file.name, one.line, one.column) for one in problems] == [("penstock.yaml", *place)], problems
    assert what in problems[0].what


ONLY_WHEN = {
    "unknown operator": ("{field: plan, «eqals: free}", "did you mean `equals`?"),
    "bad operand": ("{not: {field: plan, in: «free}}", "wants a list"),
    "no operator": ("{any: [«{field: plan}]}", "a condition needs an operator"),
}


@pytest.mark.parametrize("name", ONLY_WHEN)
@pytest.mark.parametrize("setting", ["only_when: {}", "routes: [{{when: {}, model: small}}]"], ids=["only", "route"])
def test_a_condition_of_a_task_is_checked_at_its_place(setting: str, name: str, tmp_path: Path) -> None:
    """`only_when` and `routes` are written as conditions are in rules, and their mistakes are told as theirs are."""
    written, what = ONLY_WHEN[name]
    text, place = planted("    input: raw", f"    input: raw\n    {setting.format(written)}")
    problems = examine(write_sound(tmp_path, text), environ={})[1]
    assert [(one.file.name, one.line, one.column) for one in problems] == [("penstock.yaml", *place)], problems
    assert what in problems[0].what


def test_rules_of_a_text_task_answer_with_text(tmp_path: Path) -> None:
    """A rule's mapping is no answer of a task whose answers are text."""
    text = SOUND.replace("{schema: answer.json}", "{text: {}}").replace("{label: other}", "unknown")
    problems = examine(write_sound(tmp_path, text), environ={})[1]
    assert [(one.file.name, one.line) for one in problems] == [("rules.yaml", 3)]
    assert "text, not a mapping" in problems[0].what


def test_an_unknown_key_does_not_hide_what_else_is_wrong(tmp_path: Path) -> None:
    """A misspelt key and a broken template are told in one round, and no warning about a default misleads."""
    text = SOUND.replace("    input: raw", "    input: raw\n    max_in_fligth: 3\n    max_in_flight: 7")
    problems = examine(write_sound(tmp_path, text, user__j2="{{ nobody }}"), environ={})[1]
    assert [(one.file.name, one.severity) for one in problems] == [("penstock.yaml", "error"), ("user.j2", "error")]


def test_what_is_sound_is_left_alone(tmp_path: Path) -> None:
    """The sound configuration of these tests has no problem."""
    assert set(FILES) == {"system.txt", "user.j2", "answer.json", "rules.yaml"}
    assert examine(write_sound(tmp_path), environ={})[1] == []
