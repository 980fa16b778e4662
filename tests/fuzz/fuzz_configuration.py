"""Any bytes as a configuration: every problem listed, or a deployment that compiles; never a traceback."""

import tempfile
from functools import lru_cache
from pathlib import Path

from tests.fuzz.shipped import Nobody
from tests.support.settings_files import write_sound
from workers.cli.configuration import as_line, examine
from workers.cli.echo import resolved
from workers.settings.model import Settings
from workers.settings.rungs import PythonRules, RulesRung
from workers.settings.source import load
from workers.task import compile_task

ENVIRON = {"A": "1", "KAFKA": "broker:9092"}


@lru_cache
def folder() -> Path:
    """Return a folder with the files that a sound configuration names."""
    made = Path(tempfile.mkdtemp(prefix="penstock-fuzz-"))
    write_sound(made)
    (made / "secret").write_text("canary")
    return made


def one_input(raw: bytes) -> None:
    """Examine `raw`; what has no error compiles, and its echo is the same configuration."""
    path = folder() / "penstock.yaml"
    path.write_bytes(raw)
    loaded, problems = examine(path, environ=ENVIRON)
    assert loaded or problems
    for problem in problems:
        assert problem.line >= 1
        assert problem.column >= 1
        assert "\n" not in as_line(problem)
    if loaded is None or any(problem.severity == "error" for problem in problems):
        return
    _compiles(loaded.settings)
    again = folder() / "again.yaml"
    again.write_text(resolved(loaded), "utf-8")
    if not loaded.secrets:
        assert load(again, environ={}).settings == loaded.settings


def _compiles(settings: Settings) -> None:
    """What `lint` has nothing against starts. A Python rule is the operator's own code: not imported here."""
    for name, task in settings.tasks.items():
        ladder = [rung for rung in task.ladder if not (isinstance(rung, RulesRung) and _is_python(rung))]
        compiled = task.model_copy(update={"ladder": ladder})
        compile_task(name, compiled, Nobody(), settings.models[task.model])  # type: ignore[arg-type]


def _is_python(rung: RulesRung) -> bool:
    return isinstance(rung.rules, PythonRules)
