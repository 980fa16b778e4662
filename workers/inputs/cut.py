"""One text made short enough: its head, its tail, both ends, or its key sections."""

from collections.abc import Callable

from workers.inputs.counting import TokenCounter
from workers.inputs.graphemes import boundary_after, boundary_before
from workers.inputs.marks import MARK
from workers.inputs.sections import key_sections

Keep = Callable[[str, int, TokenCounter], str]


def shortened(text: str, max_tokens: int, keep: str, counter: TokenCounter) -> str:
    """Return what is kept of a text that does not fit: by `counter`, never more than `max_tokens`.

    Tokenizers join what stands side by side, so that the parts say nearly, not exactly, what the whole will have: it is
    counted, and what is too much comes off the budget of the next try.
    """
    budget_tokens, tries = max_tokens, 0
    while budget_tokens > 0:
        kept = KEEPS[keep](text, budget_tokens, counter)
        over_tokens = counter.count(kept) - max_tokens
        if over_tokens <= 0:
            return kept
        budget_tokens -= over_tokens << tries
        tries += 1
    return ""


def _head(text: str, budget_tokens: int, counter: TokenCounter) -> str:
    return text[: boundary_before(text, counter.head_chars(text, budget_tokens))]


def _tail(text: str, budget_tokens: int, counter: TokenCounter) -> str:
    return text[boundary_after(text, len(text) - counter.tail_chars(text, budget_tokens)) :]


def _ends(text: str, budget_tokens: int, counter: TokenCounter) -> str:
    room_tokens = budget_tokens - counter.count(MARK)
    if room_tokens < 2:  # noqa: PLR2004 - one for each end
        return _head(text, budget_tokens, counter)
    front = _head(text, room_tokens - room_tokens // 2, counter)
    back = _tail(text, room_tokens // 2, counter)
    return text if len(front) + len(back) >= len(text) else front + MARK + back


def _sections(text: str, budget_tokens: int, counter: TokenCounter) -> str:
    return key_sections(text, budget_tokens, counter) or _ends(text, budget_tokens, counter)


KEEPS: dict[str, Keep] = {"head": _head, "tail": _tail, "ends": _ends, "sections": _sections}
