"""Rules over arbitrary values: an answer or none, never an exception."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.json_text import lookup
from workers.ladder import RuleSet, read_rules
from workers.ladder.conditions import contains_any, in_
from workers.ports import DECLINED

LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["subject", "text", "customer", "plan", "0"]), inner, max_size=4)
    ),
    max_leaves=12,
)
SCALARS = st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "a", "true", "1"])
WORDS = st.text("abß é", min_size=1, max_size=6).filter(str.strip)


@pytest.fixture(scope="module")
def example() -> RuleSet:
    """The example rules, read once."""
    return read_rules(Path(__file__).parents[2] / "config" / "rules" / "triage.yaml")


@given(value=VALUES)
def test_any_value_gets_an_answer_or_none(example: RuleSet, value: Any) -> None:
    """A record of any shape is answered by one of the outcomes, or declined."""
    answer = example.answer(value)
    assert answer is DECLINED or any(answer is then for _, _, then in example.outcomes())


@given(VALUES, st.lists(st.sampled_from(["subject", "customer", "0", "1", "²"]), max_size=4))
def test_a_path_leads_somewhere_or_nowhere(value: Any, steps: list[str]) -> None:
    """No path and no value make the lookup fail."""
    lookup(value, steps)


@given(st.lists(SCALARS, min_size=1), SCALARS)
def test_equality_is_that_of_json(wanted: list[Any], found: Any) -> None:
    """Two scalars are the same when JSON writes them the same: true is not 1."""
    assert in_(wanted)(found) is any(type(one) is type(found) and one == found for one in wanted)


@given(WORDS, st.sampled_from(["", " ", ", ", "\n", "("]), st.sampled_from(["", " ", ".", "\n", ")"]))
def test_a_keyword_is_found_between_what_is_no_word(word: str, before: str, after: str) -> None:
    """A keyword is found at the ends of a text and between blanks or punctuation, and never inside a word."""
    test = contains_any([word])
    assert test(before + word.strip() + after)
    assert test(f"x{before or ' '}{word.strip()}{after or ' '}x")
    assert not test(f"x{word.strip()}")
    assert not test(f"{word.strip()}x")
