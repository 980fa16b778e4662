"""What cutting needs to know of tokens: how many there are, and where a number of them ends."""

from typing import Protocol


class TokenCounter(Protocol):
    """Counts tokens. Its time grows with what it is asked for, and not with the text around it."""

    counted: str
    """How: `estimate` or `tokenizer`."""

    def count(self, text: str) -> int:
        """Return the tokens of a text, 0 for an empty one."""

    def fits(self, text: str, max_tokens: int) -> bool:
        """Return whether the text has at most so many tokens."""

    def head_chars(self, text: str, max_tokens: int) -> int:
        """Return how many characters at the beginning have about so many tokens. `count` says it exactly."""

    def tail_chars(self, text: str, max_tokens: int) -> int:
        """Return how many characters at the end have about so many tokens. `count` says it exactly."""
