"""Where a text may be cut without taking apart what a reader sees as one character.

The rules of UAX #29 (grapheme clusters) as far as the categories of `unicodedata` carry them: marks, joiners, emoji
sequences, flags, Hangul syllables, Indic conjuncts. Where in doubt, not there.
"""

from itertools import takewhile
from unicodedata import category, combining

_JOINER = "\u200d"
_EXTENDING = ("\u200c", _JOINER, "\u0e33", "\u0eb3", "\uff9e", "\uff9f")
"""Zero-width joiners; the vowels of Thai and Lao and the Japanese voicing marks that stand behind their letter."""

_VIRAMA = 9
"""The combining class of the mark that joins two consonants (rule GB9c)."""


_LONGEST = 64
"""Code points. Stream-safe text (UAX #15) has no more than 30 marks on a letter; what is longer is nobody's character,
and looking for its end could be made to take for ever."""


def boundary_before(text: str, at: int) -> int:
    """Return the last place up to `at` where the text may be cut; `at` itself when it is far away."""
    return next((place for place in range(at, at - _LONGEST, -1) if not _inside(text, place)), at)


def boundary_after(text: str, at: int) -> int:
    """Return the first place from `at` on where the text may be cut; `at` itself when it is far away."""
    return next((place for place in range(at, at + _LONGEST) if not _inside(text, place)), at)


def _inside(text: str, at: int) -> bool:
    if not 0 < at < len(text):
        return False
    left, right = text[at - 1], text[at]
    if right.isascii():
        return left == "\r" and right == "\n"
    if left == _JOINER or _extends(right) or _joins_hangul(left, right):
        return True
    if _is_flag_half(left) and _is_flag_half(right):
        return _flag_halves_before(text, at) % 2 == 1
    return combining(left) == _VIRAMA and category(right) == "Lo"


def _extends(char: str) -> bool:
    return (
        category(char) in ("Mn", "Mc", "Me")
        or char in _EXTENDING
        or "\U0001f3fb" <= char <= "\U0001f3ff"  # skin tones
        or "\U000e0020" <= char <= "\U000e007f"  # tags: the flags of Scotland and Wales
    )


def _joins_hangul(left: str, right: str) -> bool:
    if "\u1160" <= right <= "\u11ff" or "\ud7b0" <= right <= "\ud7fb":  # a vowel or a final consonant
        return True
    leading = "\u1100" <= left <= "\u115f" or "\ua960" <= left <= "\ua97c"
    return leading and ("\u1100" <= right <= "\u115f" or "\uac00" <= right <= "\ud7a3")


def _is_flag_half(char: str) -> bool:
    return "\U0001f1e6" <= char <= "\U0001f1ff"


def _flag_halves_before(text: str, at: int) -> int:
    halves = takewhile(_is_flag_half, reversed(text[max(0, at - _LONGEST) : at]))
    return sum(1 for _ in halves)
