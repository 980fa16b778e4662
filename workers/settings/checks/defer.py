"""`when_unavailable: defer`: a task without order, a delay that fits its topic, and a retry topic of its own."""

from collections.abc import Iterator

from topics.spec import RETENTION_S, RETRY_DELAY_MAX_S
from workers.settings import tree
from workers.settings.checks.topics import output_topic
from workers.settings.model import TaskSettings
from workers.settings.problems import Problem, shown
from workers.settings.source import Loaded

_DAY_S = 86_400


def check(loaded: Loaded) -> Iterator[Problem]:
    """Yield what is wrong with the tasks that defer, and warn those that set what only those use."""
    reader: dict[str, str] = {}
    for name, task in loaded.settings.tasks.items():
        if not task.defers:
            yield from _without_effect(loaded, name, task)
            continue
        at = ("tasks", name)
        if task.order != "none":
            what = f"`defer` lets later records overtake a deferred one: it needs `order: none`, not `{task.order}`"
            yield loaded.problem((*at, "when_unavailable"), what)
        if task.retry_delay_s > RETRY_DELAY_MAX_S:
            days = RETENTION_S["retry"] // _DAY_S
            what = f"longer than a day: the retry topic keeps records for {days}, and a stop of the workers adds to it"
            yield loaded.problem((*at, "retry_delay_s"), what)
        if task.max_age_s is not None and task.max_age_s <= task.retry_delay_s:
            what = f"no record is ever deferred: it would come back too old (retry_delay_s: {task.retry_delay_s:g})"
            yield loaded.problem((*at, "max_age_s"), what, severity="warning")
        yield from _shared(loaded, name, task, reader)


def _without_effect(loaded: Loaded, name: str, task: TaskSettings) -> Iterator[Problem]:
    set_here = [one for one in ("retry_delay_s", "max_deferrals") if one in task.model_fields_set]
    ways: list[tree.Path] = [("tasks", name, one) for one in set_here]
    if task.topics.retry is not None:
        ways.append(("tasks", name, "topics", "retry"))
    for way in ways:
        yield loaded.problem(way, "only `when_unavailable: defer` looks at it", severity="warning", at_key=True)


def _shared(loaded: Loaded, name: str, task: TaskSettings, reader: dict[str, str]) -> Iterator[Problem]:
    """A group has one offset per partition: two tasks cannot both read a topic."""
    for retry in {output_topic(name, task, topic, "retry") for topic in task.input}:
        if reader.setdefault(retry, name) != name:
            what = f"the retry topic {shown(retry)} is that of task {shown(reader[retry])} already: one task reads it"
            yield loaded.problem(("tasks", name, "topics", "retry"), what)
