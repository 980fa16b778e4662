"""E11-E13: a bad answer is asked for once more, in another way, where that can help. From wire to provenance."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support import fault_server as http
from tests.support.compiled import task_for
from tests.support.fault_server import FaultServer
from tests.support.llm_settings import Serve, Start
from tests.support.wire import make_record
from workers.llm import Client
from workers.outcome import Enriched, Fallback
from workers.pipeline import decide
from workers.records import Passage
from workers.retry_budget import RESERVE, SHARE
from workers.stages.s5_route import route
from workers.task import Task

SCHEMA = orjson.dumps(
    {"type": "object", "properties": {"label": {"enum": ["spam", "other"]}}, "required": ["label"]}
).decode()
RECORD = make_record(topic="raw", value=b'{"text": "hello"}')
GOOD = http.answer('{"label": "spam"}')
SAID = "urgent-word-of-the-record"


def task_of(folder: Path, client: Client, server: FaultServer) -> Task:
    """The sound task with this page's schema."""
    return task_for(folder, client, server.url, schema=SCHEMA)


def asked(server: FaultServer, nth: int) -> tuple[str, int]:
    """Return the user's text and `max_tokens` of a request."""
    body: Any = server.bodies[nth]
    return body["messages"][-1]["content"], body["max_tokens"]


@pytest.mark.fault("E11", "E12")
@pytest.mark.parametrize(
    ("said", "why"),
    [(f"I say {SAID}", "unexpected"), (f'{{"label": "{SAID}"}}', "label"), ("{}", "required")],
    ids=["no JSON", "off the schema", "incomplete"],
)
async def test_what_was_wrong_is_said_and_the_answer_is_not_quoted(
    serve: Serve, start: Start, tmp_path: Path, said: str, why: str
) -> None:
    """The second ask is the first text and below it the place and the rule that failed, nothing of the answer."""
    server = await serve(http.answer(said), GOOD)
    task = task_of(tmp_path, await start(server.url), server)
    outcome = await decide(RECORD, task, Passage(deadline_s=10))
    assert isinstance(outcome, Enriched), outcome
    (first, first_tokens), (second, second_tokens) = asked(server, 0), asked(server, 1)
    correction = second.removeprefix(first)
    assert second.startswith(first)
    assert why in correction
    assert SAID not in correction
    assert second_tokens == first_tokens
    [outgoing] = route(RECORD, outcome, task, {})
    provenance = orjson.loads(outgoing.value or b"")["provenance"]
    assert (provenance["repairs"], provenance["attempts"]) == (["asked_again"], 2)


@pytest.mark.fault("E13")
async def test_a_cut_answer_gets_twice_the_tokens(serve: Serve, start: Start, tmp_path: Path) -> None:
    """The same text, another budget: the same request would be cut again."""
    server = await serve(http.answer('{"label": "sp', "length"), GOOD)
    task = task_of(tmp_path, await start(server.url), server)
    outcome = await decide(RECORD, task, Passage(deadline_s=10))
    assert isinstance(outcome, Enriched), outcome
    (first, first_tokens), (second, second_tokens) = asked(server, 0), asked(server, 1)
    assert (second, second_tokens) == (first, 2 * first_tokens)
    assert outcome.reply.repairs == ("larger_budget",)


@pytest.mark.fault("E13")
async def test_a_model_that_writes_blanks_gets_no_more_room_for_them(
    serve: Serve, start: Start, tmp_path: Path
) -> None:
    """A grammar allows blanks between tokens: a larger budget would be filled with them as well."""
    server = await serve(http.answer('{"label":' + " " * 64, "length"), GOOD)
    task = task_of(tmp_path, await start(server.url), server)
    outcome = await decide(RECORD, task, Passage(deadline_s=10))
    assert isinstance(outcome, Fallback), outcome
    assert (outcome.error.reason, len(server.requests)) == ("answer_cut", 1)


@pytest.mark.fault("E11", "E12")
async def test_there_is_no_third_ask(serve: Serve, start: Start, tmp_path: Path) -> None:
    """Two bad answers are enough: the ladder answers, with what was wrong with the second."""
    server = await serve(http.answer("{}"), http.answer("no"), GOOD)
    task = task_of(tmp_path, await start(server.url), server)
    outcome = await decide(RECORD, task, Passage(deadline_s=10))
    assert isinstance(outcome, Fallback), outcome
    assert (outcome.error.reason, outcome.spent.attempts, len(server.requests)) == ("answer_not_json", 2, 2)


async def test_a_second_ask_that_fails_leaves_the_first_reason(serve: Serve, start: Start, tmp_path: Path) -> None:
    """The record got a bad answer; that the server failed afterwards is not why it has none."""
    server = await serve(http.answer("{}"), http.status(400, {"error": {"message": "no"}}))
    task = task_of(tmp_path, await start(server.url), server)
    outcome = await decide(RECORD, task, Passage(deadline_s=10))
    assert isinstance(outcome, Fallback), outcome
    assert (outcome.error.reason, len(server.requests)) == ("answer_off_schema", 2)


async def test_ask_again_can_be_switched_off(serve: Serve, start: Start, tmp_path: Path) -> None:
    """`answer: {ask_again: false}`: one call per record, whatever comes."""
    server = await serve(http.answer("{}"), GOOD)
    task = task_of(tmp_path, await start(server.url), server)
    answer = task.settings.answer.model_copy(update={"ask_again": False})
    task = replace(task, settings=task.settings.model_copy(update={"answer": answer}))
    assert isinstance(await decide(RECORD, task, Passage(deadline_s=10)), Fallback)
    assert len(server.requests) == 1


async def test_a_model_that_is_always_wrong_is_not_asked_twice_as_often(
    serve: Serve, start: Start, tmp_path: Path
) -> None:
    """Second asks are at most a tenth of the first ones, after a reserve."""
    records = 100
    server = await serve(default=http.answer("{}"))
    task = task_of(tmp_path, await start(server.url), server)
    for _ in range(records):
        await decide(RECORD, task, Passage(deadline_s=10))
    assert records < len(server.requests) <= records + RESERVE + SHARE * records
