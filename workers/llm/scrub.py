"""What may be quoted in an error: short, printable, without secrets. Errors end up in logs and dead letters."""

import re

MAX_CHARS = 200

# C0 and C1 controls, line separators, zero-width and direction marks: nothing that a terminal or a log viewer obeys.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]+")
_IDENTIFIER = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def quote(text: str, secret: str | None = None) -> str:
    """Return `text` fit for an error: at most 200 characters, no control characters, `secret` starred out."""
    if secret:
        text = text.replace(secret, "***")
    return _UNPRINTABLE.sub(" ", text[: 4 * MAX_CHARS]).strip()[:MAX_CHARS]


def identifier(value: object) -> str:
    """Return an identifier as it came, anything else as nothing: a code may be quoted, prose may hold the prompt."""
    return value if isinstance(value, str) and _IDENTIFIER.fullmatch(value) else ""
