"""A condition as it is written, `{field: body, contains_any: [...]}`, compiled: in rules, and in a task's `only_when`.

What a condition may say is described in `workers.ladder.rules`.
"""

from collections.abc import Callable
from typing import Any, Protocol

from workers.json_text import lookup
from workers.ladder.conditions import OPERATORS, OperandInvalid, Test
from workers.settings.problems import did_you_mean, shown
from workers.settings.tree import Path as Way


class Wrong(Protocol):
    """Takes what is wrong and the way to it; `at_key`: the key that leads there is meant."""

    def __call__(self, way: Way, what: str, *, at_key: bool = False) -> None:
        """Note it."""


class ConditionInvalid(ValueError):
    """A condition cannot be used. `problems`: the way inside the condition, what, and whether the key is meant."""

    def __init__(self, problems: list[tuple[Way, str, bool]]) -> None:
        super().__init__("; ".join(what for _, what, _ in problems))
        self.problems = problems


def compile_condition(written: Any) -> Test:
    """Return the test that a condition describes.

    Raises:
        ConditionInvalid: with every problem at once.
    """
    problems: list[tuple[Way, str, bool]] = []

    def wrong(way: Way, what: str, *, at_key: bool = False) -> None:
        problems.append((way, what, at_key))

    test = When(wrong).condition((), written)
    if problems:
        raise ConditionInvalid(problems)
    return test


class When:
    """Compiles conditions and tells `wrong` about all that it cannot use."""

    def __init__(self, wrong: Wrong) -> None:
        self._wrong = wrong

    def condition(self, way: Way, written: Any) -> Test:
        """Return the test; one that always holds in the place of what was wrong."""
        groups: dict[str, Callable[[list[Test]], Test]] = {"all": _all_of, "any": _any_of, "not": _none_of}
        condition = self.mapping(way, written, {"field", *groups, *OPERATORS})
        group = next((name for name in groups if name in condition), None)
        if group is not None:
            for other in condition.keys() - {group}:
                self._wrong((*way, other), f"{shown(group)} stands alone: move {shown(other)} into it", at_key=True)
            return self._group((*way, group), condition[group], groups[group])
        if written == {} or (condition and written.keys() == {"field"}):
            self._wrong(way, f"a condition needs an operator: {', '.join(OPERATORS)}")
        elif condition and "field" not in condition:
            self._wrong(way, "a condition needs `field`, the path to look at; `.` is the whole value")
        tests = [self._operator((*way, name), operand) for name, operand in condition.items() if name != "field"]
        return _on_field(self._steps((*way, "field"), condition.get("field", ".")), tests)

    def mapping(self, way: Way, written: Any, known: set[str]) -> dict[str, Any]:
        """Return the known keys; the others, and what is no mapping, are wrong."""
        if not isinstance(written, dict):
            self._wrong(way, f"wants a mapping with {', '.join(sorted(known))}")
            return {}
        for name in written.keys() - known:
            self._wrong((*way, name), f"unknown key {shown(name)}{did_you_mean(name, known)}", at_key=True)
        return {name: value for name, value in written.items() if name in known}

    def _group(self, way: Way, written: Any, join: Callable[[list[Test]], Test]) -> Test:
        if way[-1] == "not":
            return join([self.condition(way, written)])
        if not isinstance(written, list) or not written:
            self._wrong(way, f"{shown(way[-1])} wants a list of conditions")
            return always
        return join([self.condition((*way, place), one) for place, one in enumerate(written)])

    def _operator(self, way: Way, operand: Any) -> Test:
        try:
            return OPERATORS[str(way[-1])](operand)
        except OperandInvalid as exc:
            self._wrong(way, f"{shown(way[-1])} {exc}")
            return always

    def _steps(self, way: Way, written: Any) -> list[str]:
        if written == ".":
            return []
        steps = written.split(".") if isinstance(written, str) else [""]
        if not all(steps):
            self._wrong(way, "`field` wants a path such as `customer.plan`, or `.` for the whole value")
        return steps


def _on_field(steps: list[str], tests: list[Test]) -> Test:
    if len(tests) == 1:  # nearly always, and this is the hot path
        test = tests[0]
        return lambda value: test(lookup(value, steps))

    def holds(value: Any) -> bool:
        found = lookup(value, steps)
        return all(test(found) for test in tests)

    return holds


def _all_of(tests: list[Test]) -> Test:
    return lambda value: all(test(value) for test in tests)


def _any_of(tests: list[Test]) -> Test:
    return lambda value: any(test(value) for test in tests)


def _none_of(tests: list[Test]) -> Test:
    return lambda value: not any(test(value) for test in tests)


def always(_: Any) -> bool:
    """Hold for everything."""
    return True
