"""What answers when the model does not: rules, review, skip, default, in the order that a task gives them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from workers.clock import monotonic_s
from workers.errors import PenstockError
from workers.ladder.conditions import Test
from workers.ladder.default import Default
from workers.ladder.python_rule import PythonRule, PythonRuleInvalid
from workers.ladder.review import Review
from workers.ladder.rules import Rules, RuleSet, RulesInvalid, read_rules
from workers.ladder.skip import Skip
from workers.ladder.when import ConditionInvalid, compile_condition
from workers.outcome import Fallback, Rejected
from workers.ports import DECLINED, Rung
from workers.records import NOTHING_SPENT, Request, Spent
from workers.settings.rungs import DefaultRung, ModelRung, PythonRules, ReviewRung, RulesRung, RungSettings, SkipRung

__all__ = [
    "ConditionInvalid",
    "PythonRuleInvalid",
    "RuleSet",
    "RulesInvalid",
    "Test",
    "build_ladder",
    "compile_condition",
    "descend",
    "read_rules",
]


def build_ladder(
    settings: Sequence[RungSettings],
    check: Callable[[Any], str | None] | None,
    clock: Callable[[], float] = monotonic_s,
    task_name: str = "",
) -> tuple[Rung, ...]:
    """Return a task's rungs below its models; `check` is the task's, None for text answers. Paths are absolute.

    Raises:
        RulesInvalid: a file of rules cannot be used.
        PythonRuleInvalid: a Python rule cannot be imported.
    """

    def rung(one: RungSettings) -> Rung:
        match one:
            case RulesRung(rules=PythonRules(python=path)):
                return PythonRule(path, check, clock=clock, task_name=task_name)
            case RulesRung(rules=Path() as path):
                return Rules(read_rules(path))
            case ReviewRung(review=limit):
                return Review(limit.max_per_hour, clock=clock, task_name=task_name)
            case SkipRung():
                return Skip()
            case DefaultRung(default=enrichment):
                return Default(enrichment)
        raise TypeError(f"no such rung: {type(one).__name__}")

    return tuple(rung(one) for one in settings if not isinstance(one, ModelRung))


def descend(
    ladder: Sequence[Rung], request: Request, error: PenstockError, start: int = 0, spent: Spent = NOTHING_SPENT
) -> Fallback | Rejected:
    """Return what the first rung from `start` on that does not decline says, or a reject when none is left."""
    for place in range(start, len(ladder)):
        enrichment = ladder[place].answer(request, error)
        if enrichment is not DECLINED:
            return Fallback(ladder[place].tier, enrichment, error, place, spent)
    return Rejected(error, attempts=spent.attempts)
