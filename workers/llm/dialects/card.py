"""What a server says of itself, for `dry-run`: how long a context, how many at a time, how busy. Plain readers."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from workers.json_text import loads

Answers = Mapping[str, bytes]
"""The bodies of the 200s, by the path that was asked."""


class Card(NamedTuple):
    """None: the server does not say.

    `context_tokens` holds prompt and answer together. `slots`: requests worked on at a time, others wait in the
    server. `running`, `waiting`: requests right now, of everybody.
    """

    context_tokens: int | None = None
    slots: int | None = None
    running: int | None = None
    waiting: int | None = None


def json_of(said: Answers, path: str) -> dict[str, Any]:
    """Return the object at a path, an empty one where there is none."""
    try:
        value = loads(said.get(path, b"{}"))
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def number(value: object) -> int | None:
    """Return a positive count, None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def listed_context_tokens(said: Answers, model: str) -> int | None:
    """Return the context of a model in `/v1/models`: `max_model_len` (vLLM) or `meta.n_ctx` (llama.cpp)."""
    listed = json_of(said, "/v1/models").get("data")
    for entry in listed if isinstance(listed, list) else ():
        if isinstance(entry, dict) and model in (entry.get("id"), *_aliases(entry)):
            meta = entry.get("meta")
            return number(entry.get("max_model_len")) or (number(meta.get("n_ctx")) if isinstance(meta, dict) else None)
    return None


def _aliases(entry: Mapping[str, Any]) -> list[Any]:
    aliases = entry.get("aliases")
    return aliases if isinstance(aliases, list) else []


def gauge(said: Answers, name: str) -> int | None:
    """Return a gauge in `/metrics` (Prometheus' text format), summed over its labels; None when it is not there."""
    text = said.get("/metrics", b"").decode("utf-8", "replace")
    found = re.findall(rf"^{re.escape(name)}(?:\{{[^\n]*\}})?[ \t]+(\d+(?:\.\d+)?)", text, re.MULTILINE)
    return round(sum(map(float, found))) if found else None
