"""The sound configuration's task, compiled for a client: from a server's wire to what becomes of a record."""

from pathlib import Path

from tests.support.llm_settings import model_settings
from tests.support.settings_files import SOUND, write_sound
from workers.llm import Client
from workers.settings.source import load
from workers.task import Task, compile_task


def task_for(folder: Path, client: Client, url: str, *, schema: str, ladder: bool = True) -> Task:
    """Return the task of the server at `url`, with this answer schema, with or without its ladder."""
    text = SOUND.replace("http://localhost:8000", url)
    settings = load(write_sound(folder, text if ladder else text[: text.index("    ladder:")], answer__json=schema))
    return compile_task("triage", settings.settings.tasks["triage"], client, model_settings(url))
