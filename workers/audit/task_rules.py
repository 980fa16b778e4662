"""The rules that a configuration gives: what the outputs of one of its tasks have to be."""

from topics.shapes import Shape
from workers.answers import compile_schema
from workers.audit.rules import Rules
from workers.settings.model import Settings


def rules_of(settings: Settings, name: str, *, over: bool) -> Rules:
    """Return the rules of a task; an answer is held against its schema if it says that it was made under this one.

    Raises:
        ValueError: a file that `lint` would have named.
    """
    task = settings.tasks[name]
    schema = compile_schema(task.answer.schema_file) if task.answer.schema_file else None
    return Rules(
        order=task.order,
        shape=Shape(kind=task.shape, merge_as=task.merge_as, text=task.input_format == "text"),
        check=schema.check if schema else None,
        schema_version=schema.version if schema else "",
        over=over,
        latest=settings.kafka.start == "latest",
        max_span=task.max_span,
        others=frozenset(topic for other in settings.tasks.values() for topic in other.input),
    )
