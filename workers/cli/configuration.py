"""Reading a configuration for a verb: all that can be found wrong with it, before anything is started."""

import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from workers.cli.lint_tasks import check_tasks
from workers.errors import EX_CONFIG
from workers.settings.checks import check
from workers.settings.model import Kafka
from workers.settings.problems import Problem, sorted_problems
from workers.settings.source import Loaded, read

Config = Annotated[Path, typer.Argument(metavar="CONFIG", help="The deployment's YAML file.", show_default=False)]

BROKER_MAX_S = 10.0


def impatient(kafka: Kafka) -> Kafka:
    """A person waits for the answer: a worker may wait for its broker much longer."""
    return kafka.model_copy(update={"startup_timeout_s": min(kafka.startup_timeout_s, BROKER_MAX_S)})


def examine(config: Path, environ: Mapping[str, str] | None = None) -> tuple[Loaded | None, list[Problem]]:
    """Return the configuration, as far as it could be read, and every problem with it."""
    loaded, problems = read(config, environ)
    if loaded is None:
        return None, problems
    found = [*check(loaded), *check_tasks(loaded)]
    if problems:  # settings that were left out have their defaults, and warnings about defaults would mislead
        found = [problem for problem in found if problem.severity == "error"]
    return loaded, sorted_problems([*problems, *found])


def read_or_exit(config: Path) -> Loaded:
    """Return a configuration without errors; else print them to stderr and exit with 78 (sysexits.h: EX_CONFIG)."""
    return read_with_warnings(config)[0]


def read_with_warnings(config: Path) -> tuple[Loaded, list[Problem]]:
    """As `read_or_exit`, with the warnings."""
    loaded, problems = examine(config)
    errors = [problem for problem in problems if problem.severity == "error"]
    if loaded is None or errors:
        for problem in errors:
            print(as_line(problem), file=sys.stderr)
        raise typer.Exit(EX_CONFIG)
    return loaded, problems


def as_line(problem: Problem) -> str:
    """Return `file(line,col) what`, the file as one types it here, on one line, whatever the file's text says."""
    near = os.path.relpath(problem.file)
    shown = Path(near) if not near.startswith("..") else problem.file
    return str(replace(problem, file=shown)).encode(errors="backslashreplace").decode().replace("\n", " ")
