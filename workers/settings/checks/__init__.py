"""What a configuration's shape cannot say: names that lead nowhere, files, and numbers that cannot hold together."""

from collections.abc import Callable, Iterator

from workers.settings.checks import arithmetic, budget, defer, endpoints, files, kafka, ladder, secrets, topics
from workers.settings.checks.host import Host, this_host
from workers.settings.problems import Problem, sorted_problems
from workers.settings.source import Loaded

_CONCERNS: list[Callable[[Loaded], Iterator[Problem]]] = [
    secrets.check,
    files.check,
    kafka.check,
    endpoints.check,
    topics.check,
    ladder.check,
    budget.check,
    defer.check,
]


def check(loaded: Loaded, host: Host | None = None) -> list[Problem]:
    """Return every error and warning about a configuration of the right shape, in reading order.

    What only compiling a task can tell (prompts, schemas, rules) is not looked at here: see `workers.cli.lint_tasks`.
    """
    problems = [problem for concern in _CONCERNS for problem in concern(loaded)]
    problems.extend(arithmetic.check(loaded, host or this_host()))
    return sorted_problems(problems)
