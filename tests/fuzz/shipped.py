"""The task that `config/pipelines/tickets.yaml` ships: its prompt, schema and ladder, over the tests' own topic."""

from functools import lru_cache
from pathlib import Path
from typing import Any

from tests.support.memory import TOPIC
from workers.llm.dialects.openai import OpenAI
from workers.ports import Ask, Frame
from workers.settings.source import load
from workers.task import Task, compile_task

CONFIG = Path(__file__).parents[2] / "config"
MODEL = "tiny"


class Nobody:
    """Gives the frame that the real client would give."""

    name = MODEL

    def frame(self, ask: Ask) -> Frame:
        """As vLLM and OpenAI take it."""
        return OpenAI().frame(MODEL, ask)


@lru_cache
def shipped_task(**changes: Any) -> Task:
    """Return the task, compiled, with a model that nobody may call; `changes` are of its settings."""
    settings = load(CONFIG / "pipelines" / "tickets.yaml", environ={}).settings
    task = settings.tasks["ticket_triage"].model_copy(update={"input": [TOPIC], **changes})
    return compile_task("ticket_triage", task, Nobody(), settings.models[task.model])  # type: ignore[arg-type]
