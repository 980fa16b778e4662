"""What is wrong with `inputs`, and with the tokenizer files of models."""

from collections.abc import Iterator

from workers.inputs import TokenizerInvalid, read_tokenizer
from workers.settings.checks.files import unreadable
from workers.settings.problems import Problem
from workers.settings.source import Loaded


def check_inputs(loaded: Loaded) -> Iterator[Problem]:
    """Yield tokenizer files that cannot be used, and paths into records that have no fields."""
    for name, model in loaded.settings.models.items():
        if model.tokenizer is None or unreadable(model.tokenizer):
            continue
        try:
            read_tokenizer(model.tokenizer)
        except TokenizerInvalid as exc:
            yield loaded.problem(("models", name, "tokenizer"), str(exc))
    for name, task in loaded.settings.tasks.items():
        for field in task.inputs:
            if task.input_format == "text" and field != ".":
                what = "a record of `input_format: text` has no fields: `.` is all of it"
                yield loaded.problem(("tasks", name, "inputs", field), what, at_key=True)
