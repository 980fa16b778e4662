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
- `gt`, `lt`: above or below a number. `longer_than`: a text of more characters; `longer_than_tokens`: of more tokens,
  by estimate (`workers.inputs.estimate`).

A field that is missing, or of another type, makes every operator fail except `exists: false`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workers.errors import PenstockError
from workers.ladder.conditions import Test
from workers.ladder.when import When, always
from workers.ports import DECLINED
from workers.records import Request
from workers.settings.problems import shown
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
        self._when = When(self._wrong)

    def rules(self) -> list[Rule]:
        top = self._when.mapping((), self._tree.root, {"rules", "otherwise"})
        written = top.get("rules", [])
        if not isinstance(written, list):
            self._wrong(("rules",), "`rules` wants a list of rules")
            written = []
        if not written and "otherwise" not in top:
            self._wrong((), "no rules: `rules` wants a list of `when` and `then`")
        rules = [self._rule(("rules", place), one) for place, one in enumerate(written)]
        if "otherwise" in top:
            rules.append(
                Rule(holds=always, then=top["otherwise"], mark=self._outcome(("otherwise",), top["otherwise"]))
            )
        return rules

    def _rule(self, way: Way, written: Any) -> Rule:
        rule = self._when.mapping(way, written, {"name", "when", "then"})
        for missing in [name for name in ("when", "then") if name not in rule and isinstance(written, dict)]:
            self._wrong(way, f"a rule needs {shown(missing)}")
        holds = self._when.condition((*way, "when"), rule["when"]) if "when" in rule else always
        mark = self._outcome((*way, "then"), rule["then"]) if "then" in rule else (1, 1)
        return Rule(holds=holds, then=rule.get("then"), mark=mark)

    def _outcome(self, way: Way, written: Any) -> Mark:
        if not isinstance(written, dict | str):
            self._wrong(way, f"{shown(way[-1])} wants an enrichment: a mapping, or a text when the answer is text")
        return self._tree.mark(way)

    def _wrong(self, way: Way, what: str, *, at_key: bool = False) -> None:
        mark = self._tree.key_mark(way) if at_key else self._tree.mark(way)
        self._tree.problems.append((mark, what))
