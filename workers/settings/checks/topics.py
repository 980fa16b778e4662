"""Names: tasks, prompt versions and topics are legal, no input has two readers, nothing reads what it writes."""

import re
from collections import defaultdict
from collections.abc import Iterator

from topics.spec import KINDS, KINDS_WITH_RETRY, Kind, output_names
from workers.settings.model import TaskSettings
from workers.settings.problems import Problem, shown
from workers.settings.source import Loaded

_TOPIC_NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")  # Kafka's Topic.validate
_TASK_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")  # the name of a response_format, of a metric label, inside topic names
_VERSION = re.compile(r"[!-~]{1,100}")
_NAMES_OF_FOLDERS = (".", "..")


def output_topic(task_name: str, task: TaskSettings, input_topic: str, kind: Kind) -> str:
    """Return where outcomes of `kind` go: the configured name, else `<input>.<task>.<kind>`."""
    return output_names(input_topic, task_name, {kind: getattr(task.topics, kind)}, (kind,))[kind]


def check(loaded: Loaded) -> Iterator[Problem]:
    """Yield what is wrong with the names of tasks and topics."""
    for name, task in loaded.settings.tasks.items():
        if not _TASK_NAME.fullmatch(name):
            what = f"a task's name is 1-64 letters, digits, `_` or `-`, not {shown(name)}"
            yield loaded.problem(("tasks", name), what, at_key=True)
        if task.prompt.version and not _VERSION.fullmatch(task.prompt.version):
            what = "a prompt version is 1-100 printable ASCII characters without spaces: it is a header"
            yield loaded.problem(("tasks", name, "prompt", "version"), what)
    yield from _inputs(loaded)
    yield from _outputs(loaded)


def _inputs(loaded: Loaded) -> Iterator[Problem]:
    reader: dict[str, str] = {}
    for name, task in loaded.settings.tasks.items():
        for place, topic in enumerate(task.input):
            at = ("tasks", name, "input", place)
            if topic in _NAMES_OF_FOLDERS:
                yield loaded.problem(at, f"{shown(topic)} is no topic name")
            if topic in reader:
                what = f"{shown(topic)} is read by task {shown(reader[topic])} already"
                yield loaded.problem(at, f"{what}; a second use is a second file with its own group")
            reader.setdefault(topic, name)


def _outputs(loaded: Loaded) -> Iterator[Problem]:
    inputs = {topic for task in loaded.settings.tasks.values() for topic in task.input}
    kinds: dict[str, set[str]] = defaultdict(set)
    for name, task in loaded.settings.tasks.items():
        for topic in dict.fromkeys(task.input):
            for kind in KINDS_WITH_RETRY if task.defers else KINDS:
                output = output_topic(name, task, topic, kind)
                named = getattr(task.topics, kind) is not None
                if not named and not _TASK_NAME.fullmatch(name):
                    continue  # said already, and the cause of this
                at = ("tasks", name, "topics", kind) if named else ("tasks", name, "input")
                if not _TOPIC_NAME.fullmatch(output) or output in _NAMES_OF_FOLDERS:
                    yield loaded.problem(at, f"the {kind} topic {shown(output)} is no topic name: name it in `topics`")
                if output in inputs:
                    yield loaded.problem(at, f"the {kind} topic {shown(output)} is also an input: a loop")
                for other in sorted(kinds[output] - {kind}):
                    yield loaded.problem(at, f"the {kind} topic {shown(output)} is also a topic for {other}")
                kinds[output].add(kind)
