"""A task, compiled: what its configuration says, turned once into what a record needs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from workers.ports import Frame, Model, Rung
from workers.settings.model import TaskSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputTopics:
    """Where the outcomes of one input topic go."""

    enriched: str
    fallback: str
    review: str
    dlq: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Everything that stays the same from record to record.

    `render` is the compiled template of the user's text; `check` returns None for a value that the answer schema
    accepts, else what is wrong with it, and is None itself for text answers. `outputs` is keyed by input topic.
    """

    name: str
    settings: TaskSettings
    model: Model
    frame: Frame
    render: Callable[..., str]
    check: Callable[[Any], str | None] | None
    ladder: tuple[Rung, ...]
    outputs: Mapping[str, OutputTopics]
    prompt_version: str
    schema_version: str
