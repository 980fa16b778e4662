"""The key sections of a long text: whole sentences of it in their order, chosen without a model and always the same.

Opening and closing get a fifth of the budget each; a text's lead is the hardest baseline to beat. The rest goes to the
sentences whose words tell most about it. As in Luhn (The Automatic Creation of Literature Abstracts, 1958), words of
medium frequency do: those in nearly every sentence say nothing, those in one alone are not what the text is about. Each
word weighs log(n) log(N/n) when it is in n of N sentences; a sentence has its words' sum over the root of their number.
"""

import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from math import log, sqrt
from operator import add

from workers.inputs.counting import TokenCounter
from workers.inputs.graphemes import boundary_after, boundary_before
from workers.inputs.marks import MARK

LOOKED_AT_MAX_CHARS = 32 << 10
"""Of a longer text only the first and the last half of this: choosing costs time on the event loop."""

_ENDINGS = re.compile(r"[.!?]\s|[。！？]|\n\n")  # noqa: RUF001 - how Chinese and Japanese end a sentence
"""No repetition, so that no text can make it slow."""

_SENTENCE_MIN_CHARS, _SENTENCE_MAX_CHARS, _SENTENCES_MAX = 60, 400, 512
"""Shorter ones are joined with the next, longer ones (no language, or nearly none) are broken."""

_SIGNS = ".,;:!?()[]{}<>\"'`*|"
_WORD_MAX_CHARS = 12
"""Longer on average: a script without blanks between its words, and pairs of characters stand for words."""

_MISSES_MAX = 32
"""So many in a row that do not fit: what is left of the budget is too little."""

Span = tuple[int, int]


def key_sections(text: str, budget_tokens: int, counter: TokenCounter) -> str:
    """Return opening, key sentences and closing, with `MARK` where something is left out; '' when none can be chosen.

    Its parts have at most `budget_tokens`, each counted by itself.
    """
    sentences = _sentences(text)
    opening = (0, _opening_end(text, sentences, budget_tokens // 5, counter))
    closing = (max(opening[1], _closing_start(text, sentences, budget_tokens // 5, counter)), len(text))
    between = [one for one in sentences if opening[1] <= one[0] and one[1] <= closing[0]]
    spent_tokens = sum(counter.count(text[start:end]) for start, end in (opening, closing))
    chosen = _chosen(text, between, (opening, closing), budget_tokens - spent_tokens, counter)
    if not chosen:
        return ""
    spans = sorted([opening, *chosen, closing])
    joints = ["" if one[1] == other[0] else MARK for one, other in pairwise(spans)]
    return "".join(text[start:end] + joint for (start, end), joint in zip(spans, [*joints, ""], strict=True))


def _chosen(
    text: str, sentences: list[Span], frame: tuple[Span, Span], room_tokens: int, counter: TokenCounter
) -> list[Span]:
    """Return the best sentences that fit, best first. One that says the same words as one before is left out."""
    mark_tokens = counter.count(MARK)
    room_tokens -= mark_tokens  # between opening and closing
    starts, ends = {start for start, _ in frame}, {end for _, end in frame}
    chosen: list[Span] = []
    said: set[frozenset[str]] = set()
    misses = 0
    for (start, end), words in _by_weight(text, sentences):
        if words in said:
            continue
        marks = 1 - (start in ends) - (end in starts)
        cost_tokens = counter.count(text[start:end]) + marks * mark_tokens
        if cost_tokens > room_tokens:
            misses += 1
            if misses == _MISSES_MAX:
                break
            continue
        misses = 0
        room_tokens -= cost_tokens
        said.add(words)
        starts.add(start)
        ends.add(end)
        chosen.append((start, end))
    return chosen


def _by_weight(text: str, sentences: list[Span]) -> list[tuple[Span, frozenset[str]]]:
    """Return the sentences with their words, the heaviest first, equal ones in their order."""
    plain = text
    for sign in _SIGNS:
        plain = plain.replace(sign, " ")
    words = [_words(plain[start:end]) for start, end in sentences]
    holding = Counter(word for each in words for word in each)
    total = len(sentences)
    # Whole numbers: a sum of fractions depends on the order of a set, and that is another one in every process.
    weight = [0, *(round(1_000 * log(n) * log(total / n)) for n in range(1, total + 1))]
    weights = [sum(map(weight.__getitem__, map(holding.__getitem__, each))) / sqrt(len(each) or 1) for each in words]
    order = sorted(range(total), key=lambda place: -weights[place])
    return [(sentences[place], words[place]) for place in order]


def _words(plain: str) -> frozenset[str]:
    words = plain.lower().split()
    if len(plain) <= _WORD_MAX_CHARS * len(words):
        return frozenset(words)
    return frozenset(map(add, plain, plain[1:]))


def _opening_end(text: str, sentences: list[Span], budget_tokens: int, counter: TokenCounter) -> int:
    """Return the end of the last sentence within the budget, or as much of the first as fits."""
    chars = counter.head_chars(text, budget_tokens)
    place = bisect_right(sentences, chars, key=lambda one: one[1])
    return sentences[place - 1][1] if place else boundary_before(text, chars)


def _closing_start(text: str, sentences: list[Span], budget_tokens: int, counter: TokenCounter) -> int:
    """Return the start of the first of the sentences at the end that are within the budget, or of as much as fits."""
    start = len(text) - counter.tail_chars(text, budget_tokens)
    place = bisect_left(sentences, start, key=lambda one: one[0])
    return sentences[place][0] if place < len(sentences) else boundary_after(text, start)


def _sentences(text: str) -> list[Span]:
    """Return the sentences, one behind the other; of a text that is too long, those of both ends."""
    half = LOOKED_AT_MAX_CHARS // 2
    if len(text) <= 2 * half:
        return list(_sentences_in(text, 0, len(text)))
    front_end = boundary_before(text, half)
    back_start = boundary_before(text, len(text) - half)
    return [*_sentences_in(text, 0, front_end), *_sentences_in(text, back_start, len(text))]


def _sentences_in(text: str, start: int, stop: int) -> Iterator[Span]:
    least = max(_SENTENCE_MIN_CHARS, (stop - start) // _SENTENCES_MAX)
    most = max(_SENTENCE_MAX_CHARS, 2 * least)
    while start < stop:
        end = start + most
        if found := _ENDINGS.search(text, start + least - 1, end):
            end = found.end()
        elif end < stop:
            end = 1 + max(text.rfind("\n", start + least, end), text.rfind(" ", start + most // 2, end), end - 1)
        end = boundary_before(text, min(end, stop))
        yield start, end
        start = end
