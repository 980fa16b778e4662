"""What the simulated model says: keywords of the ticket stand in for understanding, the schema for the grammar."""

import contextlib
import re
import zlib
from collections.abc import Iterator
from typing import Any

import orjson

CATEGORIES = {
    "billing": "invoice charge charged charges refund payment paid billing card subscription price vat receipt",
    "bug": "crash crashes crashed error bug broken fails failed exception freezes blank stuck timeout 500 wrong",
    "account": "password login locked account email username signin sso 2fa sign-in delete profile",
    "how_to": "how where can configure setup guide documentation export import change settings possible",
}
"""Words that speak for a category; the one with most of them in the text wins, `how_to` only where no other has any."""

URGENCIES = {
    "high": "urgent asap immediately outage down production critical emergency today blocked",
    "low": "whenever someday curious wondering suggestion minor thanks",
}
"""Words that speak for an urgency; one of them is enough, `high` is looked for first."""

SUMMARY_MAX_CHARS = 200
TEXT_MAX_CHARS = 20_000
"""A longer text is judged by its beginning."""

MAX_DEPTH = 32

_TICKET = re.compile(r"<ticket>\s*(.*?)\s*</ticket>", re.DOTALL)
_WORD = re.compile(r"[a-z0-9][a-z0-9-]*")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s|\n")
_CATEGORY_WORDS = {category: frozenset(words.split()) for category, words in CATEGORIES.items()}
_URGENCY_WORDS = {urgency: frozenset(words.split()) for urgency, words in URGENCIES.items()}


def ticket(text: str) -> str:
    """Return what a prompt is about: the strings of the JSON between `<ticket>` tags, or the text as it is."""
    found = _TICKET.search(text)
    if not found:
        return text
    for whole in (found[1], f'{found[1]}"}}'):  # a prompt that cuts long tickets cuts inside a string, as a rule
        with contextlib.suppress(orjson.JSONDecodeError):
            return "\n".join(_strings(orjson.loads(whole)))
    return found[1]


def _strings(value: Any, depth: int = 0) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list) and depth < MAX_DEPTH:
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner, depth + 1)


def triage(text: str) -> dict[str, str]:
    """Return category, urgency and summary of a ticket: the same text always gets the same answer."""
    words = _WORD.findall(text[:TEXT_MAX_CHARS].lower())
    scores = {category: sum(word in known for word in words) for category, known in _CATEGORY_WORDS.items()}
    asks = scores.pop("how_to")
    best = max(scores, key=lambda category: scores[category])
    return {
        "category": best if scores[best] else "how_to" if asks else "other",
        "urgency": next((urgency for urgency, known in _URGENCY_WORDS.items() if known.intersection(words)), "normal"),
        "summary": summary(text),
    }


def summary(text: str) -> str:
    """Return the text's first sentence, at most 200 characters of it."""
    first = _SENTENCE_END.split(text[:TEXT_MAX_CHARS].strip(), 1)[0]
    return " ".join(first.split())[:SUMMARY_MAX_CHARS]


def instance(schema: Any, hints: dict[str, str], depth: int = 0) -> Any:
    """Return a value that fits a JSON Schema: a hint of the property's own name where it fits, else the smallest.

    Understands const, enum, type, properties, items, the bounds of length and number, anyOf, oneOf and allOf (the
    first), and nothing else: `pattern`, `format` and `$ref` are not honoured, as by many a small server.
    """
    if not isinstance(schema, dict) or depth > MAX_DEPTH:
        return None
    if "const" in schema or schema.get("enum"):
        return schema["const"] if "const" in schema else schema["enum"][0]
    for combined in ("anyOf", "oneOf", "allOf"):
        if schema.get(combined):
            return instance(schema[combined][0], hints, depth + 1)
    kind = schema.get("type", "object" if "properties" in schema else "null")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        return {name: _member(name, of, hints, depth) for name, of in schema.get("properties", {}).items()}
    if kind == "array":
        return [instance(schema.get("items"), hints, depth + 1) for _ in range(schema.get("minItems", 0))]
    return _scalar(kind, schema)


def _member(name: str, schema: Any, hints: dict[str, str], depth: int) -> Any:
    hint = hints.get(name)
    if hint is not None and isinstance(schema, dict):
        if hint in schema.get("enum", ()):
            return hint
        if schema.get("type") == "string" and "enum" not in schema:
            return hint[: schema.get("maxLength", len(hint))].ljust(schema.get("minLength", 0))
    return instance(schema, hints, depth + 1)


def _scalar(kind: str, schema: dict[str, Any]) -> Any:
    if kind == "string":
        return "x" * schema.get("minLength", 0)
    if kind in ("integer", "number"):
        return max(schema.get("minimum", 0), schema.get("exclusiveMinimum", -1) + 1)
    return False if kind == "boolean" else None


def wrapped(answer: str, text: str, ratio: float) -> str:
    """Return the answer, for a share of the texts in a code fence or in prose, as models do when not held to it.

    Which texts is decided by the text alone, so that a record meets the same fate however often it is asked.
    """
    draw = zlib.crc32(text.encode(errors="replace"))
    if (draw >> 1) / 2**31 >= ratio:
        return answer
    return f"```json\n{answer}\n```" if draw & 1 else f"Here is the answer you asked for:\n\n{answer}\n\nAnything else?"
