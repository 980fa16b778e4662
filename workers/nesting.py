"""How deep a JSON text nests, without recursion."""

from itertools import accumulate

MAX_DEPTH = 200
"""Deepest value that we take: orjson reads 1,024 levels but writes only 254, and an output wraps its input."""

_ALL_BUT_STRUCTURE = bytes(set(range(256)) - set(b'"[]{}'))
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")


def too_deep(text: bytes) -> bool:
    """Return whether a valid JSON text nests deeper than `MAX_DEPTH`; brackets inside strings do not count.

    Costs two counts for a text with few brackets, else about as much as parsing it; linear in any case.
    """
    if len(text) <= 2 * MAX_DEPTH or text.count(b"[") + text.count(b"{") <= MAX_DEPTH:
        return False
    if b"\\" in text:  # escaped backslashes first, so that what is left before a quote does escape it
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    # Two quotes side by side are a string without brackets, or one string's end and the next one's start: either way
    # the strings around them stay paired without them.
    structure = text.translate(None, _ALL_BUT_STRUCTURE).replace(b'""', b"")
    brackets = b"".join(structure.split(b'"')[::2])
    return max(accumulate(memoryview(brackets.translate(_STEPS)).cast("b")), default=0) > MAX_DEPTH
