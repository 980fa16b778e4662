"""What a task's answer schema asks of its servers that they cannot enforce, and where `confidence` stands in it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workers.answers import members
from workers.portable import ANNOTATIONS, BY_DIALECT, Way, objections, unenforced
from workers.settings import tree
from workers.settings.model import Confidence, TaskSettings
from workers.settings.problems import Problem
from workers.settings.source import Loaded

_SHOWN_MAX = 8
"""Keywords that are told of per schema and dialect; the rest is counted."""

_COST = "an answer that breaks it costs a second ask"


def check_schema(
    loaded: Loaded, name: str, task: TaskSettings, file: Path, schema: dict[str, Any]
) -> Iterator[Problem]:
    """Yield a warning for what a server of the task does not enforce, and what is wrong with `confidence`."""
    models = [loaded.settings.models[called] for called in task.all_models() if called in loaded.settings.models]
    marks = tree.read_tree(file.read_text("utf-8", "replace"))
    for dialect in dict.fromkeys(model.dialect for model in models):
        for ways, what in _told(schema, dialect):
            line, column = min(map(marks.key_mark, ways))
            yield loaded.problem_in(file, line, column, what, severity="warning")
    if task.answer.confidence is not None:
        yield from _confidence(loaded, ("tasks", name, "answer", "confidence"), task.answer.confidence, schema)


def _told(schema: dict[str, Any], dialect: str) -> Iterator[tuple[list[Way], str]]:
    """Yield what is said of each keyword, once, and its places."""
    server = BY_DIALECT.get(dialect)
    if server is None:
        return
    places: dict[str, list[Way]] = {}
    for way, what in objections(schema, server):
        said = f"{what}; otherwise a server of dialect `{dialect}` can refuse the whole schema"
        places.setdefault(said, []).append(way)
    for way, verdict in unenforced(schema, server):
        if way[-1] not in ANNOTATIONS:
            places.setdefault(_not_enforced(str(way[-1]), verdict, dialect), []).append(way)
    for what, ways in list(places.items())[:_SHOWN_MAX]:
        more = f" (and in {len(ways) - 1} more places)" if len(ways) > 1 else ""
        yield ways, what + more
    if len(places) > _SHOWN_MAX:
        rest = len(places) - _SHOWN_MAX
        yield (
            [()],
            f"{rest} more keywords that servers of dialect `{dialect}` do not enforce: they are only checked here",
        )


def _not_enforced(keyword: str, verdict: str, dialect: str) -> str:
    if verdict == "ignored":
        return f"`{keyword}` is not enforced by servers of dialect `{dialect}`, it is only checked here: {_COST}"
    return (
        f"`{keyword}` is not sent to servers of dialect `{dialect}`: they refuse it; it is only checked here: {_COST}"
    )


def _confidence(loaded: Loaded, at: tree.Path, wanted: Confidence, schema: dict[str, Any]) -> Iterator[Problem]:
    found = members(schema, wanted.field.split("."))
    named, place = f"`{wanted.field}`", (*at, "field")
    if found.schema is None:
        if found.closed:
            yield loaded.problem(place, f"the answer schema allows no {named}: every answer would be `uncertain`")
        else:
            yield loaded.problem(place, f"the answer schema does not say that {named} is a number", severity="warning")
        return
    types = found.schema.get("type", ())
    types = {types} if isinstance(types, str) else set(types)
    if types and not types & {"number", "integer"}:
        yield loaded.problem(place, f"{named} is no number by the answer schema: every answer would be `uncertain`")
    elif not types and not {"enum", "const", "$ref", "anyOf", "oneOf", "allOf"} & found.schema.keys():
        yield loaded.problem(place, f"the answer schema does not say that {named} is a number", severity="warning")
    elif not found.required:
        what = f"{named} is not required by the answer schema: an answer without it is `uncertain`"
        yield loaded.problem(place, what, severity="warning")
    most = found.schema.get("maximum")
    if isinstance(most, int | float) and wanted.at_least > most:
        yield loaded.problem((*at, "at_least"), f"no answer reaches it: the schema's `maximum` of {named} is {most:g}")
