"""Counts: the estimate against real tokenizers, and a tokenizer's file."""

from pathlib import Path

import pytest

from tests.support.tokenizers_made_here import TEXTS, byte_level
from workers.inputs.estimate import ESTIMATE
from workers.inputs.tokenizer import TokenizerInvalid, read_tokenizer

QUARTER = 300


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("abc", 1),
        ("abcd", 2),
        ("a b\n", 2),
        ("1234", 5),
        ("{}!", 3),
        ("語", 2),
        ("語語", 3),
        ("да", 2),
        ("\x00", 1),
    ],
)
def test_the_rule_of_the_estimate(text: str, tokens: int) -> None:
    """A third for a letter or blank, 5/4 for a digit, 1 for a sign, 1/2 for a byte of another script; rounded up."""
    assert ESTIMATE.count(text) == tokens


@pytest.mark.parametrize("name", TEXTS)
def test_the_estimate_says_too_many_rather_than_too_few(name: str, tmp_path: Path) -> None:
    """Against a byte-level BPE trained on these texts. One trained on the whole world has longer tokens yet."""
    tokenizer = read_tokenizer(byte_level(tmp_path, vocabulary=2_000))
    assert tokenizer.count(TEXTS[name]) <= ESTIMATE.count(TEXTS[name])


def test_a_file_counts_the_text_alone(tmp_path: Path) -> None:
    """The file's own truncation, padding and special tokens do not count; `</s>` in a record is four characters."""
    tokenizer = read_tokenizer(byte_level(tmp_path, vocabulary=300))
    assert tokenizer.count("") == 0
    assert tokenizer.count("zq") == 2
    assert tokenizer.count("zq" * 100) == 200
    assert tokenizer.count("</s>") > 1


def test_a_file_that_is_read_again_is_the_same_tokenizer(tmp_path: Path) -> None:
    """Several tasks and routes use one model, and a real file takes a second to read."""
    path = byte_level(tmp_path)
    assert read_tokenizer(path) is read_tokenizer(path)


def test_no_more_than_sixteen_characters_a_token_are_looked_at(tmp_path: Path) -> None:
    """A record full of blanks has few tokens, and would take long to count: it is cut all the same."""
    tokenizer = read_tokenizer(byte_level(tmp_path))
    assert not tokenizer.fits(" " * 1_601, 100)
    assert tokenizer.head_chars(" " * 100_000, 100) <= 1_600
    assert tokenizer.tail_chars(" " * 100_000, 100) <= 1_600


def test_head_and_tail_have_the_tokens_that_are_asked_for(tmp_path: Path) -> None:
    """Neither more, nor so few that the budget is wasted."""
    tokenizer = read_tokenizer(byte_level(tmp_path))
    for text in (text * 20 for text in TEXTS.values()):
        head, tail = tokenizer.head_chars(text, 100), tokenizer.tail_chars(text, 100)
        assert 98 <= tokenizer.count(text[:head]) <= 101
        assert 98 <= tokenizer.count(text[-tail:]) <= 101
        assert (tokenizer.head_chars("ab", 100), tokenizer.tail_chars("ab", 100)) == (2, 2)


def test_a_text_of_more_tokens_does_not_fit(tmp_path: Path) -> None:
    """At the border, and far beyond it."""
    tokenizer = read_tokenizer(byte_level(tmp_path))
    text = TEXTS["english"]
    tokens = tokenizer.count(text)
    assert tokenizer.fits(text, tokens)
    assert not tokenizer.fits(text, tokens - 1)
    assert not tokenizer.fits(text * 5, tokens - 1)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"model": {"type": "BPE"}}'])
def test_a_file_that_is_none(tmp_path: Path, content: str) -> None:
    """The library's own words say where; ours, what the file should have been."""
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(TokenizerInvalid, match=r"is no tokenizer\.json"):
        read_tokenizer(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """A start that `lint` would have prevented ends with a reason."""
    with pytest.raises(TokenizerInvalid, match="cannot be read: No such file"):
        read_tokenizer(tmp_path / "tokenizer.json")
