"""Stage 2: from a request to the body of a model call."""

import re

from workers.errors import PromptFailed
from workers.prompts import explain
from workers.records import Prompt, Record, Request
from workers.task import Task

_CONTROLS = bytes({*range(0x20), 0x7F} - set(b"\n\t"))

_INVISIBLE = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 without tab and line feed, DEL, C1
    "\u202a-\u202e\u2066-\u2069"  # bidirectional overrides and isolates: they hide what a reviewer should see
    "\U000e0000-\U000e007f"  # tags: invisible text that some models read
    "\ud800-\udfff"  # half a surrogate pair cannot be written as UTF-8
    "]"
)
"""Zero-width joiners and marks stay: Persian, Indic scripts and emoji are spelt with them."""

_CONTROL_TOKENS = (
    *("<|", "<｜", "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "<start_of_turn>", "<end_of_turn>"),  # noqa: RUF001 - DeepSeek's bar
    *("<s>", "</s>", "<bos>", "<eos>"),
)
"""How chat templates mark a turn (ChatML, Llama, DeepSeek, Mistral, Gemma), and how models mark the end of all text.
Servers also read them inside a text."""


def build(request: Request, task: Task) -> Prompt:
    """Return the body to send: the task's frame around the rendered text, made harmless for the prompt only.

    Raises:
        PromptFailed: the template failed on this record; not retryable. Its text has no record content.
    """
    record = request.record
    try:
        text = task.render(
            record=request.value,
            key=None if record.key is None else record.key.decode("utf-8", "replace"),
            headers=_headers(record),
            kafka_topic=record.topic,
            kafka_partition=record.partition,
            kafka_offset=record.offset,
            kafka_timestamp_ms=record.timestamp_ms,
        )
    except Exception as exc:  # the seam to the user's template, which can raise anything
        raise PromptFailed(explain(exc)) from exc
    return task.frame.around(_harmless(text))


def _headers(record: Record) -> dict[str, str]:
    """Return the headers as text, the last of a name; a null value is an empty text."""
    if not record.headers:
        return {}
    return {name: (value or b"").decode("utf-8", "replace") for name, value in record.headers}


def _harmless(text: str) -> str:
    """Remove what a person cannot see, and break what a model server would take for the end of a turn."""
    # The expression alone would do; for ASCII the table is five times faster.
    text = text.encode().translate(None, _CONTROLS).decode() if text.isascii() else _INVISIBLE.sub("", text)
    for token in _CONTROL_TOKENS:
        if token in text:
            text = text.replace(token, f"{token[0]} {token[1:]}")
    return text
