"""`inputs` from the configuration to the provenance, and what `lint` and `try` say about it."""

import json
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.fault_server import FaultServer, answer
from tests.support.llm_settings import model_settings
from tests.support.settings_files import SOUND, patient, planted, write_sound
from tests.support.tokenizers_made_here import byte_level
from tests.support.wire import make_record
from workers.cli.configuration import examine
from workers.cli.try_record import course
from workers.cli.try_report import as_plain, steps
from workers.inputs import read_tokenizer
from workers.llm import Client
from workers.outcome import Enriched
from workers.pipeline import decide
from workers.records import Passage
from workers.settings.source import load
from workers.stages.s5_route import route
from workers.task import compile_task

GOOD = answer('{"label": "spam"}')
VALUE = orjson.dumps({"text": "word " * 1_000})
INPUTS = SOUND.replace("    input: raw\n", "    input: raw\n    inputs: {text: {max_tokens: 100}}\n")
CUT = {
    "field": "text",
    "keep": "ends",
    "kept_tokens": 100,
    "kept_chars": 289,
    "of_chars": 5_000,
    "counted": "estimate",
}


async def test_what_was_cut_is_in_the_provenance_after_a_second_ask_too(tmp_path: Path) -> None:
    """Each ask sends the short text; the input beside the enrichment is whole."""
    async with FaultServer(answer("no JSON"), GOOD) as server:
        settings = load(write_sound(tmp_path, patient(INPUTS).replace("http://localhost:8000", server.url))).settings
        client = Client("small", settings.models["small"])
        task = compile_task("triage", settings.tasks["triage"], client, settings.models["small"])
        await client.start()
        record = make_record(topic="raw", value=VALUE)
        outcome = await decide(record, task, Passage(deadline_s=20))
        await client.close()
    assert isinstance(outcome, Enriched), outcome
    asked: list[Any] = [json.loads(request.body)["messages"][-1]["content"] for request in server.requests]
    assert [len(text) < 600 and "\n[...]\n" in text for text in asked] == [True, True]
    [outgoing] = route(record, outcome, task, {})
    written = orjson.loads(outgoing.value or b"")
    assert written["provenance"]["cut"] == [CUT]
    assert len(written["input"]["text"]) == 5_000


def test_each_route_counts_as_its_model_does(tmp_path: Path) -> None:
    """A record that goes to another model first is cut by that one's count."""
    byte_level(tmp_path)
    text = INPUTS.replace(
        "tasks:\n", "  large: {model: big, url: 'http://localhost:8001', tokenizer: tokenizer.json}\ntasks:\n"
    )
    text = text.replace(
        "    input: raw\n", "    input: raw\n    routes: [{when: {field: vip, equals: true}, model: large}]\n"
    )
    settings = load(write_sound(tmp_path, text)).settings
    large = settings.models["large"]
    task = compile_task(
        "triage",
        settings.tasks["triage"],
        Client("small", settings.models["small"]),
        model_settings("http://localhost:8000"),
        {"large": (Client("large", large), large)},
    )
    assert [one.fit and one.fit.counter.counted for one in (task, task.for_value({"vip": True}))] == [
        "estimate",
        "tokenizer",
    ]


async def test_try_shows_what_was_cut(tmp_path: Path) -> None:
    """Before the prompt, so that nobody wonders where the rest is; for a short text, nothing."""
    async with FaultServer(GOOD, GOOD) as server:
        loaded = load(write_sound(tmp_path, patient(INPUTS).replace("http://localhost:8000", server.url)), {})
        long, short = [
            as_plain(await course(loaded.settings, "triage", value, None), loaded.redactor)
            for value in (VALUE, b'{"text": "short"}')
        ]
    assert (long["cut"], short["cut"]) == ([CUT], [])
    assert json.loads(long["produced"][0]["value"])["provenance"]["cut"] == [CUT]
    said = [what for step, what, _ in steps(long) if step == "cut"]
    assert said == ["text: the model sees 289 of 5000 characters (estimated 100 tokens), keep ends"]
    assert "cut" not in [step for step, _, _ in steps(short)]


# What is replaced in the sound configuration, by what, and what must be said at the mark.
MISTAKES = {
    "no tokens": ("    input: raw", "    input: raw\n    inputs: {text: {max_tokens: «0}}", "greater than 0"),
    "no such way": ("    input: raw", "    input: raw\n    inputs: {text: {max_tokens: 9, keep: «middle}}", "ends"),
    "a text has no fields": (
        "    input: raw",
        "    input: raw\n    input_format: text\n    inputs: {«text: {max_tokens: 9}}",
        "`.` is all of it",
    ),
    "empty path": ("    input: raw", "    input: raw\n    inputs: {'': «{max_tokens: 9}}", "must be a path"),
    "empty step": ("    input: raw", "    input: raw\n    inputs: {a..b: «{max_tokens: 9}}", "must be a path"),
    "no tokenizer": ("    model: tiny", "    model: tiny\n    tokenizer: «none.json", "no such file"),
    "another file": ("    model: tiny", "    model: tiny\n    tokenizer: «answer.json", "is no tokenizer.json"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_lint_names_a_mistake_at_its_place(name: str, tmp_path: Path) -> None:
    """Budgets, paths, and the tokenizer's file."""
    old, new, what = MISTAKES[name]
    text, place = planted(old, new)
    problems = examine(write_sound(tmp_path, text), environ={})[1]
    assert [(one.file.name, one.line, one.column) for one in problems] == [("penstock.yaml", *place)], problems
    assert what in problems[0].what


def test_lint_finds_nothing_wrong_with_budgets(tmp_path: Path) -> None:
    """With a tokenizer's file, several parts, and the whole of a text."""
    byte_level(tmp_path)
    text = INPUTS.replace("    model: tiny", "    model: tiny\n    tokenizer: tokenizer.json")
    assert examine(write_sound(tmp_path, text), environ={})[1] == []
    whole = INPUTS.replace("{text: {max_tokens: 100}}", "{.: {max_tokens: 9, keep: sections}}\n    input_format: text")
    assert examine(write_sound(tmp_path, whole, user__j2="{{ record }}"), environ={})[1] == []


def test_lint_says_how_to_install_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no dependency of ours: without it, a worker still counts, by estimate."""
    read_tokenizer.cache_clear()
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    (tmp_path / "tokenizer.json").write_text("{}")
    text = INPUTS.replace("    model: tiny", "    model: tiny\n    tokenizer: tokenizer.json")
    [problem] = examine(write_sound(tmp_path, text), environ={})[1]
    assert "pip install --no-deps tokenizers" in problem.what
