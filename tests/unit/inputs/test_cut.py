"""What is kept of a text that is too long, looked at by eye."""

import pytest

# ruff: noqa: RUF001 - Chinese has its own punctuation
from tests.support.tokenizers_made_here import CHINESE, ENGLISH, TEXTS
from workers.inputs.cut import KEEPS, shortened
from workers.inputs.estimate import ESTIMATE
from workers.inputs.graphemes import boundary_after, boundary_before
from workers.inputs.marks import MARK

BUDGET = 100
MARKS_OF_ONE_LETTER = "e" + "\u0301" * 200


def kept(text: str, keep: str, budget: int = BUDGET) -> str:
    """Return what the estimate leaves of a text."""
    return shortened(text, budget, keep, ESTIMATE)


@pytest.mark.parametrize("name", TEXTS)
def test_head_tail_and_ends_use_the_budget(name: str) -> None:
    """A budget is for the model to read: next to nothing of it is left over."""
    text = TEXTS[name] * 20
    for keep in ("head", "tail", "ends"):
        assert BUDGET - 3 <= ESTIMATE.count(kept(text, keep)) <= BUDGET, keep


def test_ends_are_equal_halves_around_the_mark() -> None:
    """The middle goes, and the model can see that it did."""
    front, back = kept(ENGLISH * 20, "ends").split(MARK)
    assert abs(ESTIMATE.count(front) - ESTIMATE.count(back)) <= 1
    assert (ENGLISH * 20).startswith(front)
    assert (ENGLISH * 20).endswith(back)


def test_a_budget_without_room_for_a_mark_is_a_head() -> None:
    """Two letters at each end of nothing would tell nobody anything."""
    assert kept("abcdef ghijkl mnopqr stuvwx", "ends", 6) == "abcdef ghijkl mnop"


def test_a_budget_of_one() -> None:
    """One token is what fits in one, and a character that needs more leaves nothing."""
    assert [kept("abcd efgh", keep, 1) for keep in KEEPS] == ["abc", "fgh", "abc", "abc"]
    assert kept("語語", "head", 1) == ""


TALK = [f"Filler number {place} says nothing of interest to anybody at all, as fillers do. " for place in range(40)]
NOWHERE_ELSE = "Zarf quim blet norv kaji hegd dosp vuxen rilb tamk fowp gulst yerd cham penk juld. "
TOPIC = "The router drops packets when the firmware of the router is older than version nine. "
TOPIC_TWICE = "After an update of the firmware the router keeps its packets, says the vendor. "


def test_sections_keep_what_the_text_is_about() -> None:
    """Opening and closing, and of what is between them the sentences with the words that come back."""
    talk = list(TALK)
    talk[8], talk[17], talk[29] = NOWHERE_ELSE, TOPIC, TOPIC_TWICE
    chosen = kept("".join(talk), "sections", 160)
    assert chosen.startswith(talk[0])
    assert chosen.endswith(talk[-1])
    assert chosen.index(TOPIC) < chosen.index(TOPIC_TWICE)
    assert NOWHERE_ELSE not in chosen
    assert chosen.count(MARK) == 3


def test_sections_of_chinese() -> None:
    """No blanks between words: pairs of characters stand for them, and a sentence ends with 。."""
    other = [f"第{place}个无关紧要的句子只是为了占据空间而已，没有任何意义。" for place in range(60)]
    topic = "路由器固件过旧时会丢弃数据包，请尽快升级路由器固件以避免丢弃数据包。"
    other[20] = topic
    other[40] = "供应商说，升级路由器固件以后，路由器不再丢弃数据包，问题已经解决。"
    chosen = kept("".join(other), "sections", 600)
    assert topic in chosen
    assert MARK in chosen


def test_what_was_said_is_not_said_again() -> None:
    """A thread that quotes itself pays for a sentence once."""
    text = "Start of it all is here, dear readers of this thread. " + "".join(
        TOPIC + f"Reply {place} follows here, in words of its own, number {place}, as ever. " for place in range(30)
    )
    assert kept(text + "It all ends here, with many thanks to everybody.", "sections", 300).count(TOPIC) <= 2


def test_sections_of_a_text_without_sentences_are_pieces_of_it() -> None:
    """One long line is broken where it must be."""
    chosen = kept("".join(map(chr, range(0x4E00, 0x4E00 + 9_000))), "sections", 6_000)
    assert 5_000 < ESTIMATE.count(chosen) <= 6_000


def test_sections_without_a_sentence_that_fits_are_ends() -> None:
    """Nothing can be chosen: both ends are better than a fifth of each."""
    text = ENGLISH * 20
    assert kept(text, "sections", 20) == kept(text, "ends", 20)


def test_sections_side_by_side_have_no_mark_between() -> None:
    """A mark says that something is missing there."""
    text = "".join(TALK)
    chosen = kept(text, "sections", ESTIMATE.count(text) - 100)
    assert chosen.count(MARK) <= 5
    assert len(chosen) > len(text) - 500


def test_of_a_very_long_text_both_ends_are_looked_at() -> None:
    """What is in the middle of a megabyte is not found, and costs no time."""
    talk = [f"Sentence {place} of very many, and each has a number of its own. " for place in range(9_000)]
    talk[4_400:4_600] = [TOPIC] * 200
    assert "router" not in kept("".join(talk), "sections", 2_000)
    talk[8_800:9_000] = [TOPIC] * 200
    assert "router" in kept("".join(talk), "sections", 2_000)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("e", "\u0301"),  # an accent
        ("\r", "\n"),
        ("👍", "\U0001f3fd"),  # a skin tone
        ("👩\u200d", "👧"),
        ("👩", "\u200d👧"),
        ("\U0001f1e9", "\U0001f1ea"),  # a flag
        ("\u1100", "\u1161"),  # Hangul, taken apart
        ("क\u094d", "ष"),  # a conjunct
        ("\U0001f3f4", "\U000e0067"),  # a flag of tags
        ("ก", "\u0e33"),
    ],
)
def test_one_character_of_several_code_points_stays_whole(left: str, right: str) -> None:
    """Rules GB3 and GB6 to GB13 of UAX #29."""
    text = f"ab{left}{right}cd"
    at = 2 + len(left)
    assert boundary_before(text, at) < at < boundary_after(text, at)
    assert text[: boundary_before(text, at)] == "ab"


def test_between_two_characters_nothing_moves() -> None:
    """Two flags, two letters, two signs: between them is a boundary."""
    for text, at in (
        ("ab", 1),
        ("\U0001f1e9\U0001f1ea\U0001f1eb\U0001f1f7", 2),
        ("语言", 1),
        ("각각", 1),
        ("ab", 0),
        ("ab", 2),
    ):
        assert boundary_before(text, at) == boundary_after(text, at) == at


def test_a_letter_with_hundreds_of_marks_is_cut_all_the_same() -> None:
    """Whoever writes that cannot make us look for its end for ever, nor hide the rest of the text."""
    assert boundary_before(MARKS_OF_ONE_LETTER, 150) == 150
    assert len(kept(MARKS_OF_ONE_LETTER + CHINESE, "head", 150)) == 150
