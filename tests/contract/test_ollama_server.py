"""The client before a real Ollama with tiny random models, by both dialects that it speaks.

To build an Ollama takes minutes, so it runs by hand: `tests/support/run_on_ollama.sh`; elsewhere it is skipped.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.fuzz.shipped import shipped_task
from tests.support.chat_families import FAMILIES, Family
from tests.support.compiled import task_for
from tests.support.llm_settings import ASK, Start, passage
from tests.support.memory import TOPIC
from tests.support.ollama_server import (
    CONTEXT_TOKENS,
    PATIENT_S,
    asked,
    loaded,
    ollama_url,
    patient,
    told,
    unload,
)
from tests.support.real_server import LABEL, of_a_long_answer, produced, raw_prompt
from tests.support.settings_files import SOUND, write_sound
from tests.support.wire import make_record
from workers.answers import compile_schema
from workers.cli.dry_run_models import model_findings
from workers.clock import monotonic_s
from workers.errors import (
    AnswerCut,
    ContextExceeded,
    Declined,
    Misconfigured,
    TimedOut,
)
from workers.json_text import loads_raw_controls
from workers.llm import Card
from workers.outcome import Fallback
from workers.prompts import compile_prompt
from workers.records import Request
from workers.settings.source import load
from workers.stages import s2_prompt
from workers.stages.s2_prompt import build

LABELLED = replace(ASK, schema=LABEL, max_tokens=256, temperature=1.0)
TEXT = replace(ASK, schema=None, max_tokens=5)


@pytest.fixture(scope="module")
def url() -> str:
    """The server's root."""
    return ollama_url()


@pytest.fixture(params=["ollama", "openai"])
def dialect(request: pytest.FixtureRequest) -> str:
    """Both dialects that the server speaks: its own, and OpenAI's."""
    return str(request.param)


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(PATIENT_S):
        while not await condition():  # noqa: ASYNC110 - the server sets no event
            await asyncio.sleep(0.02)


async def test_an_answer_by_schema(url: str, start: Start, dialect: str) -> None:
    """The schema is enforced, tokens are counted, and the finish reason is given."""
    reply = await asked(await start(url, **patient(dialect)), LABELLED)
    assert set(loads_raw_controls(reply.text)) == {"label", "urgency", "note"}
    assert (reply.finish_reason, reply.model, reply.attempts) == ("stop", "tiny", 1)
    assert reply.input_tokens > 10
    assert reply.output_tokens > 10


async def test_twenty_answers_by_schema(url: str, start: Start, dialect: str, tmp_path: Path) -> None:
    """All of them pass our own check, limits and lengths too."""
    (tmp_path / "label.json").write_text(json.dumps(LABEL))
    check = compile_schema(tmp_path / "label.json").check
    client = await start(url, slots=20, **patient(dialect))
    for temperature in (0.0, 1.0):
        ask = replace(LABELLED, temperature=temperature)
        replies = await asyncio.gather(*(asked(client, ask, f"ticket {number}") for number in range(20)))
        assert [reply.text for reply in replies if check(loads_raw_controls(reply.text)) is not None] == []
        assert {reply.finish_reason for reply in replies} == {"stop"}


async def test_a_text_answer(url: str, start: Start, dialect: str) -> None:
    """Without a schema anything may come; the server says that it was cut."""
    reply = await asked(await start(url, **patient(dialect)), TEXT)
    assert (reply.finish_reason, reply.output_tokens) == ("length", 5)


async def test_a_task_is_enriched(url: str, start: Start, dialect: str, tmp_path: Path) -> None:
    """From a record to what is produced: the answer passes the task's own check, and provenance tells its tokens."""
    client = await start(url, **patient(dialect))
    task = replace(
        task_for(tmp_path, client, url, schema=json.dumps(LABEL), ladder=False), frame=client.frame(LABELLED)
    )
    _, written = await produced(task, passage(PATIENT_S))
    assert written["enrichment"]["label"] in ("spam", "other")
    told_of = written["provenance"]
    assert (told_of["tier"], told_of["model"], told_of["endpoint"]) == ("model", "tiny", url)
    assert told_of["input_tokens"] > 10
    assert told_of["output_tokens"] > 10


async def test_a_cut_answer(url: str, start: Start, dialect: str, tmp_path: Path) -> None:
    """An answer that does not fit `max_tokens` is known as cut, asked for with twice as many, and then the ladder's."""
    client = await start(url, **patient(dialect))
    way = passage(PATIENT_S)
    outcome = await of_a_long_answer(tmp_path, client, url, 8, way)
    assert isinstance(outcome, Fallback), outcome
    assert isinstance(outcome.error, AnswerCut)
    assert "after 16 tokens" in str(outcome.error)
    assert way.attempts == 2


@pytest.mark.parametrize(
    "inner",
    [{"type": "nonsense"}, {"$ref": "#/nowhere"}, {"type": "string", "pattern": "a"}],
    ids=["type", "ref", "pattern"],
)
async def test_a_schema_that_the_server_refuses(url: str, start: Start, dialect: str, inner: dict[str, Any]) -> None:
    """500, once: this request is refused and not repeated, and the endpoint is not blamed."""
    client = await start(url, **patient(dialect, max_attempts=3, breaker={"min_calls": 1}))
    way = passage(PATIENT_S)
    with pytest.raises(Declined, match="500 from") as refused:
        await client.complete(raw_prompt(client, LABELLED, {"properties": {"x": inner}}), way, wait_s=0)
    assert type(refused.value) is Declined
    assert way.attempts == 1
    assert client._endpoints[0].breaker.closed
    assert (await asked(client, TEXT)).attempts == 1


async def test_a_prompt_that_is_too_long(url: str, start: Start) -> None:
    """400: this record does not fit the model, the next one may; the endpoint is not blamed."""
    client = await start(url, **patient(breaker={"min_calls": 1}))
    with pytest.raises(ContextExceeded, match=r"400 .* does not fit"):
        await asked(client, TEXT, "q" * 2 * CONTEXT_TOKENS)
    assert client._endpoints[0].breaker.closed
    assert (await asked(client, TEXT)).attempts == 1


async def test_openais_route_cuts_a_prompt_in_silence(url: str, start: Start) -> None:
    """What does not fit is left out of the prompt's middle, and nothing says so: hence the dialect of its own."""
    reply = await asked(await start(url, **patient("openai")), TEXT, "q" * 2 * CONTEXT_TOKENS)
    assert reply.input_tokens <= CONTEXT_TOKENS
    assert reply.finish_reason == "length"


async def test_an_answer_ends_with_the_context(url: str, start: Start) -> None:
    """Prompt and answer stay in the context together: none of the prompt is forgotten for what comes after it."""
    client = await start(url, **patient(model="endless"))
    reply = await asked(client, replace(TEXT, max_tokens=CONTEXT_TOKENS), "q" * (CONTEXT_TOKENS // 2))
    assert reply.finish_reason == "length"
    assert CONTEXT_TOKENS - 5 < reply.input_tokens + reply.output_tokens <= CONTEXT_TOKENS + 1


async def test_openais_route_forgets_the_prompt(url: str, start: Start) -> None:
    """There an answer goes on past the context, and half of what came before it is dropped."""
    client = await start(url, **patient("openai", model="endless"))
    reply = await asked(client, replace(TEXT, max_tokens=CONTEXT_TOKENS), "q" * (CONTEXT_TOKENS // 2))
    assert reply.input_tokens + reply.output_tokens > CONTEXT_TOKENS + 1


async def test_an_answer_that_goes_round_in_circles(url: str, start: Start, dialect: str) -> None:
    """The server breaks off after 30 equal tokens, without a finish reason: a bad answer, no failure of the server."""
    circle = {"type": "object", "properties": {"x": {"pattern": "^(z){99}$"}}, "required": ["x"]}
    client = await start(url, **patient(dialect, max_attempts=3, breaker={"min_calls": 1}))
    way = passage(PATIENT_S)
    reply = await client.complete(raw_prompt(client, LABELLED, circle), way, wait_s=0)
    print(f"{dialect}: {reply}")
    assert way.attempts == 1
    assert client._endpoints[0].breaker.closed
    assert 30 <= reply.text.count("z") < 99


async def test_a_model_that_the_server_does_not_have(url: str, start: Start, dialect: str) -> None:
    """404: a person must act."""
    with pytest.raises(Misconfigured, match=r"404 .* does not have the configured model"):
        await asked(await start(url, **patient(dialect, model="huge")))


async def test_a_wrong_path(url: str, start: Start, dialect: str) -> None:
    """404: the `url` is not the server's root."""
    with pytest.raises(Misconfigured, match=r"404 .* no such path"):
        await asked(await start(f"{url}/elsewhere", **patient(dialect)))


async def test_the_first_call_loads_the_model(url: str, start: Start, dialect: str) -> None:
    """It waits, and is answered at the first attempt."""
    await unload(url, "tiny")
    assert (await asked(await start(url, **patient(dialect)), TEXT)).attempts == 1
    assert await loaded(url, "tiny")


@pytest.mark.fault("E27")
async def test_warm_up_loads_the_model(url: str, start: Start, dialect: str) -> None:
    """Before the first record."""
    await unload(url, "tiny")
    client = await start(url, **patient(dialect, warm_up_s=PATIENT_S))
    await client.warm_up()
    assert await loaded(url, "tiny")


@pytest.mark.parametrize(("keep_alive", "year"), [(-1, 2_200), ("90m", None), (0, None)])
async def test_how_long_the_model_is_kept(url: str, start: Start, keep_alive: object, year: int | None) -> None:
    """-1 is for ever, 0 not at all; a text is a duration of Go's."""
    await asked(await start(url, **patient(keep_alive=keep_alive)), TEXT)
    if keep_alive == 0:
        await until(lambda: gone(url, "tiny"))
        return
    kept = await loaded(url, "tiny")
    assert kept
    print(keep_alive, kept["expires_at"])
    assert (int(kept["expires_at"][:4]) > year) if year else kept["expires_at"][:3] == "202"


async def gone(url: str, model: str) -> bool:
    """Return whether the server has a model no more."""
    return await loaded(url, model) is None


@pytest.mark.fault("E16")
async def test_too_many_calls_while_it_loads(url: str, start: Start, dialect: str) -> None:
    """503 for what finds no place in the queue (OLLAMA_MAX_QUEUE): it waits, is answered, and no breaker opens."""
    await unload(url, "slow")
    client = await start(url, slots=16, **patient(dialect, model="slow"))
    replies = await asyncio.gather(*(asked(client, TEXT, f"ticket {number}") for number in range(16)))
    print(f"{dialect}: answered at attempts {sorted(reply.attempts for reply in replies)}")
    assert max(reply.attempts for reply in replies) > 1
    assert client._endpoints[0].breaker.closed


async def test_more_requests_than_slots(url: str, start: Start, dialect: str) -> None:
    """Once the model is loaded nothing is refused: what has no slot (OLLAMA_NUM_PARALLEL) waits at the server."""
    client = await start(url, slots=64, **patient(dialect))
    await asked(client, TEXT)
    replies = await asyncio.gather(*(asked(client, TEXT, f"ticket {number}") for number in range(64)))
    assert {reply.attempts for reply in replies} == {1}
    assert client._endpoints[0].limit == 64, "no refusal cut it"


async def test_a_request_id_is_no_hindrance(url: str, start: Start, dialect: str) -> None:
    """It is not sent back; the answer is taken all the same."""
    client = await start(url, slots=8, **patient(dialect, request_id=True))
    replies = await asyncio.gather(*(asked(client, TEXT, f"ticket {number}") for number in range(8)))
    assert {reply.attempts for reply in replies} == {1}


async def test_the_card(url: str, start: Start) -> None:
    """The context is told of a model that is loaded; slots and load are not told at all."""
    client = await start(url, **patient())
    await unload(url, "tiny")
    assert await client.card() == Card()
    await asked(client, TEXT)
    assert await client.card() == Card(context_tokens=CONTEXT_TOKENS)
    assert await (await start(url, **patient("openai"))).card() == Card()


async def test_dry_run_sees_that_it_enforces_the_schema(url: str, dialect: str, tmp_path: Path) -> None:
    """Asked for prose, it answers by the schema; by its own dialect it tells its context."""
    text = SOUND.replace(
        "    url: http://localhost:8000\n", f"    url: {url}\n    dialect: {dialect}\n    timeout_s: 60\n"
    )
    settings = load(write_sound(tmp_path, text), {}).settings
    [one] = await model_findings(settings, "triage", settings.tasks["triage"])
    print(f"{dialect}: {one}")
    assert "; enforces the answer schema: asked for prose, it answered by the schema" in one.what
    assert ("a context of 2,048 tokens" in one.what) == (dialect == "ollama")


async def test_dry_run_says_what_to_mend(url: str, dialect: str, tmp_path: Path) -> None:
    """A name that the server does not know."""
    text = SOUND.replace(
        "    url: http://localhost:8000\n", f"    url: {url}\n    dialect: {dialect}\n    timeout_s: 60\n"
    )
    settings = load(write_sound(tmp_path, text.replace("model: tiny", "model: huge")), {}).settings
    [one] = await model_findings(settings, "triage", settings.tasks["triage"])
    assert (one.state, one.todo[:24]) == ("failed", "mend models.small.model:")


@pytest.mark.parametrize("how", ["cancelled", "timed out"])
async def test_a_client_that_leaves(url: str, start: Start, dialect: str, how: str) -> None:
    """The server stops, and its one slot is free: the next call does not wait for the rest of the answer.

    By its own dialect an answer ends with the context, by OpenAI's with `max_tokens`.
    """
    endless = replace(TEXT, max_tokens=2 * CONTEXT_TOKENS)
    client = await start(url, slots=2, **patient(dialect, model="endless"))
    began_s = monotonic_s()
    whole = await asked(client, endless)
    whole_s = monotonic_s() - began_s
    hasty = await start(url, **patient(dialect, model="endless", timeout_s=whole_s / 8))
    call = asyncio.create_task(asked(hasty if how == "timed out" else client, endless))
    await asyncio.sleep(whole_s / 8)
    call.cancel() if how == "cancelled" else None
    with pytest.raises(TimedOut if how == "timed out" else asyncio.CancelledError):
        await call
    began_s = monotonic_s()
    await asked(client, TEXT)
    took_s = monotonic_s() - began_s
    print(f"{dialect}, {how}: {whole.output_tokens} tokens in {whole_s:.2f} s, the next answer after {took_s:.2f} s")
    assert took_s < whole_s / 2


@pytest.mark.fault("D10", "D11")
@pytest.mark.parametrize("family", FAMILIES, ids=[family.name for family in FAMILIES])
async def test_no_ticket_adds_a_turn(
    start: Start, dialect: str, family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Marks in a record are text to the server when we send it, and tokens of their own when it is sent as it is."""
    url = ollama_url()
    client = await start(url, **patient(dialect, model=family.name.replace(" ", "-")))
    (tmp_path / "system.txt").write_text("Sort it.")
    (tmp_path / "user.j2").write_text("{{ record.text }}")
    render = compile_prompt(tmp_path / "system.txt", tmp_path / "user.j2").render
    task = replace(shipped_task(), frame=client.frame(replace(TEXT, max_tokens=9)), render=render)

    async def read(text: str) -> tuple[list[int], int]:
        prompt = build(Request(make_record(topic=TOPIC), {"subject": "x", "text": text}), task)
        body = orjson.loads(prompt.body)
        path = "/api/chat" if dialect == "ollama" else "/v1/chat/completions"
        _, shown = await told(url, path, body | {"_debug_render_only": True})
        rendered = shown["_debug_info"]["rendered_template"]
        reply = await client.complete(prompt, passage(PATIENT_S), wait_s=0)
        return [rendered.count(token) for token in family.tokens], reply.input_tokens

    every = " ".join(family.tokens)
    plain, _ = await read("I was charged twice.")
    guarded, as_text = await read(every)
    monkeypatch.setattr(s2_prompt, "_harmless", lambda text: text)
    unguarded, as_tokens = await read(every)
    print(f"{family.name}: {as_text} tokens guarded, {as_tokens} unguarded")
    assert guarded == plain
    assert unguarded != plain
    assert as_text > as_tokens + len(family.tokens), "each mark was one token, and is several letters"
