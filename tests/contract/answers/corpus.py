"""Broken answers, and what has to become of each: the rows of the files beside this one, and answers cut anywhere.

A row: `class`, what the model `said`, its `finish_reason`, `expect` (the enrichment; null: none), `source` (which
servers or models show it), and `reads`, where a person would read a value that is not rescued. All are answers to the
task that the repository ships, `config/schemas/triage.v1.json`: where a tracker is named, the shape is from there and
the words are ours.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

_WHOLE = {"category": "account", "urgency": "normal", "summary": 'Cannot sign in: "locked" {2}, ```since``` \\today.'}
_EXAMPLE = '{"category": "other", "urgency": "low", "summary": "An example."}'
_TOKEN = re.compile(r"\w+|\s+|[^\w\s]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One broken answer; `expect` and `reads` are None for none."""

    kind: str
    said: str
    finish_reason: str
    expect: Any
    reads: Any


def rows() -> list[Row]:
    """Return the whole corpus, written rows first."""
    return [*_written(), *_cut()]


def _written() -> Iterator[Row]:
    for path in sorted(Path(__file__).parent.glob("*.jsonl")):
        for line in path.read_bytes().splitlines():
            row = orjson.loads(line)
            yield Row(
                kind=row["class"],
                said=row["said"],
                finish_reason=row["finish_reason"],
                expect=row["expect"],
                reads=row.get("reads", row["expect"]),
            )


def _cut() -> Iterator[Row]:
    """Yield answers cut after each token but the last, with both finish reasons.

    Not all servers say `length` of an answer that ends in the middle (ggml-org/llama.cpp#27279).
    """
    whole = orjson.dumps(_WHOLE).decode()
    frames = {
        "bare": ("", whole),
        "indented": ("", orjson.dumps(_WHOLE, option=orjson.OPT_INDENT_2).decode()),
        "fenced": ("```json\n", whole),
        "after prose": ("Here it is: ", whole),
        "after a thought": (f"<think>{_EXAMPLE}</think>\n", whole),
        "after an example": (f"For example {_EXAMPLE}\nAnswer: ", whole),
    }
    for name, (before, answer) in frames.items():
        for token in _TOKEN.finditer(answer[:-1]):
            for finish_reason in ("length", "stop"):
                said = before + answer[: token.end()]
                yield Row(kind=f"cut, {name}", said=said, finish_reason=finish_reason, expect=None, reads=None)
