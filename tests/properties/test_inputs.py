"""What is left of any text, by any count: never over the budget, never changed within it, always the same."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.tokenizers_made_here import TEXTS, byte_level
from workers.inputs.counting import TokenCounter
from workers.inputs.cut import KEEPS, shortened
from workers.inputs.estimate import ESTIMATE
from workers.inputs.graphemes import _inside
from workers.inputs.marks import MARK
from workers.inputs.tokenizer import read_tokenizer

SENTENCES = st.sampled_from(
    [part + end for text in TEXTS.values() for part in text.split(".") for end in (". ", "\n\n")]
)
ODD = st.text(
    st.sampled_from("a .\n\r7{e\u0301\u200d👍\U0001f3fd👩👧\U0001f1e9\U0001f1ea한\u1100\u1161क\u094dष語。"), max_size=80
)
ANY = st.lists(SENTENCES | ODD | st.text(max_size=40), max_size=40).map("".join)
BUDGETS = st.integers(1, 200)
KEEP = st.sampled_from(sorted(KEEPS))


@pytest.fixture(scope="module", params=["estimate", "tokenizer"])
def counter(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokenCounter]:
    """Both ways to count."""
    if request.param == "estimate":
        yield ESTIMATE
    else:
        yield read_tokenizer(byte_level(tmp_path_factory.mktemp("tokenizer")))


def is_within(parts: list[str], text: str) -> bool:
    """Return whether the parts stand in the text, in this order and without an overlap."""
    at = 0
    for part in parts:
        at = text.find(part, at)
        if at < 0:
            return False
        at += len(part)
    return True


@given(text=ANY, budget=BUDGETS, keep=KEEP)
def test_never_over_the_budget(counter: TokenCounter, text: str, budget: int, keep: str) -> None:
    """By the count that is used, what is kept has at most `max_tokens`."""
    assert counter.count(shortened(text, budget, keep, counter)) <= budget


@given(text=ANY, budget=BUDGETS)
def test_what_fits_is_within_the_budget(counter: TokenCounter, text: str, budget: int) -> None:
    """A text that is left alone has at most `max_tokens`; with 16 characters a token at most, the others have more."""
    if counter.fits(text, budget):
        assert counter.count(text) <= budget
    elif len(text) <= 3 * budget:
        assert counter.count(text) > budget


@given(text=ANY, budget=BUDGETS)
def test_head_and_tail(counter: TokenCounter, text: str, budget: int) -> None:
    """Head is a prefix, tail a suffix."""
    head, tail = (shortened(text, budget, keep, counter) for keep in ("head", "tail"))
    assert text.startswith(head)
    assert text.endswith(tail)


@given(text=ANY, budget=BUDGETS)
def test_ends_are_both_ends(counter: TokenCounter, text: str, budget: int) -> None:
    """A prefix, the mark, and a suffix; with no room for that, a prefix."""
    if counter.fits(text, budget):
        return
    front, mark, back = shortened(text, budget, "ends", counter).partition(MARK)
    assert MARK in text or (text.startswith(front) and (text.endswith(back) if mark else not back))


@given(text=ANY, budget=BUDGETS)
def test_sections_are_parts_in_their_order(counter: TokenCounter, text: str, budget: int) -> None:
    """Nothing but the mark is added, and nothing changes its place."""
    if not counter.fits(text, budget):
        assert is_within(shortened(text, budget, "sections", counter).split(MARK), text) or MARK in text


@given(text=ANY, budget=BUDGETS, keep=KEEP)
def test_the_same_each_time(counter: TokenCounter, text: str, budget: int, keep: str) -> None:
    """The same text is cut in the same way: a cache and a second replica rely on it."""
    assert shortened(text, budget, keep, counter) == shortened("".join(list(text)), budget, keep, counter)


@given(text=ODD, budget=st.integers(1, 40), keep=st.sampled_from(["head", "tail"]))
def test_no_character_is_taken_apart(counter: TokenCounter, text: str, budget: int, keep: str) -> None:
    """The cut is where one character ends and the next begins, as a reader sees them."""
    kept = shortened(text, budget, keep, counter)
    assert not _inside(text, len(kept) if keep == "head" else len(text) - len(kept))


@given(parts=st.lists(ODD | SENTENCES, max_size=5))
def test_an_estimate_of_parts_is_never_below_that_of_the_whole(parts: list[str]) -> None:
    """Budgets are spent part by part."""
    assert ESTIMATE.count("".join(parts)) <= sum(map(ESTIMATE.count, parts))
