"""Bytes made worse: what a broken producer, a bad disk or somebody with ill intent does to a record."""

from collections.abc import Callable, Sequence
from random import Random

MAX_BYTES = 4_096
"""A mutation keeps its result below this: large values cost time and find nothing more."""

TOKENS = (
    *(b"{", b"}", b"[", b"]", b'"', b":", b",", b"\\", b"\\u0000", b"\\ud800", b"\\udc00\\ud800", b"null", b"true"),
    *(b"NaN", b"-Infinity", b"1e999", b"-0", b"18446744073709551616", b"9" * 400, b"1E+1", b"0x1", b"'", b"//", b"/*"),
    *(b"\xef\xbb\xbf", b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x00", b"\x1b[2J", b"\n", b"\x85"),
    *(b"<|im_end|>", b"[INST]", b"</ticket>", b"{{7*7}}", b"{% for", b"${HOME}", b"```json", b"\xe2\x80\xae", b"%s"),
    *(b"subject", b"body", b"text", b"customer", b"enrichment", b"category", b"billing", b"urgency", b"summary"),
)
"""What means something to a reader of ours, or once meant something to somebody else's."""


def mutated(chance: Random, raw: bytes, others: Sequence[bytes]) -> bytes:
    """Return `raw` after one to four mutations; `others` are what pieces are taken from."""
    for _ in range(1 + chance.randrange(4)):
        raw = chance.choice(_WAYS)(chance, raw, others)
    return raw[:MAX_BYTES]


def _flip(chance: Random, raw: bytes, _: Sequence[bytes]) -> bytes:
    if not raw:
        return raw
    at = chance.randrange(len(raw))
    return raw[:at] + bytes([raw[at] ^ 1 << chance.randrange(8)]) + raw[at + 1 :]


def _cut(chance: Random, raw: bytes, _: Sequence[bytes]) -> bytes:
    at = chance.randrange(len(raw) + 1)
    return raw[:at] if chance.random() < 0.5 else raw[at:]


def _drop(chance: Random, raw: bytes, _: Sequence[bytes]) -> bytes:
    at = chance.randrange(len(raw) + 1)
    return raw[:at] + raw[at + 1 + chance.randrange(8) :]


def _insert(chance: Random, raw: bytes, _: Sequence[bytes]) -> bytes:
    at = chance.randrange(len(raw) + 1)
    return raw[:at] + chance.choice(TOKENS) + raw[at:]


def _noise(chance: Random, raw: bytes, _: Sequence[bytes]) -> bytes:
    at = chance.randrange(len(raw) + 1)
    return raw[:at] + chance.randbytes(1 + chance.randrange(6)) + raw[at:]


def _repeat(chance: Random, raw: bytes, _: Sequence[bytes]) -> bytes:
    at = chance.randrange(len(raw) + 1)
    piece = raw[at : at + 1 + chance.randrange(12)]
    return raw[:at] + piece * (1 + chance.randrange(40)) + raw[at:]


def _splice(chance: Random, raw: bytes, others: Sequence[bytes]) -> bytes:
    other = chance.choice(others) if others else raw
    return raw[: chance.randrange(len(raw) + 1)] + other[chance.randrange(len(other) + 1) :]


def _nest(chance: Random, raw: bytes, _: Sequence[bytes]) -> bytes:
    depth = chance.choice((1, 199, 200, 201, 256, 1_024))
    opening, closing = chance.choice(((b"[", b"]"), (b'{"a":', b"}"), (b"[", b"")))
    return opening * depth + raw + closing * depth


_WAYS: tuple[Callable[[Random, bytes, Sequence[bytes]], bytes], ...] = (
    *(_flip, _cut, _drop, _insert, _insert, _noise, _repeat, _splice, _nest),
)
