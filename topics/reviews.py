"""OUT: copies for people. Always wrapped, whatever the task's shape: a person needs the input and the reason.

The record itself is on the fallback topic too, with the same `__penstock.source` and the same headers.
"""

from topics import shapes
from topics.provenance import Provenance
from topics.shapes import Decoded, Shape

TIER = "review"

_JSON = Shape()
_TEXT = Shape(text=True)


def encode(value: bytes, provenance: Provenance, *, text: bool = False) -> bytes:
    """Return the wrapped value, enrichment null."""
    return shapes.encode(value, None, provenance, _TEXT if text else _JSON)


def decode(value: bytes, *, text: bool = False) -> Decoded:
    """Return input and provenance; the enrichment is None.

    Raises:
        ValueError: not written by `encode`.
    """
    return shapes.decode(value, _TEXT if text else _JSON)
