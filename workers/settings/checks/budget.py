"""Budgets: what they count can be counted, and what follows when they are spent has somewhere to go."""

from collections.abc import Iterator

from workers.settings.model import TaskSettings
from workers.settings.problems import Problem
from workers.settings.rungs import ModelRung
from workers.settings.source import Loaded


def check(loaded: Loaded) -> Iterator[Problem]:
    """Yield what is wrong with the budget of every task that has one."""
    for name, task in loaded.settings.tasks.items():
        if task.budget is None:
            continue
        if task.budget.usd_per_day is not None and not _priced(loaded, task):
            what = (
                "no model of this task has a `price` above 0, so that nothing would ever be counted:"
                " give `models.<name>.price`, or a budget in `tokens_per_day`"
            )
            yield loaded.problem(("tasks", name, "budget", "usd_per_day"), what)
        if task.budget.when_spent == "fallback" and all(isinstance(rung, ModelRung) for rung in task.ladder):
            what = (
                "no rung answers when the budget is spent, and the rest of the day would fill the dead-letter topic:"
                " end the ladder with `skip` or `default`, or say `when_spent: hold`"
            )
            yield loaded.problem(("tasks", name, "budget"), what, severity="warning", at_key=True)


def _priced(loaded: Loaded, task: TaskSettings) -> bool:
    """Whether a model that the task asks costs anything; true of one that is not there, which is told elsewhere."""
    models = [loaded.settings.models.get(name) for name in task.all_models()]
    return any(model is None or (model.price is not None and not model.price.free) for model in models)
