"""Finding JSON in an answer: what is found, and how much work it takes."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from workers import salvage
from workers.salvage import MAX_BRACES, MAX_CANDIDATES, candidates

NOISE = st.text(alphabet='{}"\\`\n a:,[]', max_size=60)
PROSE = st.text(alphabet="abc .,:'()[]\n}", max_size=60)
LEAVES = st.booleans() | st.integers() | st.text(max_size=20)
OBJECTS = st.dictionaries(
    st.text(), st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)
)
MIB = 1 << 20


@given(NOISE)
def test_candidates_are_parts_of_the_text_and_few(text: str) -> None:
    """Whatever the text, at most eight candidates come out, each a part of it; embedded ones stand between braces."""
    found = list(candidates(text))
    assert len(found) <= MAX_CANDIDATES
    for rung, candidate in found:
        assert candidate in text
        assert rung == "fenced" or (candidate[0], candidate[-1]) == ("{", "}")


@given(NOISE)
def test_embedded_candidates_do_not_overlap(text: str) -> None:
    """Only outermost objects are candidates, from left to right."""
    spans, _ = salvage._balanced(text)
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))


def speaks_of_thoughts(text: str) -> bool:
    """Whether it holds a mark of thinking: then nobody can tell whose it is, and the answer is asked for again."""
    return any(mark in text for mark in (*salvage._THOUGHT_BEGINS, *salvage._THOUGHT_ENDS))


@given(PROSE, OBJECTS, PROSE)
def test_an_object_in_prose_is_found(before: str, value: Any, after: str) -> None:
    """An object whose strings hold anything but marks of thinking is found whole, wherever it stands but in a list."""
    assume(not before.rstrip().endswith("["))
    for ascii_only in (True, False):
        text = json.dumps(value, ensure_ascii=ascii_only)
        assume(not speaks_of_thoughts(text))
        assert ("embedded", text) in list(candidates(before + text + after))


@given(OBJECTS, st.sampled_from(["", "json", "JSON", "jsonc"]), st.booleans())
def test_a_fenced_object_is_found_first(value: Any, language: str, closed: bool) -> None:  # noqa: FBT001 - drawn
    """A fence counts with and without a language, and with and without its end."""
    text = json.dumps(value, indent=1)
    answer = f"Of course:\n```{language}\n{text}\n" + ("```\nAnything else?" if closed else "")
    if "```" not in text and not speaks_of_thoughts(text):
        rung, candidate = next(candidates(answer))
        assert (rung, candidate.strip()) == ("fenced", text)


class _Counted:
    """The expression, counting how far it moved and how often it was asked."""

    def __init__(self, expression: Any) -> None:
        self._expression = expression
        self.asked = 0
        self.passed = 0

    def match(self, text: str, at: int) -> Any:
        """Match, and note the work."""
        found = self._expression.match(text, at)
        self.asked += 1
        self.passed += (found.end() if found else len(text)) - at
        return found


@pytest.mark.parametrize(
    "text",
    [
        "{" * MIB,
        "{}" * (MIB // 2),
        "{" + "{}" * (MIB // 2),
        '{"' * (MIB // 2),
        "{" + '""' * (MIB // 2),
        "{" + '\\"' * (MIB // 2),
        '{"' + '\\"' * (MIB // 2),
        "{" + "\\" * MIB,
        "{" + " " * MIB,
        '{"\n' * (MIB // 3),
        "{" + "}" * MIB,
        "`" * MIB,
        "```{" * (MIB // 4),
        '{"a":' * 100_000 + "1" + "}" * 100_000,
    ],
    ids=lambda text: text[:6].encode("unicode_escape").decode(),
)
def test_a_mebibyte_of_anything_is_passed_over_once(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """The work is bounded: no character is passed twice, and no more braces are looked at than the limit says."""
    counted = _Counted(salvage._TO_NEXT_BRACE)
    monkeypatch.setattr(salvage, "_TO_NEXT_BRACE", counted)
    assert len(list(candidates(text))) <= MAX_CANDIDATES
    assert counted.asked <= MAX_BRACES
    assert counted.passed <= len(text)
