"""What the contract tests before real model servers share, where somebody has started one: `make servers`."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.compiled import task_for
from tests.support.memory import MemorySink
from tests.support.wire import make_record
from workers.llm import Client
from workers.outcome import Enriched, Outcome
from workers.pipeline import decide, finish
from workers.ports import Ask
from workers.records import Passage, Prompt
from workers.stream.ledger import Ledger
from workers.stream.window import Delivery
from workers.task import Task

LABEL: dict[str, Any] = {
    "type": "object",
    "properties": {
        "label": {"enum": ["spam", "other"]},
        "urgency": {"type": "integer", "minimum": 1, "maximum": 5},
        "note": {"type": "string", "maxLength": 8},
    },
    "required": ["label", "urgency", "note"],
    "additionalProperties": False,
}
LONG = {"type": "object", "properties": {"label": {"type": "string", "minLength": 400}}, "required": ["label"]}
RECORD = make_record(topic="raw", value=b'{"text": "I was charged twice."}', headers=())


def url_of(server: str, target: str, variable: str) -> str:
    """Return the server's root; skip where the environment names none (it takes gigabytes, or minutes: CI has none)."""
    url = os.environ.get(variable)
    if url is None:
        how = f"`make servers SERVERS={target}` starts one, or {variable} says where one runs"
        pytest.skip(f"NOT CHECKED: no {server}; {how}")
    return url


def raw_prompt(client: Client, what: Ask, schema: dict[str, Any], text: str = "a ticket") -> Prompt:
    """Return a prompt with a schema as it stands, of which our client would leave out what the server refuses."""
    body = orjson.loads(client.frame(what).around(text).body)
    if "format" in body:
        body["format"] = schema
    else:
        body["response_format"]["json_schema"]["schema"] = schema
    return Prompt(orjson.dumps(body))


async def produced(task: Task, way: Passage) -> tuple[Enriched, dict[str, Any]]:
    """Send the record through the task; return its outcome, which must be enriched, and the value that is written."""
    sink = MemorySink()
    outcome = await decide(RECORD, task, way)
    assert isinstance(outcome, Enriched), outcome
    await finish(Delivery(RECORD, Ledger("raw", RECORD.partition, 0), RECORD.key, way), outcome, task, sink)
    [outgoing] = sink.sent
    return outcome, orjson.loads(outgoing.value or b"")


async def of_a_long_answer(folder: Path, client: Client, url: str, max_tokens: int, way: Passage) -> Outcome:
    """Return what becomes of a record whose answer has neither room in `max_tokens` nor in twice as many."""
    task = task_for(folder, client, url, schema=json.dumps(LONG))
    short, wide = (
        client.frame(Ask(name="triage", system="", schema=LONG, max_tokens=room, temperature=1.0))
        for room in (max_tokens, 2 * max_tokens)
    )
    return await decide(RECORD, replace(task, frame=short, wide_frame=wide), way)
