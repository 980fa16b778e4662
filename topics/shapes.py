"""The three shapes of an output value. The input's bytes are embedded as they are, never decoded and encoded again.

Encoding again would lose what JSON allows and Python does not keep: duplicate keys, integers past 64 bits, white space.
"""

from dataclasses import dataclass
from typing import Any, Literal

import orjson

from topics import provenance as provenances
from topics.provenance import Provenance

_BLANKS = b" \t\r\n"  # RFC 8259, section 2


class NotMergeable(ValueError):
    """The input is no JSON object, or it already has the name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How a task writes its values. `merge_as` only matters to `merge`. `text`: the input is UTF-8 text, not JSON."""

    kind: Literal["wrap", "merge", "only"] = "wrap"
    merge_as: str = "enrichment"
    text: bool = False


WRAP = Shape()


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """An output value taken apart. `input` is what the producer sent, byte for byte.

    `only` keeps no input; `merge` and `only` keep no provenance (their headers do): these are None then.
    """

    input: bytes | None
    enrichment: Any
    provenance: Provenance | None


def encode(value: bytes, enrichment: Any, provenance: Provenance, shape: Shape = WRAP) -> bytes:
    """Return the output value for the input `value`, which s1_decode has found to be JSON (or UTF-8 text).

    Raises:
        NotMergeable: see there; only `merge`.
        TypeError: the enrichment is no JSON (a bug of whoever made it).
    """
    if shape.kind == "wrap":
        embedded = value.decode() if shape.text else orjson.Fragment(value)
        return orjson.dumps({"input": embedded, "enrichment": enrichment, "provenance": provenances.encode(provenance)})
    if shape.kind == "merge":
        return _merge(value, enrichment, shape)
    return orjson.dumps(enrichment)


def decode(value: bytes, shape: Shape = WRAP) -> Decoded:
    """Take apart what `encode` wrote with the same shape.

    Raises:
        ValueError: `value` was not written by `encode` with that shape.
    """
    if shape.kind == "wrap":
        return _unwrap(value, text=shape.text)
    if shape.kind == "merge":
        return _unmerge(value, shape.merge_as)
    return Decoded(input=None, enrichment=orjson.loads(value), provenance=None)


def _unwrap(value: bytes, *, text: bool) -> Decoded:
    """Cut the input out by writing again what follows it: orjson writes what it read from itself the same way."""
    whole = orjson.loads(value)
    if not isinstance(whole, dict) or list(whole) != ["input", "enrichment", "provenance"]:
        raise ValueError("not a wrapped value")
    head = b'{"input":'
    tail = b"," + orjson.dumps({"enrichment": whole["enrichment"], "provenance": whole["provenance"]})[1:]
    if not value.startswith(head) or not value.endswith(tail):
        raise ValueError("a wrapped value, but not as Penstock writes it")
    embedded = whole["input"].encode() if text else value[len(head) : -len(tail)]
    return Decoded(input=embedded, enrichment=whole["enrichment"], provenance=provenances.decode(whole["provenance"]))


def _merge(value: bytes, enrichment: Any, shape: Shape) -> bytes:
    """Put one member before the closing brace: every byte of the input stays where it was, up to there."""
    if shape.text:
        raise NotMergeable("text has no members to merge into")
    try:
        members = orjson.loads(value)
    except orjson.JSONDecodeError as exc:
        raise NotMergeable("the input is no JSON object") from exc
    if not isinstance(members, dict):
        raise NotMergeable(f"the input is a JSON {type(members).__name__}, no object")
    if shape.merge_as in members:
        raise NotMergeable("the input already has the name under which the enrichment would be merged")
    end = len(value.rstrip(_BLANKS)) - 1
    comma = b"," if members else b""
    return value[:end] + comma + _member(shape.merge_as, enrichment) + value[end:]


def _unmerge(value: bytes, name: str) -> Decoded:
    members = orjson.loads(value)
    if not isinstance(members, dict) or name not in members:
        raise ValueError("not a merged value: the name is missing")
    end = len(value.rstrip(_BLANKS)) - 1
    added = _member(name, members[name])
    if len(members) > 1:
        added = b"," + added
    if not value[:end].endswith(added):
        raise ValueError("a merged value, but not as Penstock writes it")
    return Decoded(input=value[: end - len(added)] + value[end:], enrichment=members[name], provenance=None)


def _member(name: str, enrichment: Any) -> bytes:
    return orjson.dumps({name: enrichment})[1:-1]
