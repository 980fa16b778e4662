"""A ladder of models: the next one is asked when the one above has no answer, and what came of it is in the record."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support import fault_server as http
from tests.support.fault_server import FaultServer
from tests.support.llm_settings import Serve, Start, model_settings, until
from tests.support.settings_files import SOUND, write_sound
from tests.support.wire import make_record
from workers.llm import Client
from workers.outcome import Enriched, Fallback
from workers.pipeline import decide
from workers.records import Passage
from workers.settings.routes import RouteSettings
from workers.settings.source import load
from workers.stages.s5_route import route
from workers.task import Task, compile_task

SCHEMA = orjson.dumps(
    {
        "type": "object",
        "properties": {"label": {"enum": ["spam", "other"]}, "confidence": {"type": "number"}},
        "required": ["label"],
    }
).decode()
RECORD = make_record(topic="raw", value=b'{"text": "hello"}')
GOOD = http.answer('{"label": "spam"}')
EMPTY = http.status(429, {"error": {"message": "quota", "type": "insufficient_quota", "code": "insufficient_quota"}})
FAILED = http.status(500, {"error": {"message": "no"}})


class Ladder:
    """Two servers, their clients, and the task that asks the first and then the second."""

    def __init__(self, servers: list[FaultServer], clients: list[Client], task: Task) -> None:
        self.servers, self.clients, self.task = servers, clients, task

    def asked(self) -> list[int]:
        """Return how many requests each server got."""
        return [len(server.requests) for server in self.servers]

    async def answer(self) -> Any:
        """Return what becomes of a record."""
        return await decide(RECORD, self.task, Passage(deadline_s=20))


async def ladder(
    serve: Serve,
    start: Start,
    folder: Path,
    first: list[http.Step],
    *,
    routes: Sequence[Any] = (),
    when_unavailable: str = "fallback",
    reset_timeout_s: float = 60.0,
    **answer: Any,
) -> Ladder:
    """Start both: the first follows the script, and after it as its last step; the second answers."""
    servers = [await serve(*first, default=first[-1]), await serve(default=GOOD)]
    clients = [
        await start(server.url, breaker={"min_calls": 1, "reset_timeout_s": reset_timeout_s}) for server in servers
    ]
    text = SOUND.replace("http://localhost:8000", servers[0].url)
    text = text.replace("    ladder:\n", "    ladder:\n      - model: large\n")
    text = text.replace("tasks:\n", f"  large: {{model: huge, url: '{servers[1].url}', max_tokens: 77}}\ntasks:\n")
    settings = load(write_sound(folder, text, answer__json=SCHEMA)).settings
    task_settings = settings.tasks["triage"]
    assert task_settings.models_in_order() == ["small", "large"]
    changed = task_settings.answer.model_copy(update=answer)
    task = compile_task(
        "triage",
        task_settings.model_copy(
            update={
                "answer": changed,
                "routes": [RouteSettings.model_validate(route) for route in routes],
                "when_unavailable": when_unavailable,
            }
        ),
        clients[0],
        model_settings(servers[0].url),
        {"large": (clients[1], settings.models["large"])},
    )
    return Ladder(servers, clients, task)


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        ([FAILED], ("server_error", 1)),
        ([http.answer(None, refusal="I cannot.")], ("answer_refused", 1)),
        ([http.answer("no JSON"), http.answer("{}")], ("answer_off_schema", 2)),
        ([http.status(400, {"error": {"message": "maximum context length"}})], ("context_exceeded", 1)),
    ],
    ids=["failed", "refused", "bad twice", "too long"],
)
async def test_the_next_model_answers(
    serve: Serve, start: Start, tmp_path: Path, first: list[http.Step], expected: tuple[str, int]
) -> None:
    """Whatever kept the first from answering; the provenance names who answered, who did not, and why."""
    reason, calls = expected
    both = await ladder(serve, start, tmp_path, first)
    outcome = await both.answer()
    assert isinstance(outcome, Enriched), outcome
    assert both.asked() == [calls, 1]
    body: Any = both.servers[1].bodies[0]
    assert (body["max_tokens"], body["messages"][-1]) == (77, both.servers[0].bodies[0]["messages"][-1])  # type: ignore[index]
    [outgoing] = route(RECORD, outcome, both.task, {})
    provenance = orjson.loads(outgoing.value or b"")["provenance"]
    assert provenance["endpoint"] == both.servers[1].url
    assert provenance["passed_by"] == [{"model": both.clients[0].name, "reason": reason}]
    assert (provenance["tier"], provenance["attempts"]) == ("model", calls + 1)


async def test_while_the_first_is_broken_the_second_is_asked_at_once(
    serve: Serve, start: Start, tmp_path: Path
) -> None:
    """Its breaker open, it gets no call, and no record waits for a turn: that is for leaving to the rules."""
    both = await ladder(serve, start, tmp_path, [FAILED])
    for _ in range(20):
        assert isinstance(await both.answer(), Enriched)
    assert both.asked() == [1, 20]


async def test_an_uncertain_answer_goes_to_the_next_model(serve: Serve, start: Start, tmp_path: Path) -> None:
    """Below the threshold the small model's answer does not count; it is not asked again, it would say the same."""
    settings = load(
        write_sound(tmp_path / "c", SOUND.replace("answer.json}", "answer.json, confidence: {at_least: 0.7}}"))
    )
    wanted = settings.settings.tasks["triage"].answer.confidence
    unsure = [http.answer('{"label": "other", "confidence": 0.69}'), http.answer('{"label": "other"}')]
    both = await ladder(serve, start, tmp_path, unsure, confidence=wanted)
    both.servers[1].default = http.answer('{"label": "spam", "confidence": 0.7}')
    for _ in unsure:
        outcome = await both.answer()
        assert isinstance(outcome, Enriched), outcome
        assert outcome.reply.passed_by == ((both.clients[0].name, "uncertain"),)
    assert both.asked() == [2, 2]


async def test_below_the_last_model_the_ladder_answers(serve: Serve, start: Start, tmp_path: Path) -> None:
    """With the reason of the last that was asked."""
    both = await ladder(serve, start, tmp_path, [FAILED])
    both.servers[1].default = http.answer(None, refusal="I cannot either.")
    outcome = await both.answer()
    assert isinstance(outcome, Fallback), outcome
    assert (outcome.tier, outcome.error.reason, outcome.spent.attempts) == ("default", "answer_refused", 2)


async def test_a_misconfigured_model_says_so_though_another_one_is_there(
    serve: Serve, start: Start, tmp_path: Path
) -> None:
    """A wrong key is a person's to mend on whichever rung it is."""
    both = await ladder(serve, start, tmp_path, [FAILED])
    both.servers[1].default = http.status(401)
    waiting = asyncio.create_task(both.answer())
    await until(both.clients[1].held_reason)
    assert [model.held_reason() is not None for model in both.task.models()] == [False, True]
    done, _ = await asyncio.wait([waiting], timeout=0.3)
    assert not done
    waiting.cancel()
    await asyncio.wait([waiting])


async def test_an_empty_account_is_an_outage_of_its_model(serve: Serve, start: Start, tmp_path: Path) -> None:
    """One call finds out; the next model answers all, below it the ladder; nobody holds, as after a wrong key."""
    both = await ladder(serve, start, tmp_path, [EMPTY])
    for _ in range(20):
        assert isinstance(await asyncio.wait_for(both.answer(), 10), Enriched)
    assert both.asked() == [1, 20]
    both.servers[1].default = EMPTY
    outcome = await asyncio.wait_for(both.answer(), 10)
    assert isinstance(outcome, Fallback), outcome
    assert both.asked() == [1, 21]
    assert [model.held_reason() for model in both.task.models()] == [None, None]


LONG = {"when": {"field": "text", "longer_than": 10}, "model": "large"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("hello", ([1, 0], "small")), ("hello, and much more", ([0, 1], "large"))],
    ids=["short", "long"],
)
async def test_a_route_decides_which_model_is_asked_first(
    serve: Serve, start: Start, tmp_path: Path, text: str, expected: tuple[list[int], str]
) -> None:
    """A record that the condition holds for goes to the route's model, in its frame; no model was passed by."""
    both = await ladder(serve, start, tmp_path, [GOOD], routes=[LONG])
    record = make_record(topic="raw", value=orjson.dumps({"text": text}))
    outcome = await decide(record, both.task, Passage(deadline_s=20))
    assert isinstance(outcome, Enriched), outcome
    asked, model = expected
    assert both.asked() == asked
    [body] = both.servers[asked.index(1)].bodies
    assert body["max_tokens"] == (77 if model == "large" else 256)  # type: ignore[index]
    assert outcome.reply.passed_by == ()


async def test_below_a_route_come_the_models_of_the_ladder_each_once(
    serve: Serve, start: Start, tmp_path: Path
) -> None:
    """A routed record that gets no answer goes down the ladder's rungs: its own model is not asked there again."""
    both = await ladder(serve, start, tmp_path, [GOOD], routes=[LONG])
    both.servers[1].default = http.answer(None, refusal="I cannot.")
    record = make_record(topic="raw", value=b'{"text": "hello, and much more"}')
    outcome = await decide(record, both.task, Passage(deadline_s=20))
    assert isinstance(outcome, Fallback), outcome
    assert outcome.error.reason == "answer_refused"
    assert both.asked() == [0, 1]
    assert [model.name for model in both.task.models()] == [client.name for client in both.clients]


@pytest.mark.parametrize("back", [0, 1], ids=["the first", "the second"])
async def test_under_hold_whichever_model_comes_back_first_answers(
    serve: Serve, start: Start, tmp_path: Path, back: int
) -> None:
    """With both away a record waits, asks again from the first one, and is not stuck in the line of the last."""
    both = await ladder(serve, start, tmp_path, [FAILED], when_unavailable="hold", reset_timeout_s=0.1)
    for server in both.servers:
        server.default = http.status(500)
    waiting = asyncio.create_task(both.answer())
    await until(lambda: 0 not in both.asked())
    both.servers[back].default = GOOD
    async with asyncio.timeout(20):
        outcome = await waiting
    assert isinstance(outcome, Enriched), outcome
    assert outcome.reply.endpoint == both.servers[back].url
    assert len(outcome.reply.passed_by) == back


async def test_under_hold_a_bad_answer_still_goes_down_the_ladder(serve: Serve, start: Start, tmp_path: Path) -> None:
    """Only while all were away: a first model that answers badly would be paid for again and again."""
    both = await ladder(serve, start, tmp_path, [http.answer(None, refusal="I cannot.")], when_unavailable="hold")
    both.servers[1].default = http.status(500)
    async with asyncio.timeout(20):
        outcomes = [await both.answer(), await both.answer()]  # the second meets an open breaker
    assert [type(outcome) for outcome in outcomes] == [Fallback, Fallback]
    assert both.asked()[0] == 2
