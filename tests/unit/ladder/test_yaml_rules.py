"""Declarative rules: what each operator means, and what is said about a file that is none."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from workers.answers import compile_schema
from workers.ladder import RuleSet, RulesInvalid, read_rules
from workers.ladder.conditions import TEXT_MAX_CHARS
from workers.ports import DECLINED

CONFIG = Path(__file__).parents[3] / "config"


def rules(path: Path, text: str) -> RuleSet:
    """Read rules from a text."""
    (path / "rules.yaml").write_text(text, "utf-8")
    return read_rules(path / "rules.yaml")


def holds(path: Path, condition: Any, value: Any) -> bool:
    """Return whether a rule with this condition answers."""
    written = orjson.dumps({"rules": [{"when": condition, "then": "yes"}]}).decode()
    return rules(path, written).answer(value) is not DECLINED


@pytest.mark.parametrize(
    ("condition", "yes", "no"),
    [
        ({"field": "a", "equals": 1}, [{"a": 1}, {"a": 1.0}], [{"a": True}, {"a": "1"}, {}, [], "a", None, {"a": [1]}]),
        ({"field": "a", "equals": True}, [{"a": True}], [{"a": 1}, {"a": "true"}]),
        ({"field": "a", "equals": None}, [{"a": None}], [{}, {"a": False}, {"a": 0}]),
        ({"field": "a", "in": ["x", 2]}, [{"a": "x"}, {"a": 2}], [{"a": "X"}, {"a": {"x": 1}}, {}]),
        (
            {"field": "a.b.0.c", "equals": 1},
            [{"a": {"b": [{"c": 1}]}}],
            [{"a": {"b": {"0": []}}}, {"a": {"b": []}}, {"a": 1}],
        ),
        ({"field": "a.0", "equals": 1}, [{"a": [1]}, {"a": {"0": 1}}], [{"a": [2, 1]}, {"a": "1"}]),
        ({"field": "a", "exists": True}, [{"a": None}, {"a": 0}], [{}, {"b": 1}, [], 7]),
        ({"field": "a.b", "exists": False}, [{}, {"a": 1}, {"a": None}], [{"a": {"b": None}}]),
        ({"field": "a", "gt": 1}, [{"a": 1.5}, {"a": 2}], [{"a": 1}, {"a": "2"}, {"a": True}, {}, {"a": None}]),
        ({"field": "a", "longer_than_tokens": 2}, [{"a": "abc def"}], [{"a": "abc de"}, {"a": [1] * 9}, {"a": 9}, {}]),
        ({"field": "a", "longer_than": 2}, [{"a": "abc"}], [{"a": "ab"}, {"a": [1, 2, 3]}, {"a": 3}, {}]),
        ({"field": "a", "gt": 1, "lt": 3}, [{"a": 2}], [{"a": 1}, {"a": 3}]),
        (
            {"field": "a", "contains_any": ["refund", "Über uns", "c++", "log in"]},
            ["REFUND", "a refund!", "(refund)", "über  UNS", "I like C++.", "please log\nin", "x-refund-y"],
            ["refunds", "prerefund", "refund_", "refund2", "refundé", "rüber uns", "login", ""],
        ),
        ({"field": "a", "contains_any": ["a.b"]}, ["see a.b"], ["see axb"]),
        ({"field": "a", "matches": "^err(or)? [0-9]+$"}, ["err 5", "error 17"], ["Error 5", "error 5\nx", "error 5\n"]),
        ({"field": "a", "matches_any_case": "^ERR"}, ["error", "Err"], ["an error"]),
        ({"field": "a", "matches": "${x}|y{2}"}, ["yy"], ["x"]),
        ({"all": [{"field": "a", "gt": 1}, {"field": "b", "equals": 2}]}, [{"a": 2, "b": 2}], [{"a": 2}, {"b": 2}]),
        ({"any": [{"field": "a", "gt": 1}, {"field": "b", "equals": 2}]}, [{"a": 2}, {"b": 2}], [{"a": 1, "b": 1}]),
        ({"not": {"field": "a", "equals": 1}}, [{"a": 2}, {}], [{"a": 1}]),
        ({"not": {"any": [{"not": {"field": "a", "exists": True}}]}}, [{"a": 2}], [{}]),
    ],
)
def test_operator(tmp_path: Path, condition: Any, yes: list[Any], no: list[Any]) -> None:
    """An operator holds for what it names, and for nothing that is missing or of another type."""
    for value in yes:
        assert holds(tmp_path, condition, {"a": value} if isinstance(value, str) else value), value
    for value in no:
        assert not holds(tmp_path, condition, {"a": value} if isinstance(value, str) else value), value


def test_the_whole_value_is_a_dot(tmp_path: Path) -> None:
    """A record of `input_format: text` is asked by the path `.`."""
    assert holds(tmp_path, {"field": ".", "contains_any": ["refund"]}, "I want a refund")
    assert not holds(tmp_path, {"field": ".", "contains_any": ["refund"]}, {"refund": 1})


def test_first_match_wins_and_otherwise_comes_last(tmp_path: Path) -> None:
    """Rules answer in their order; without `otherwise` a record that none knows is declined."""
    text = """
rules:
  - {name: one, when: {field: a, exists: true}, then: {n: 1}}
  - {when: {field: b, exists: true}, then: {n: 2}}
"""
    two = rules(tmp_path, text)
    assert [two.answer(value) for value in ({"a": 0, "b": 0}, {"b": 0}, {})] == [{"n": 1}, {"n": 2}, DECLINED]
    three = rules(tmp_path, text + "otherwise: {n: no}\n")
    assert three.answer({}) == {"n": "no"}
    assert three.outcomes() == [(3, 55, {"n": 1}), (4, 44, {"n": 2}), (5, 12, {"n": "no"})]


def test_a_tricky_expression_takes_no_time(tmp_path: Path) -> None:
    """The classic that stalls a backtracking engine for ever is answered at once."""
    text = "a" * (TEXT_MAX_CHARS - 1) + "!"
    assert not holds(tmp_path, {"field": ".", "matches": "(a+)+$"}, text)
    assert not holds(tmp_path, {"field": ".", "matches": "^(a|a)*$"}, text)


def test_expressions_look_at_64_ki_characters(tmp_path: Path) -> None:
    """What stands beyond the limit is not looked at."""
    assert holds(tmp_path, {"field": ".", "matches": "x"}, "a" * (TEXT_MAX_CHARS - 1) + "x")
    assert not holds(tmp_path, {"field": ".", "matches": "x"}, "a" * TEXT_MAX_CHARS + "x")
    assert not holds(tmp_path, {"field": ".", "contains_any": ["x"]}, "a " * TEXT_MAX_CHARS + "x")


def test_every_problem_at_once(tmp_path: Path) -> None:
    """A file is read to its end, and each problem has its line and column."""
    text = """\
rules:
  - wehn: {field: a, equals: 1}
    then: 4
  - when: {feild: a, equal: 1}
    then: {a: 1}
  - when: {field: a..b, matches: "(?=x)"}
    then: x
  - when: {all: [{field: a, gt: "3", contains_any: [404]}], field: q}
    then: x
  - when: {field: a}
    then: x
  - when: {any: []}
    then: x
  - when: {not: {equals: [1], in: [[1]], exists: 1, matches: ""}}
    then: x
  - 5
othrwise: {}
"""
    with pytest.raises(RulesInvalid) as caught:
        rules(tmp_path, text)
    assert [(line, column, what.split(":")[0][:45]) for line, column, what in caught.value.problems] == [
        (2, 5, "a rule needs `when`"),
        (2, 5, "unknown key `wehn`; did you mean `when`?"),
        (3, 11, "`then` wants an enrichment"),
        (4, 12, "unknown key `feild`; did you mean `field`?"),
        (4, 22, "unknown key `equal`; did you mean `equals`?"),
        (6, 19, "`field` wants a path such as `customer.plan`,"),
        (6, 34, "`matches` is no RE2 expression (no lookaround"),
        (8, 33, "`gt` wants a number"),
        (8, 52, "`contains_any` wants keywords that are texts "),
        (8, 61, "`all` stands alone"),
        (10, 11, "a condition needs an operator"),
        (12, 17, "`any` wants a list of conditions"),
        (14, 17, "a condition needs `field`, the path to look a"),
        (14, 26, "`equals` wants a text, number, true, false or"),
        (14, 35, "`in` wants a list of texts, numbers, true, fa"),
        (14, 50, "`exists` wants true or false"),
        (14, 62, "`matches` wants a regular expression"),
        (16, 5, "wants a mapping with name, then, when"),
        (17, 1, "unknown key `othrwise`; did you mean `otherwi"),
    ]


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("", (1, 1), "wants a mapping"),
        ("{}", (1, 1), "no rules"),
        ("rules: []", (1, 1), "no rules"),
        ("rules: {a: 1}", (1, 8), "wants a list of rules"),
        ("rules: [", (1, 9), "not YAML"),
        ("rules: []\nrules: []\n", (2, 1), "duplicate key"),
        ("otherwise: 1", (1, 12), "wants an enrichment"),
    ],
)
def test_a_file_that_holds_no_rules(tmp_path: Path, text: str, place: tuple[int, int], words: str) -> None:
    """A file without rules says so instead of declining everything."""
    with pytest.raises(RulesInvalid) as caught:
        rules(tmp_path, text)
    assert any((line, column) == place and words in what for line, column, what in caught.value.problems)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """Missing and not UTF-8 are problems like others."""
    with pytest.raises(RulesInvalid, match="cannot be read"):
        read_rules(tmp_path / "none.yaml")
    (tmp_path / "b.yaml").write_bytes(b"\xff")
    with pytest.raises(RulesInvalid, match="not UTF-8"):
        read_rules(tmp_path / "b.yaml")


def test_yaml_words_are_words(tmp_path: Path) -> None:
    """`no` and `on` are texts, as in YAML 1.2."""
    assert rules(tmp_path, "otherwise: {a: no, b: on}").answer({}) == {"a": "no", "b": "on"}


@pytest.mark.parametrize(
    ("ticket", "category"),
    [
        ({"subject": "Refund please", "text": "I was charged twice"}, "billing"),
        ({"subject": "Site is down", "text": ""}, "bug"),
        ({"subject": "Help", "text": "I can't log in", "customer": {"plan": "enterprise"}}, "account"),
        ({"subject": "Hi", "text": "It crashed with error 500"}, "bug"),
        ({"subject": "Hi", "text": "How do I export my list?"}, "how_to"),
        ({"subject": "Hi", "text": "Thanks for everything"}, None),
        ("a text", None),
    ],
)
def test_the_example_rules(ticket: Any, category: str | None) -> None:
    """The example sorts obvious tickets and declines the others."""
    answer = read_rules(CONFIG / "rules" / "triage.yaml").answer(ticket)
    assert (None if answer is DECLINED else answer["category"]) == category


def test_the_example_rules_fit_the_example_schema() -> None:
    """Every outcome of the example passes the answer schema."""
    check = compile_schema(CONFIG / "schemas" / "triage.v1.json").check
    outcomes = read_rules(CONFIG / "rules" / "triage.yaml").outcomes()
    assert len(outcomes) == 6
    assert [check(then) for _, _, then in outcomes] == [None] * 6
