"""Find the JSON in an answer that is more than JSON: inside a fence, or in the middle of prose."""

import re
from collections.abc import Iterator
from typing import Literal

Rung = Literal["fenced", "embedded", "thought", "escaped"]

MAX_CANDIDATES = 8
"""Different texts tried per answer: with more of them, nobody could say which one is the answer."""

MAX_BRACES = 10_000
"""Braces looked at per answer. What lies between two braces is passed over at the speed of C."""

_FENCE = "```"
_LANGUAGE = re.compile(r"[A-Za-z0-9_+-]*")

# Where thinking begins and ends, for servers that leave it in the answer: DeepSeek R1, Qwen3 (the template may have
# said `<think>` already), Magistral, gpt-oss (harmony), Gemma 4.
_THOUGHT_BEGINS = ("<think>", "<thinking>", "[THINK]", "<|channel|>", "<|channel>")
_THOUGHT_ENDS = ("</think>", "</thinking>", "[/THINK]", "<|channel|>final", "<channel|>")

_JSON_BEGINS = re.compile(r"[\s\ufeff\u200b]*+(?:```|[{\[])")
_OBJECT = re.compile(r'\{\s*+["}]')
# Also what is no JSON but is meant as an object: keys in other quotation marks, escaped, or bare.
_OBJECT_BEGINS = re.compile(r"\{\s*+(?:[\"'`\\\u201c\u201e\u00ab\uff02]|\w++\s*+:|$)")
_BEFORE_CHARS = 64

# Possessive, so that no character is looked at twice. A string ends at its line's end at the latest: JSON has no line
# feed inside a string, and a stray quotation mark in the prose must not swallow the object that follows.
_TO_NEXT_BRACE = re.compile(r'(?:[^{}"]++|"(?:[^"\\\n]++|\\[^\n])*+"?+|\\)*+[{}]')


def candidates(text: str, *, cut: bool = False) -> Iterator[tuple[Rung, str]]:
    """Yield what may be the JSON in `text`, fenced texts first, then balanced objects; no text twice, at most 8.

    What the model thought does not count, and nothing does where the answer may be what is not there any more:

    - an object begins and never ends: what is whole was an example, or is a part of what is not;
    - `cut` (the model ran out of tokens) and prose comes first: it may have been thinking still;
    - more than 8 texts, or more braces than are looked at;
    - for balanced objects: one is the first of a list.

    Linear in the length of the text whatever it holds. Nothing yielded is known to be JSON.
    """
    said = _after_thinking(text)
    spans, whole = _balanced(said)
    if not whole or (cut and not _JSON_BEGINS.match(said)):
        return
    spans = [(start, end) for start, end in spans if _OBJECT.match(said, start)]
    found: dict[str, Rung] = {}
    for body in _fenced(said):
        found.setdefault(body.strip(), "fenced")
        if len(found) > MAX_CANDIDATES:
            return
    if not any(_first_of_list(said, start) for start, _ in spans):
        for start, end in spans:
            found.setdefault(said[start:end], "embedded")
    if len(found) <= MAX_CANDIDATES:
        yield from ((rung, candidate) for candidate, rung in found.items())


def _after_thinking(text: str) -> str:
    """Return what follows the last thought; nothing, when the model was still thinking."""
    said = text[max(text.rfind(mark) + len(mark) if mark in text else 0 for mark in _THOUGHT_ENDS) :]
    before, _, _ = said.partition("{")
    return "" if any(mark in before for mark in _THOUGHT_BEGINS) else said


def without_thought(text: str) -> str | None:
    """Return a text answer without the thought that it begins with; None when that thought never ends.

    `<think>...</think>`; or, where the chat template has said `<think>` already (DeepSeek R1, Qwen3), all before the
    one `</think>` that has a line to itself. Marks of thinking anywhere else belong to the text.
    """
    said = text.lstrip()
    if not said.startswith(_THOUGHT_BEGINS[0]):
        before, end, rest = said.partition(_THOUGHT_ENDS[0])
        alone = bool(end) and before.endswith("\n") and rest.lstrip(" \r").startswith("\n")
        untold = alone and _THOUGHT_BEGINS[0] not in said and _THOUGHT_ENDS[0] not in rest
        return rest.strip() if untold else text
    _, end, rest = said.partition(_THOUGHT_ENDS[0])
    return rest.strip() if end else None


def _first_of_list(text: str, start: int) -> bool:
    return text[max(0, start - _BEFORE_CHARS) : start].rstrip().endswith("[")


def _fenced(text: str) -> Iterator[str]:
    """Yield what stands between pairs of ```, without the language; a fence that is never closed ends with the text."""
    start = text.find(_FENCE)
    while start >= 0:
        language = _LANGUAGE.match(text, start + len(_FENCE))
        opened = language.end() if language else start
        end = text.find(_FENCE, opened)
        yield text[opened:] if end < 0 else text[opened:end]
        start = -1 if end < 0 else text.find(_FENCE, end + len(_FENCE))


def _balanced(text: str) -> tuple[list[tuple[int, int]], bool]:
    """Return where balanced objects start and end, outermost ones only, in one pass from left to right; and if all are.

    An opening brace that is never closed hides nothing: the objects inside it count then. Not all are there when such
    a brace is followed by what an object begins with, or when the limit of braces was reached.
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
        else:
            at = text.find("{", at + 1)
    return spans, at < 0 and not any(_OBJECT_BEGINS.match(text, start) for start in opened)
