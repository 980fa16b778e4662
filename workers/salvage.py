"""Find the JSON in an answer that is more than JSON: inside a fence, or in the middle of prose."""

import re
from collections.abc import Iterator
from itertools import chain, islice
from typing import Literal

Rung = Literal["fenced", "embedded"]

MAX_CANDIDATES = 8
"""Texts tried per answer: an answer that hides its object behind seven others is no answer."""

MAX_BRACES = 10_000
"""Braces looked at per answer. What lies between two braces is passed over at the speed of C."""

_FENCE = "```"
_LANGUAGE = re.compile(r"[A-Za-z0-9_+-]*")

# Possessive, so that no character is looked at twice. A string ends at its line's end at the latest: JSON has no line
# feed inside a string, and a stray quotation mark in the prose must not swallow the object that follows.
_TO_NEXT_BRACE = re.compile(r'(?:[^{}"]++|"(?:[^"\\\n]++|\\[^\n])*+"?+|\\)*+[{}]')


def candidates(text: str) -> Iterator[tuple[Rung, str]]:
    """Yield what may be the JSON in `text`, the likeliest first: fenced texts, then balanced objects; at most 8.

    Linear in the length of the text whatever it holds. Nothing yielded is known to be JSON.
    """
    fenced: Iterator[tuple[Rung, str]] = (("fenced", body) for body in _fenced(text))
    embedded: Iterator[tuple[Rung, str]] = (("embedded", text[start:end]) for start, end in _balanced(text))
    return islice(chain(fenced, embedded), MAX_CANDIDATES)


def _fenced(text: str) -> Iterator[str]:
    """Yield what stands between pairs of ```, without the language; a fence that is never closed ends with the text."""
    start = text.find(_FENCE)
    while start >= 0:
        language = _LANGUAGE.match(text, start + len(_FENCE))
        opened = language.end() if language else start
        end = text.find(_FENCE, opened)
        yield text[opened:] if end < 0 else text[opened:end]
        start = -1 if end < 0 else text.find(_FENCE, end + len(_FENCE))


def _balanced(text: str) -> list[tuple[int, int]]:
    """Return where balanced objects start and end, outermost ones only, in one pass from left to right.

    An opening brace that is never closed hides nothing: the objects inside it count then.
    """
    opened: list[int] = []
    spans: list[tuple[int, int]] = []
    at = text.find("{")
    for _ in range(MAX_BRACES):
        if at < 0:
            break
        if text[at] == "{":
            opened.append(at)
        else:
            start = opened.pop()
            while spans and spans[-1][0] > start:
                spans.pop()
            spans.append((start, at + 1))
        if opened:
            found = _TO_NEXT_BRACE.match(text, at + 1)
            at = found.end() - 1 if found else -1
        elif len(spans) < MAX_CANDIDATES:
            at = text.find("{", at + 1)
        else:
            break
    return spans
