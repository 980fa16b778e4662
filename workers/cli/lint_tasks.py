"""What only compiling a task's files can tell: prompts, answer schemas, and the fixed answers of its ladder."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from workers import answers, prompts
from workers.cli.lint_inputs import check_inputs
from workers.cli.lint_prompts import check_released
from workers.cli.lint_schemas import check_schema
from workers.ladder import ConditionInvalid, compile_condition
from workers.ladder.rules import RulesInvalid, read_rules
from workers.settings import tree
from workers.settings.checks.files import unreadable
from workers.settings.model import TaskSettings
from workers.settings.problems import Problem
from workers.settings.rungs import DefaultRung, RulesRung
from workers.settings.source import Loaded

Objection = Callable[[Any], tuple[tree.Path, str] | None]
"""Says where inside a value, and why, the value could not be an answer; None when it could."""

_PLACED = re.compile(r"\((\d+),(\d+)\)\s+(.*)", re.DOTALL)


def check_tasks(loaded: Loaded) -> Iterator[Problem]:
    """Yield what is wrong inside the files that tasks name. Files that are not there are told about elsewhere."""
    yield from check_released(loaded)
    yield from check_inputs(loaded)
    for name, task in loaded.settings.tasks.items():
        yield from _prompt(loaded, task)
        yield from _conditions(loaded, name, task)
        schema = _compiled_schema(loaded, task)
        if isinstance(schema, Problem):
            yield schema
            continue
        if schema is not None and task.answer.schema_file is not None:
            yield from check_schema(loaded, name, task, task.answer.schema_file, schema.schema)
        yield from _ladder(loaded, name, task, _objection(task, schema))


def _prompt(loaded: Loaded, task: TaskSettings) -> Iterator[Problem]:
    files = (task.prompt.system, task.prompt.user)
    if any(map(unreadable, files)):
        return
    for file in files:
        if not file.read_bytes().strip():
            yield loaded.problem_in(file, 1, 1, "the file is empty")
    try:
        prompts.compile_prompt(*files)
    except prompts.PromptInvalid as exc:
        for line, column, what in exc.problems:
            yield loaded.problem_in(exc.path, line, column, what)


def _conditions(loaded: Loaded, name: str, task: TaskSettings) -> Iterator[Problem]:
    at: tree.Path = ("tasks", name)
    written: dict[tree.Path, Any] = {(*at, "routes", place, "when"): one.when for place, one in enumerate(task.routes)}
    if task.only_when is not None:
        written[*at, "only_when"] = task.only_when
    for place, condition in written.items():
        try:
            compile_condition(condition)
        except ConditionInvalid as exc:
            for way, what, at_key in exc.problems:
                yield loaded.problem((*place, *way), what, at_key=at_key)


def _compiled_schema(loaded: Loaded, task: TaskSettings) -> answers.CompiledSchema | Problem | None:
    """Return the task's schema, what is wrong with it, or None for a text answer and for a file that is not there."""
    file = task.answer.schema_file
    if file is None or unreadable(file):
        return None
    try:
        compiled = answers.compile_schema(file)
    except answers.SchemaInvalid as exc:
        return _schema_problem(loaded, file, str(exc).removeprefix(str(file)))
    if compiled.schema.get("type", "object") != "object":
        line, column = _marks(file).mark(("type",))
        return loaded.problem_in(file, line, column, "an answer is an object: `type` must be `object`")
    return compiled


def _schema_problem(loaded: Loaded, file: Path, said: str) -> Problem:
    """Return the problem that `said` describes: `(line,column) what`, or `: place/inside: what`."""
    if placed := _PLACED.fullmatch(said):
        return loaded.problem_in(file, int(placed[1]), int(placed[2]), placed[3])
    what = said.removeprefix(": ")
    line, column = _marks(file).mark(_way(what.partition(": ")[0]))
    return loaded.problem_in(file, line, column, what)


def _objection(task: TaskSettings, schema: answers.CompiledSchema | None) -> Objection:
    if task.answer.text is not None:
        max_chars = task.answer.text.max_chars
        return lambda value: _text_objection(value, max_chars)
    return lambda value: _schema_objection(value, schema)


def _text_objection(value: Any, max_chars: int) -> tuple[tree.Path, str] | None:
    if not isinstance(value, str):
        return (), "an answer of this task is text, not a mapping"
    return ((), f"longer than `answer.text.max_chars` ({max_chars})") if len(value) > max_chars else None


def _schema_objection(value: Any, schema: answers.CompiledSchema | None) -> tuple[tree.Path, str] | None:
    if not isinstance(value, dict):
        return (), "an answer by schema is a mapping, not text"
    refused = schema.check(value) if schema else None
    return (_way(refused.partition(": ")[0]), f"the answer schema refuses this: {refused}") if refused else None


def _ladder(loaded: Loaded, name: str, task: TaskSettings, objection: Objection) -> Iterator[Problem]:
    for place, rung in enumerate(task.ladder):
        if isinstance(rung, DefaultRung):
            if refused := objection(rung.default):
                inside, what = refused
                yield loaded.problem(("tasks", name, "ladder", place, "default", *inside), what)
        elif isinstance(rung, RulesRung) and isinstance(rung.rules, Path) and not unreadable(rung.rules):
            yield from _rules(loaded, rung.rules, objection)


def _rules(loaded: Loaded, file: Path, objection: Objection) -> Iterator[Problem]:
    try:
        outcomes = read_rules(file).outcomes()
    except RulesInvalid as exc:
        for line, column, what in exc.problems:
            yield loaded.problem_in(file, line, column, what)
        return
    for line, column, value in outcomes:
        if refused := objection(value):
            yield loaded.problem_in(file, line, column, refused[1])


def _way(place: str) -> tree.Path:
    """Return the way that `properties/0/name` describes; a word that is no way leads nowhere, which is the top."""
    return tuple(int(step) if step.isdecimal() else step for step in place.split("/"))


def _marks(file: Path) -> tree.Tree:
    return tree.read_tree(file.read_text("utf-8", "replace"))
