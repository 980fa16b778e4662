"""Rules from a YAML file: the cheapest thing that can still say something sensible about a record.

    rules:                                          # the first rule whose `when` holds answers
      - when: {field: subject, contains_any: [refund, invoice, charged twice]}
        then: {category: billing, urgency: normal, summary: Billing question (by rule)}
      - when:
          all:                                      # also: any, not
            - {field: customer.plan, in: [business, enterprise]}
            - {field: body, matches_any_case: "(cannot|can't) (log|sign) ?in"}
            - not: {field: status, equals: solved}
        then: {category: account, urgency: high, summary: Login problem of a business customer (by rule)}
    otherwise: {category: other, urgency: normal, summary: Not looked at}       # optional

`field` is a path through objects and lists (`lines.0.sku`); `.` is the whole value, which is the way to ask about a
record of `input_format: text`. A condition holds when all of its operators do:

- `equals`, `in`: the same JSON scalar (text, number, true, false, null).
- `contains_any`: one of the keywords stands in the text as a word, in any case.
- `matches`, `matches_any_case`: an RE2 expression (linear-time) matches somewhere in the first 65,536 characters.
- `exists`: true or false; a field that is null exists.
- `gt`, `lt`: above or below a number.

A field that is missing, or of another type, makes every operator fail except `exists: false`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workers.errors import PenstockError
from workers.ladder.conditions import OPERATORS, OperandInvalid, Test, lookup
from workers.ports import DECLINED
from workers.records import Request
from workers.settings.problems import did_you_mean, shown
from workers.settings.tree import Mark, Tree, read_tree
from workers.settings.tree import Path as Way
from workers.settings.variables import Expanded, Variables


class RulesInvalid(ValueError):
    """A file of rules cannot be used. `problems`: line and column (from 1) and what is wrong, all of them."""

    def __init__(self, problems: list[tuple[int, int, str]]) -> None:
        super().__init__("\n".join(f"({line},{column}) {what}" for line, column, what in problems))
        self.problems = problems


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule: what must hold, what it answers, and where that answer is written (line and column, from 1)."""

    holds: Test
    then: Any
    mark: Mark


@dataclass(frozen=True, slots=True)
class RuleSet:
    """A file's rules in their order; `otherwise` is the last, and always holds."""

    rules: tuple[Rule, ...]

    def answer(self, value: Any) -> Any:
        """Return the first matching rule's enrichment (shared: not to be changed), or `DECLINED`."""
        for rule in self.rules:
            if rule.holds(value):
                return rule.then
        return DECLINED

    def outcomes(self) -> list[tuple[int, int, Any]]:
        """Return every enrichment that these rules can give, with its line and column."""
        return [(*rule.mark, rule.then) for rule in self.rules]


class Rules:
    """The rung that asks a rule set."""

    tier = "rules"

    def __init__(self, rule_set: RuleSet) -> None:
        self._rule_set = rule_set

    def answer(self, request: Request, error: PenstockError) -> Any:  # noqa: ARG002 - rules look at the record only
        """Return the first matching rule's enrichment, or `DECLINED`."""
        return self._rule_set.answer(request.value)


def read_rules(path: Path) -> RuleSet:
    """Read and compile a file of rules.

    Raises:
        RulesInvalid: unreadable, not YAML, or not rules; with every problem at once.
    """
    try:
        text = path.read_text("utf-8")
    except OSError as exc:
        raise RulesInvalid([(1, 1, f"cannot be read: {exc.strerror}")]) from exc
    except UnicodeDecodeError as exc:
        raise RulesInvalid([(1, 1, "is not UTF-8")]) from exc
    tree = read_tree(text, _Literal(environ={}, folder=path.parent))
    rules = [] if tree.problems else _Compiler(tree).rules()
    if tree.problems:
        raise RulesInvalid(sorted((*mark, what) for mark, what in tree.problems))
    return RuleSet(tuple(rules))


class _Literal(Variables):
    """In rules `${` has no meaning: an expression may well contain it."""

    def expand(self, text: str) -> Expanded:
        return Expanded(text=text)


class _Compiler:
    """Turns the values of a rules file into rules and notes what is wrong in the tree's problems."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    def rules(self) -> list[Rule]:
        top = self._mapping((), self._tree.root, {"rules", "otherwise"})
        written = top.get("rules", [])
        if not isinstance(written, list):
            self._wrong(("rules",), "`rules` wants a list of rules")
            written = []
        if not written and "otherwise" not in top:
            self._wrong((), "no rules: `rules` wants a list of `when` and `then`")
        rules = [self._rule(("rules", place), one) for place, one in enumerate(written)]
        if "otherwise" in top:
            rules.append(
                Rule(holds=_always, then=top["otherwise"], mark=self._outcome(("otherwise",), top["otherwise"]))
            )
        return rules

    def _rule(self, way: Way, written: Any) -> Rule:
        rule = self._mapping(way, written, {"name", "when", "then"})
        for missing in [name for name in ("when", "then") if name not in rule and isinstance(written, dict)]:
            self._wrong(way, f"a rule needs {shown(missing)}")
        holds = self._condition((*way, "when"), rule["when"]) if "when" in rule else _always
        mark = self._outcome((*way, "then"), rule["then"]) if "then" in rule else (1, 1)
        return Rule(holds=holds, then=rule.get("then"), mark=mark)

    def _outcome(self, way: Way, written: Any) -> Mark:
        if not isinstance(written, dict | str):
            self._wrong(way, f"{shown(way[-1])} wants an enrichment: a mapping, or a text when the answer is text")
        return self._tree.mark(way)

    def _condition(self, way: Way, written: Any) -> Test:
        groups = {"all": _all_of, "any": _any_of, "not": _none_of}
        condition = self._mapping(way, written, {"field", *groups, *OPERATORS})
        group = next((name for name in groups if name in condition), None)
        if group is not None:
            for other in condition.keys() - {group}:
                self._wrong_key((*way, other), f"{shown(group)} stands alone: move {shown(other)} into it")
            return self._group((*way, group), condition[group], groups[group])
        if condition.keys() == {"field"} or (not condition and written == {}):
            self._wrong(way, f"a condition needs an operator: {', '.join(OPERATORS)}")
        elif condition and "field" not in condition:
            self._wrong(way, "a condition needs `field`, the path to look at; `.` is the whole value")
        tests = [self._operator((*way, name), operand) for name, operand in condition.items() if name != "field"]
        return _on_field(self._steps((*way, "field"), condition.get("field", ".")), tests)

    def _group(self, way: Way, written: Any, join: Callable[[list[Test]], Test]) -> Test:
        if way[-1] == "not":
            return join([self._condition(way, written)])
        if not isinstance(written, list) or not written:
            self._wrong(way, f"{shown(way[-1])} wants a list of conditions")
            return _always
        return join([self._condition((*way, place), one) for place, one in enumerate(written)])

    def _operator(self, way: Way, operand: Any) -> Test:
        try:
            return OPERATORS[str(way[-1])](operand)
        except OperandInvalid as exc:
            self._wrong(way, f"{shown(way[-1])} {exc}")
            return _always

    def _steps(self, way: Way, written: Any) -> list[str]:
        if written == ".":
            return []
        steps = written.split(".") if isinstance(written, str) else [""]
        if not all(steps):
            self._wrong(way, "`field` wants a path such as `customer.plan`, or `.` for the whole value")
        return steps

    def _mapping(self, way: Way, written: Any, known: set[str]) -> dict[str, Any]:
        """Return the known keys; the others, and what is no mapping, are problems."""
        if not isinstance(written, dict):
            self._wrong(way, f"wants a mapping with {', '.join(sorted(known))}")
            return {}
        for name in written.keys() - known:
            self._wrong_key((*way, name), f"unknown key {shown(name)}{did_you_mean(name, known)}")
        return {name: value for name, value in written.items() if name in known}

    def _wrong(self, way: Way, what: str) -> None:
        self._tree.problems.append((self._tree.mark(way), what))

    def _wrong_key(self, way: Way, what: str) -> None:
        self._tree.problems.append((self._tree.key_mark(way), what))


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


def _always(_: Any) -> bool:
    return True
