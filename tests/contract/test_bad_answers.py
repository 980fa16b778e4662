"""E11-E14: the server works and what it says is of no use. From the wire to what becomes of the record."""

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
from workers.outcome import Enriched, Fallback, Outcome, Rejected
from workers.pipeline import decide
from workers.records import Passage
from workers.stages.s5_route import route
from workers.task import Task

SCHEMA = orjson.dumps(
    {
        "type": "object",
        "properties": {"label": {"enum": ["spam", "other"]}, "sure": {"type": "number", "maximum": 1}},
        "required": ["label"],
        "additionalProperties": False,
    }
).decode()
EMPTY = http.status(200, {**http.completion(), "choices": []})
RECORD = make_record(topic="raw", value=b'{"text": "hello"}')
ASKED_TWICE = ("answer_not_json", "answer_off_schema", "answer_cut")
NO_USE = [
    *(
        pytest.param(http.answer(said), reason, marks=pytest.mark.fault("E11"), id=said[:12])
        for said, reason in (
            ("I think that it is spam.", "answer_not_json"),
            ("```json\n{'label': 'spam'}\n```", "answer_not_json"),
            ('{"label": "spam"', "answer_not_json"),
        )
    ),
    *(
        pytest.param(http.answer(said), reason, marks=pytest.mark.fault("E12"), id=said)
        for said, reason in (
            ("{}", "answer_off_schema"),
            ('{"label": "ham"}', "answer_off_schema"),
            ('{"label": "spam", "url": "http://127.0.0.1/"}', "answer_off_schema"),
            ('{"label": "spam", "sure": NaN}', "answer_not_json"),
            ('{"label": "spam", "sure": 1e999}', "answer_not_json"),
            ('{"label": "spam", "sure": 123456789012345678901234567890}', "answer_off_schema"),
        )
    ),
    pytest.param(http.answer('{"label": "sp', "length"), "answer_cut", marks=pytest.mark.fault("E13"), id="length"),
    *(
        pytest.param(step, reason, marks=pytest.mark.fault("E14"), id=name)
        for name, step, reason in (
            ("no choices", EMPTY, "answer_empty"),
            ("null", http.answer(None), "answer_empty"),
            ("blanks", http.answer(" \n"), "answer_empty"),
            ("refusal", http.answer(None, refusal="I cannot help with that."), "answer_refused"),
            ("filter", http.answer('{"label": "spam"}', "content_filter"), "answer_refused"),
        )
    ),
]


def task_of(folder: Path, client: Client, server: FaultServer, *, ladder: bool = True) -> Task:
    """The sound task with this page's schema."""
    return task_for(folder, client, server.url, schema=SCHEMA, ladder=ladder)


def written(outcome: Outcome, task: Task) -> tuple[Any, dict[str, bytes | None]]:
    """Return value and headers of the one record that is written for an outcome."""
    [outgoing] = route(RECORD, outcome, task, {})
    return orjson.loads(outgoing.value or b""), dict(outgoing.headers)


@pytest.mark.parametrize(("step", "reason"), NO_USE)
async def test_an_answer_of_no_use_goes_down_the_ladder(
    serve: Serve, start: Start, tmp_path: Path, step: http.Step, reason: str
) -> None:
    """I7, I12: asked twice at most, then the ladder answers with the reason, and the endpoint is not to blame."""
    calls = 2 if reason in ASKED_TWICE else 1
    server = await serve(*[step] * 5 * calls)
    client = await start(server.url, max_attempts=3, breaker={"min_calls": 1, "reset_timeout_s": 60})
    task = task_of(tmp_path, client, server)
    for asked in range(1, 6):
        outcome = await decide(RECORD, task, Passage(deadline_s=10))
        assert isinstance(outcome, Fallback), outcome
        assert (outcome.tier, outcome.enrichment) == ("default", {"label": "other"})
        assert (outcome.error.stage, outcome.error.reason) == ("parse", reason)
        assert len(server.requests) == asked * calls
        assert outcome.spent.attempts == calls
    value, _ = written(outcome, task)
    assert value["provenance"]["reason"] == reason
    assert client._endpoints[0].breaker.closed


@pytest.mark.parametrize(("step", "reason"), NO_USE)
async def test_without_a_ladder_it_is_a_dead_letter(
    serve: Serve, start: Start, tmp_path: Path, step: http.Step, reason: str
) -> None:
    """I7: the dead letter has the input as it came, says `parse` and why, and the next answer counts as ever."""
    calls = 2 if reason in ASKED_TWICE else 1
    server = await serve(*[step] * calls, http.answer('{"label": "spam"}'))
    client = await start(server.url, max_attempts=3)
    task = task_of(tmp_path, client, server, ladder=False)
    outcome = await decide(RECORD, task, Passage(deadline_s=10))
    assert isinstance(outcome, Rejected), outcome
    value, headers = written(outcome, task)
    assert value == {"text": "hello"}
    assert (headers["__penstock.errors.stage"], headers["__penstock.errors.reason"]) == (b"parse", reason.encode())
    assert len(server.requests) == calls
    assert isinstance(await decide(RECORD, task, Passage(deadline_s=10)), Enriched)


@pytest.mark.fault("E11")
@pytest.mark.parametrize(
    "said", ['```json\n{"label": "spam"}\n```', '```\n{"label": "spam"}', 'Sure! {"label": "spam"} I hope that helps.']
)
async def test_a_fence_and_prose_around_an_answer_do_not_matter(
    serve: Serve, start: Start, tmp_path: Path, said: str
) -> None:
    """What is inside passes the same check, and is the enrichment."""
    server = await serve(http.answer(said))
    task = task_of(tmp_path, await start(server.url), server)
    outcome = await decide(RECORD, task, Passage(deadline_s=10))
    assert isinstance(outcome, Enriched), outcome
    assert outcome.enrichment == {"label": "spam"}
