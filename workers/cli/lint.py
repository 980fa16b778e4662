"""`penstock lint CONFIG...`: everything that is wrong with configurations, without starting anything."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from workers.cli.configuration import as_line, examine
from workers.settings.problems import Problem

_STYLES = {"error": "red", "warning": "yellow"}


def lint(
    configs: Annotated[
        list[Path], typer.Argument(metavar="CONFIG", help="The deployments' YAML files.", show_default=False)
    ],
    *,
    strict: Annotated[bool, typer.Option("--strict", help="Fail on warnings as well.")] = False,
) -> None:
    """Say what is wrong with configurations.

    Prints `file(line,col) what` for each problem; warnings are marked. Reads the files that a configuration names as
    well: prompts, schemas, rules, certificates. Warns of what a task's servers do not enforce of its answer schema.
    Talks to no broker and no model. Exits with 1 when there is an error.

    Example: penstock lint --strict config/pipelines/*.yaml
    """
    console = Console(soft_wrap=True, highlight=False)
    problems = [problem for config in configs for problem in examine(config)[1]]
    for problem in problems:
        _say(console, problem)
    if any(problem.severity == "error" or strict for problem in problems):
        raise typer.Exit(1)
    console.print(_summary(len(configs), len(problems)))


def _say(console: Console, problem: Problem) -> None:
    line = Text(as_line(problem))
    if console.is_terminal:
        line.stylize(_STYLES[problem.severity], line.plain.find(") ") + 2)
    console.print(line)


def _summary(files: int, warnings: int) -> str:
    fine = f"{files} file{'s' if files > 1 else ''} fine"
    return f"{fine}, {warnings} warning{'s' if warnings > 1 else ''}" if warnings else fine
