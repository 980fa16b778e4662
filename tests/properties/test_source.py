"""Reading a configuration never fails in another way than by saying what is wrong, and says all of it."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.settings_files import SOUND, write_sound
from workers.cli.configuration import examine
from workers.cli.echo import resolved
from workers.settings.problems import SettingsInvalid
from workers.settings.source import load, read

quick = settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])

WORDS = ["kafka", "tasks", "models", "input", "rules", "default", "null", "true", "no", "1", "0x1", "1e9", ".inf", "é"]
BRACKETS = ["[", "]", "{", "}", ",", ":", "-", "?", "---", "...", "&a", "*a", "!x", "!!int", "<<", "~"]
SIGNS = ["'", '"', "\\", "\\U", "|", ">", "#", "%", "${", "${A}", "${file:x}", "${B:1}", "$$"]
BLANKS = [": ", "- ", " ", "\n", "\n  ", "\t", "\x00", "\x85", "\ufeff", "\ud800"]
YAML_PIECES = st.sampled_from([*WORDS, *BRACKETS, *SIGNS, *BLANKS])
YAML_ISH = st.lists(YAML_PIECES | st.text(max_size=5), max_size=40).map("".join)


def read_or_refuse(folder: Path, raw: bytes) -> None:
    """Read bytes as a configuration: settings or problems must come of it, never an exception."""
    path = folder / "penstock.yaml"
    path.write_bytes(raw)
    loaded, problems = read(path, environ={"A": "1"})
    assert loaded or problems
    lines = len(raw.decode(errors="replace").splitlines()) + 1
    assert all(1 <= problem.line <= lines for problem in problems)


@quick
@given(text=YAML_ISH)
def test_whatever_the_text_it_is_read_or_refused(text: str, tmp_path: Path) -> None:
    """Any text that looks like YAML is a configuration or a list of problems, never another exception."""
    read_or_refuse(tmp_path, text.encode("utf-8", "surrogatepass"))


@quick
@given(raw=st.binary(max_size=200))
def test_whatever_the_bytes_they_are_read_or_refused(raw: bytes, tmp_path: Path) -> None:
    """The same for any bytes."""
    read_or_refuse(tmp_path, raw)


@quick
@given(data=st.data())
def test_whatever_is_cut_or_put_into_a_sound_one(data: st.DataObject, tmp_path: Path) -> None:
    """A sound configuration with a piece removed or anything inserted is read or refused, checks included."""
    start = data.draw(st.integers(0, len(SOUND)))
    end = data.draw(st.integers(start, min(len(SOUND), start + 30)))
    text = SOUND[:start] + data.draw(YAML_ISH) + SOUND[end:]
    path = write_sound(tmp_path)
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    for problem in examine(path, environ={})[1]:
        assert problem.what


TREES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from([*WORDS, "${A}", "small", "raw"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=3),
    max_leaves=6,
)


def ways(value: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the way to every value inside a tree."""
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for step, child in steps for found in [(*way, step), *ways(child, (*way, step))]]


@pytest.mark.fault("D20")
@settings(quick, max_examples=80)
@given(data=st.data())
def test_whatever_stands_for_a_value_is_read_or_refused(data: st.DataObject, tmp_path: Path) -> None:
    """A sound configuration with any of its values replaced by any tree, or with one more key, is read or refused."""
    whole = yaml.safe_load(SOUND)
    for _ in range(data.draw(st.integers(1, 3))):
        *above, last = data.draw(st.sampled_from(ways(whole)))
        parent = whole
        for step in above:
            parent = parent[step]
        parent[last] = data.draw(TREES)
        if isinstance(parent, dict) and data.draw(st.booleans()):
            parent[data.draw(st.sampled_from(WORDS))] = data.draw(TREES)
    path = write_sound(tmp_path)
    path.write_text(yaml.safe_dump(whole, allow_unicode=True), "utf-8")
    loaded, problems = examine(path, environ={"A": "1"})
    assert loaded or problems
    assert all(problem.what and problem.line >= 1 for problem in problems)


# A line of the sound configuration, and the same with a mistake in it that is reported at that line.
MISTAKES: dict[str, str] = {
    "  bootstrap_servers: localhost:9092": "  bootstrap_servers: 9092",
    "  group_id: triage": "  group_id: ${NOT_SET}",
    "  drain_s: 20": "  drain_s: no",
    "    url: http://localhost:8000": "    url: 7",
    "    input: raw": "    input: a b",
    "    answer: {schema: answer.json}": "    answer: {schema: answer.json, x: 1}",
    "      - default: {label: other}": "      - default: 1",
    "    prompt: {system: system.txt, user: user.j2}": "    prompt: {system: system.txt, user: user.j2, user: x}",
}


@quick
@given(chosen=st.sets(st.sampled_from(sorted(MISTAKES)), min_size=1), blanks=st.integers(0, 3))
def test_every_planted_mistake_is_reported_at_its_line(chosen: set[str], blanks: int, tmp_path: Path) -> None:
    """Any combination of mistakes is reported completely, each at its own line, and nothing else is."""
    lines = [""] * blanks + SOUND.splitlines()
    expected = {number for number, line in enumerate(lines, 1) if line in chosen}
    text = "\n".join(MISTAKES[line] if line in chosen else line for line in lines)
    with pytest.raises(SettingsInvalid) as refused:
        load(write_sound(tmp_path, text), environ={})
    assert {problem.line for problem in refused.value.problems} == expected
    assert len(refused.value.problems) == len(expected)


SCALARS: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20)
)
NAMES = st.text(st.characters(exclude_categories=["C"]), max_size=8)
ENRICHMENTS = st.dictionaries(
    NAMES, st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3))
)


@pytest.mark.timeout(600)  # ten seconds of CPU time, which a busy machine may need minutes for
@quick
@given(enrichment=ENRICHMENTS, group=st.text(min_size=1, max_size=20))
def test_what_echo_prints_reads_back(enrichment: dict[str, Any], group: str, tmp_path: Path) -> None:
    """Whatever values the settings have, their echo is a configuration with the same settings."""
    loaded = load(write_sound(tmp_path), environ={})
    first = loaded.settings.model_copy(update={"kafka": loaded.settings.kafka.model_copy(update={"group_id": group})})
    rung = first.tasks["triage"].ladder[1].model_copy(update={"default": enrichment})
    task = first.tasks["triage"].model_copy(update={"ladder": [rung]})
    first = first.model_copy(update={"tasks": {"triage": task}})
    again = tmp_path / "again.yaml"
    again.write_text(resolved(type(loaded)(settings=first, file=again, folder=tmp_path, marks=loaded.marks,
                                           secrets=frozenset(), redactor=loaded.redactor)))  # fmt: skip
    assert load(again, environ={}).settings == first
