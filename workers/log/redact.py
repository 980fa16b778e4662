"""Takes known secret values, in the forms in which they travel, and userinfo in URLs out of anything that is logged."""

import base64
import json
import re
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, quote_plus

MASK = "**********"
MIN_SECRET_CHARS = 4
"""Shorter values would blank half of every line; `lint` should refuse them."""
LEARNED_MAX = 32
"""Secrets that came later: a bearer token that is renewed every few minutes must not fill the memory."""
MAX_TEXT_CHARS = 8_192
_READ_CHARS = 8 * MAX_TEXT_CHARS
_MIN_BASE64_CHARS = 6
_MAX_DEPTH = 8

_USERINFO = re.compile(r"""(?<=://)[^\s/?#"'<>]*@""")


class Redactor:
    """Knows the secrets of this process. Cheap for plain numbers, one pass of a regular expression for a text."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._first = frozenset(secrets)
        self._learned: deque[str] = deque(maxlen=LEARNED_MAX)
        self._known = self._pattern()

    def learn(self, secret: str) -> None:
        """Hide this one from now on too, at the expense of the oldest that was learned."""
        if secret not in self._first and secret not in self._learned:
            self._learned.append(secret)
            self._known = self._pattern()

    def _pattern(self) -> re.Pattern[str] | None:
        forms = {form for secret in (*self._first, *self._learned) for form in _forms(secret)}
        longest_first = sorted(forms, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest_first))) if forms else None

    def text(self, text: str) -> str:
        """Return `text` without secrets, shortened in the middle to `MAX_TEXT_CHARS`."""
        text = _USERINFO.sub(f"{MASK}@", text[:_READ_CHARS])
        if self._known is not None:
            text = self._known.sub(MASK, text)
        if len(text) <= MAX_TEXT_CHARS:
            return text
        half = MAX_TEXT_CHARS // 2
        return f"{text[:half]} [...] {text[-half:]}"

    def fields(self, fields: Mapping[Any, Any]) -> dict[str, Any]:
        """Return the fields of a line as plain values without secrets."""
        return {self.text(str(name)): self._value(value, 0) for name, value in fields.items()}

    def _value(self, value: Any, depth: int) -> Any:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int | float):
            return value if self.text(str(value)) == str(value) else MASK
        if depth < _MAX_DEPTH and isinstance(value, Mapping):
            return {self.text(str(name)): self._value(inner, depth + 1) for name, inner in value.items()}
        if depth < _MAX_DEPTH and isinstance(value, list | tuple | set | frozenset):
            return [self._value(inner, depth + 1) for inner in value]
        return self.text(_shown(value))


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes | bytearray):
        return bytes(value).decode("utf-8", "backslashreplace")
    return str(value) if isinstance(value, BaseException) else repr(value)


def _forms(secret: str) -> set[str]:
    """Return the ways in which a secret is written: plain, in a URL, in JSON, in a repr, in base64 (RFC 4648)."""
    if len(secret) < MIN_SECRET_CHARS:
        return set()
    raw = secret.encode("utf-8", "surrogatepass")
    return {
        secret,
        quote(secret, safe="", errors="surrogatepass"),
        quote_plus(secret, errors="surrogatepass"),
        quote(secret, errors="surrogatepass"),
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        repr(secret)[1:-1],
        repr(raw)[2:-1],
        *_base64_forms(raw),
    }


def _base64_forms(raw: bytes) -> set[str]:
    """Return what of `raw` shows in base64 wherever it begins, as in `Basic base64(user:password)`.

    Only characters that depend on `raw` alone count: 6 bits each, so those at its edges are left out.
    """
    forms: set[str] = set()
    for before in range(3):
        first = (before * 8 + 5) // 6
        end = (before + len(raw)) * 8 // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            form = encode(b"\0" * before + raw).decode("ascii")[first:end]
            if len(form) >= _MIN_BASE64_CHARS:
                forms.add(form)
    return forms
