"""Tokens as a model counts them, by its own tokenizer file. The library is needed only for such a file."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

_USUAL_CHARS, _MOST_CHARS = 6, 16
"""Characters per token: English has 4 to 5. A text with more than the second is one that holds next to nothing (runs of
blanks); no more than that is looked at, because encoding costs about 4 us a token, on the event loop."""


class TokenizerInvalid(ValueError):
    """A tokenizer file cannot be used; the text says why, and what to do."""


class Tokenizer:
    """A `TokenCounter` (`workers.inputs.counting`) around Hugging Face's library."""

    counted = "tokenizer"

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def count(self, text: str) -> int:
        """Return the tokens of the text alone: a chat template adds its own."""
        return len(self._tokenizer.encode(text, add_special_tokens=False))

    def fits(self, text: str, max_tokens: int) -> bool:
        """Return whether the text has at most so many tokens; never for more than 16 characters a token."""
        if len(text) > _MOST_CHARS * max_tokens:
            return False
        if len(text) < max_tokens and text.isascii():  # No vocabulary has less than a character of ASCII.
            return True
        usual = _USUAL_CHARS * max_tokens
        if len(text) > 2 * usual and self.count(text[:usual]) > max_tokens:
            return False
        return self.count(text) <= max_tokens

    def head_chars(self, text: str, max_tokens: int) -> int:
        """Return how many characters the first tokens cover."""
        for chars in (_USUAL_CHARS * max_tokens, _MOST_CHARS * max_tokens):
            spans = self._spans(text[:chars])
            if len(spans) > max_tokens:
                return spans[max_tokens - 1][1] if max_tokens else 0
            if chars >= len(text):
                break
        return min(len(text), chars)

    def tail_chars(self, text: str, max_tokens: int) -> int:
        """Return how many characters the last tokens cover."""
        for chars in (_USUAL_CHARS * max_tokens, _MOST_CHARS * max_tokens):
            window = text[max(0, len(text) - chars) :]
            spans = self._spans(window)
            if len(spans) > max_tokens:
                return len(window) - spans[-max_tokens][0] if max_tokens else 0
            if chars >= len(text):
                break
        return min(len(text), chars)

    def _spans(self, text: str) -> Sequence[tuple[int, int]]:
        spans: Sequence[tuple[int, int]] = self._tokenizer.encode(text, add_special_tokens=False).offsets
        return spans


@lru_cache(maxsize=8)
def read_tokenizer(file: Path) -> Tokenizer:
    """Return the tokenizer of a `tokenizer.json`; read once, as that takes up to a second.

    Raises:
        TokenizerInvalid: the file cannot be read or used, or the library is not installed.
    """
    try:
        from tokenizers import Tokenizer as Library  # noqa: PLC0415 - missing unless a model names a file
    except ImportError as exc:
        raise TokenizerInvalid(
            "needs a library: pip install --no-deps tokenizers; without this setting tokens are estimated"
        ) from exc
    try:
        tokenizer = Library.from_str(file.read_text("utf-8"))
    except OSError as exc:
        raise TokenizerInvalid(f"cannot be read: {exc.strerror}") from exc
    except Exception as exc:  # the seam: the library raises bare Exceptions
        raise TokenizerInvalid(f"is no tokenizer.json of Hugging Face's tokenizers: {str(exc)[:200]}") from exc
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True  # in a record, `</s>` is a text like any other
    return Tokenizer(tokenizer)
