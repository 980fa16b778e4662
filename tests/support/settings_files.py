"""A small, sound configuration on disk, and mistakes planted into it at a marked place."""

import re
from pathlib import Path

MARK = "«"
"""Stands in a planted mistake directly before the character at which it must be reported."""

SOUND = """\
kafka:
  bootstrap_servers: localhost:9092
  group_id: triage
worker:
  drain_s: 20
models:
  small:
    model: tiny
    url: http://localhost:8000
tasks:
  triage:
    input: raw
    model: small
    prompt: {system: system.txt, user: user.j2}
    answer: {schema: answer.json}
    ladder:
      - rules: rules.yaml
      - default: {label: other}
"""

FILES = {
    "system.txt": "Sort it.\n",
    "user.j2": "{{ record.text }}\n",
    "answer.json": '{"type": "object", "properties": {"label": {"enum": ["spam", "other"]}}, "required": ["label"],'
    ' "additionalProperties": false}\n',
    "rules.yaml": "rules:\n  - when: {field: text, contains_any: [buy]}\n    then: {label: spam}\n",
}


def write_sound(folder: Path, text: str = SOUND, **files: str) -> Path:
    """Write a configuration and the files that it names; return its path. `files` replace some, dots as `__`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (FILES | {name.replace("__", "."): content for name, content in files.items()}).items():
        (folder / name).write_text(content)
    path = folder / "penstock.yaml"
    path.write_text(text)
    return path


def patient(text: str) -> str:
    """Return the text with time for a call on a busy machine, where it names none: for tests before a real server."""
    return re.sub(
        r"(    model: (?:tiny|big)\n)(?!    timeout_s)", r"\1    timeout_s: 60\n    connect_timeout_s: 60\n", text
    )


def planted(old: str, new: str, text: str = SOUND) -> tuple[str, tuple[int, int]]:
    """Return the text with its one `old` replaced by `new`, and the line and column of the mark in it."""
    assert text.count(old) == 1, f"{old!r} stands there {text.count(old)} times"
    marked = text.replace(old, new)
    assert marked.count(MARK) == 1, "one mark says where the mistake must be reported"
    before = marked[: marked.index(MARK)]
    return marked.replace(MARK, ""), (before.count("\n") + 1, len(before.rpartition("\n")[2]) + 1)
