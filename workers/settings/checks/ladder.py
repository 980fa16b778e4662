"""The ladder: every rung can be reached, the last one answers, and callables are there."""

import importlib
from collections.abc import Iterator

from workers.settings import tree
from workers.settings.model import TaskSettings
from workers.settings.problems import Problem, shown
from workers.settings.rungs import DefaultRung, ModelRung, PythonRules, ReviewRung, RulesRung, SkipRung
from workers.settings.source import Loaded


def check(loaded: Loaded) -> Iterator[Problem]:
    """Yield what is wrong with the ladder of every task."""
    for name, task in loaded.settings.tasks.items():
        at: tree.Path = ("tasks", name, "ladder")
        for place, rung in enumerate(task.ladder):
            if isinstance(rung, RulesRung) and isinstance(rung.rules, PythonRules):
                what = _not_importable(rung.rules.python)
                if what:
                    yield loaded.problem((*at, place, "rules", "python"), what)
        yield from _models(loaded, at, task)
        yield from _order(loaded, at, task)


def _models(loaded: Loaded, at: tree.Path, task: TaskSettings) -> Iterator[Problem]:
    """Models come first: a rung below them answers at once, and nobody would wait for another model after it."""
    asked = [task.model]
    for place, rung in enumerate(task.ladder):
        if not isinstance(rung, ModelRung):
            continue
        if any(not isinstance(above, ModelRung) for above in task.ladder[:place]):
            yield loaded.problem((*at, place), "models come before the other rungs of a ladder")
        if rung.model in asked:
            what = f"{shown(rung.model)} is asked already: several servers of one model are its `endpoints`"
            yield loaded.problem((*at, place, "model"), what)
        asked.append(rung.model)


def _order(loaded: Loaded, at: tree.Path, task: TaskSettings) -> Iterator[Problem]:
    final = next((place for place, rung in enumerate(task.ladder) if isinstance(rung, SkipRung | DefaultRung)), None)
    if final is not None:
        always = "skip" if isinstance(task.ladder[final], SkipRung) else "default"
        for place in range(final + 1, len(task.ladder)):
            yield loaded.problem((*at, place), f"never reached: `{always}` above it always answers")
    elif task.ladder and isinstance(task.ladder[-1], ReviewRung):
        what = "past `max_per_hour` nothing answers, and records become dead letters: end with `skip` or `default`"
        yield loaded.problem((*at, len(task.ladder) - 1), what, severity="warning")
    if all(isinstance(rung, ModelRung) for rung in task.ladder) and task.when_unavailable != "hold":
        what = (
            f"no ladder, and `when_unavailable: {task.when_unavailable}`: an outage of the model would fill the"
            " dead-letter topic;"
            " end a ladder with `skip` or `default`, or say `when_unavailable: hold`"
        )
        yield loaded.problem(at, what, severity="warning", at_key=True)


def _not_importable(spec: str) -> str | None:
    """Return why a rules callable cannot be had. Runs the module's top level, as the worker would."""
    module, _, attribute = spec.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except Exception as exc:  # noqa: BLE001 - a module of the user's may raise anything while it is imported
        return f"cannot import {shown(module)}: {type(exc).__name__}: {exc}"
    return None if callable(found) else f"{shown(module)} has no function {shown(attribute)}"
