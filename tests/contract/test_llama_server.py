"""The client before a real model server: llama.cpp's llama-server with a tiny random model, by both dialects it speaks.

What its answers mean is in `workers/llm/status.py`; here is shown that they are what that table takes them for.
"""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from tests.support.compiled import task_for
from tests.support.llama_server import CONTEXT_TOKENS, NEVER_ENDS, SLOW_TO_LOAD, LlamaServer
from tests.support.llm_settings import ASK, Start, passage, prompt_for
from tests.support.memory import MemorySink
from tests.support.wire import make_record
from workers.clock import monotonic_s
from workers.errors import (
    AnswerCut,
    ContextExceeded,
    Declined,
    Misconfigured,
    NoAnswer,
    Overloaded,
    TimedOut,
    WrongModel,
)
from workers.llm.transport import KEEP_ALIVE_S
from workers.outcome import Enriched, Fallback
from workers.pipeline import decide, finish
from workers.ports import Ask
from workers.records import Reply
from workers.stream.ledger import Ledger
from workers.stream.window import Delivery

KEY = "sk-test"
LABEL = {
    "type": "object",
    "properties": {"label": {"enum": ["spam", "other"]}},
    "required": ["label"],
    "additionalProperties": False,
}
LABELLED = replace(ASK, schema=LABEL)
LONG = {"type": "object", "properties": {"label": {"type": "string", "minLength": 400}}, "required": ["label"]}
ENDLESS_TOKENS = 4 * CONTEXT_TOKENS
PATIENT_S = 60.0
"""For calls that shall not time out on a loaded machine."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaServer]:
    """A server with two slots that wants a key; tests leave it running."""
    with LlamaServer(tmp_path_factory.mktemp("llama"), api_key=KEY) as running:
        yield running


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaServer]:
    """A server whose model never ends by itself, with room for an answer of several seconds."""
    folder = tmp_path_factory.mktemp("endless")
    with LlamaServer(folder, shape=NEVER_ENDS, context_tokens=ENDLESS_TOKENS) as running:
        yield running


@pytest.fixture(params=["llamacpp", "openai"])
def dialect(request: pytest.FixtureRequest) -> str:
    """Both dialects that the server speaks."""
    return str(request.param)


def keyed(dialect: str = "llamacpp", **changes: object) -> dict[str, object]:
    """Return settings of a client that has the key."""
    return {"dialect": dialect, "api_key": KEY, **changes}


async def asked(client: object, what: Ask = LABELLED, text: str = "a ticket") -> Reply:
    """Ask something once, with time enough."""
    prompt = prompt_for(client.frame(what), json.dumps(text))  # type: ignore[attr-defined]
    async with asyncio.timeout(2 * PATIENT_S):
        return await client.complete(prompt, passage(PATIENT_S), wait_s=0)  # type: ignore[attr-defined,no-any-return]


async def test_an_answer_by_schema(server: LlamaServer, start: Start, dialect: str) -> None:
    """The schema is enforced, tokens are counted, and the model, though random, comes to an end."""
    reply = await asked(await start(server.url, **keyed(dialect)))
    assert orjson.loads(reply.text)["label"] in ("spam", "other")
    assert (reply.finish_reason, reply.model, reply.attempts) == ("stop", "tiny", 1)
    assert reply.input_tokens > 10
    assert reply.output_tokens > 1
    assert reply.endpoint == server.url


async def test_a_text_answer(server: LlamaServer, start: Start, dialect: str) -> None:
    """Without a schema anything may come; with one token the server says that it was cut."""
    reply = await asked(await start(server.url, **keyed(dialect)), replace(ASK, schema=None, max_tokens=5))
    assert (reply.finish_reason, reply.output_tokens) == ("length", 5)


async def test_a_task_is_enriched(server: LlamaServer, start: Start, dialect: str, tmp_path: Path) -> None:
    """From a record to what is produced: the answer passes the task's own check, and provenance tells its tokens."""
    task = task_for(
        tmp_path, await start(server.url, **keyed(dialect)), server.url, schema=json.dumps(LABEL), ladder=False
    )
    sink, way = MemorySink(), passage(PATIENT_S)
    record = make_record(topic="raw", value=b'{"text": "I was charged twice."}', headers=())
    outcome = await decide(record, task, way)
    assert isinstance(outcome, Enriched), outcome
    await finish(Delivery(record, Ledger("raw", record.partition, 0), record.key, way), outcome, task, sink)
    [outgoing] = sink.sent
    written = orjson.loads(outgoing.value or b"")
    assert outgoing.topic == "raw.triage.enriched"
    assert written["enrichment"]["label"] in ("spam", "other")
    told = written["provenance"]
    assert (told["tier"], told["model"], told["endpoint"], told["attempts"]) == ("model", "tiny", server.url, 1)
    assert told["input_tokens"] > 10
    assert told["output_tokens"] > 1
    assert told["latency_s"] > 0


async def test_a_cut_answer(server: LlamaServer, start: Start, dialect: str, tmp_path: Path) -> None:
    """An answer that does not fit `max_tokens` is known as cut, asked for with twice as many, and then the ladder's."""
    client = await start(server.url, **keyed(dialect, max_tokens=8))
    task = task_for(tmp_path, client, server.url, schema=json.dumps(LONG))
    short = client.frame(Ask(name="triage", system="", schema=LONG, max_tokens=8, temperature=0.0))
    wide = client.frame(Ask(name="triage", system="", schema=LONG, max_tokens=16, temperature=0.0))
    way = passage(PATIENT_S)
    record = make_record(topic="raw", value=b'{"text": "I was charged twice."}', headers=())
    outcome = await decide(record, replace(task, frame=short, wide_frame=wide), way)
    assert isinstance(outcome, Fallback), outcome
    assert isinstance(outcome.error, AnswerCut)
    assert "after 16 tokens" in str(outcome.error)
    assert way.attempts == 2


async def test_a_wrong_key(server: LlamaServer, start: Start, dialect: str) -> None:
    """401: nobody is answered, a person must act. Without any key, the same."""
    for key in ("sk-wrong", None):
        with pytest.raises(Misconfigured, match=r"401 .* API key"):
            await asked(await start(server.url, **keyed(dialect, api_key=key)))


async def test_a_prompt_that_is_too_long(server: LlamaServer, start: Start, dialect: str) -> None:
    """400: this record does not fit the model, the next one may; the endpoint is not blamed."""
    client = await start(server.url, **keyed(dialect, breaker={"min_calls": 1}))
    with pytest.raises(ContextExceeded, match="exceed_context_size_error"):
        await asked(client, text="q" * 2 * CONTEXT_TOKENS)
    assert client._endpoints[0].breaker.closed
    assert (await asked(client)).attempts == 1


async def test_a_schema_that_the_server_refuses(server: LlamaServer, start: Start, dialect: str) -> None:
    """400, once: this request is refused and not repeated."""
    way = passage(PATIENT_S)
    client = await start(server.url, **keyed(dialect, max_attempts=3))
    with pytest.raises(Declined) as refused:
        await client.complete(prompt_for(client.frame(replace(ASK, schema={"type": "nonsense"}))), way, wait_s=0)
    assert type(refused.value) is Declined
    assert way.attempts == 1


async def test_a_wrong_path(server: LlamaServer, start: Start, dialect: str) -> None:
    """404: the `url` is not the server's root."""
    with pytest.raises(Misconfigured, match=r"404 .* no such path"):
        await asked(await start(f"{server.url}/elsewhere", **keyed(dialect)))


async def test_another_model_than_the_one_asked_for(server: LlamaServer, start: Start, dialect: str) -> None:
    """It answers to any model name, and says truly which one it ran: `strict_model` sees it."""
    assert (await asked(await start(server.url, **keyed(dialect, model="huge")))).model == "tiny"
    with pytest.raises(WrongModel):
        await asked(await start(server.url, **keyed(dialect, model="huge", strict_model=True)))


@pytest.mark.fault("E27")
async def test_a_server_that_loads_its_model(start: Start, tmp_path: Path) -> None:
    """503 while it loads: a record waits and is answered, `warm_up` waits as well, and nobody gives up."""
    with LlamaServer(tmp_path, shape=SLOW_TO_LOAD, wait=False) as loading:
        client = await start(loading.url, **keyed(warm_up_s=PATIENT_S))
        with pytest.raises(Overloaded, match="being loaded"):
            await client.probe(LABELLED)
        brief = replace(ASK, schema=None, max_tokens=3)  # a grammar over so large a vocabulary would take seconds
        reply, _ = await asyncio.gather(asked(client, brief), client.warm_up())
        assert reply.output_tokens == 3
        assert reply.attempts >= 2, "the first met a server that was loading, on a slow machine the second as well"


async def test_a_call_that_takes_too_long(endless: LlamaServer, start: Start, dialect: str) -> None:
    """We hang up after `timeout_s`. The server notices, if it is idle otherwise, and its slot is free again.

    Nothing is asked while we wait: a server that answers others meanwhile does not look, and goes on to `max_tokens`
    or to the end of its context. Repeating a call that timed out can so double a load that is too high already.
    """
    seen = endless.log().count("cancel task")
    hasty = await start(endless.url, **keyed(dialect, timeout_s=1.5))
    way = passage(PATIENT_S)
    prompt = prompt_for(hasty.frame(replace(ASK, schema=None, max_tokens=ENDLESS_TOKENS)))
    with pytest.raises(TimedOut):
        await hasty.complete(prompt, way, wait_s=0)
    assert way.attempts == 1
    async with asyncio.timeout(PATIENT_S):
        while endless.log().count("cancel task") == seen:  # noqa: ASYNC110 - another process sets no event
            await asyncio.sleep(0.1)
        while endless.busy_slots():  # noqa: ASYNC110 - as above; it logs first and frees the slot then
            await asyncio.sleep(0.1)
    assert (await asked(await start(endless.url, **keyed(dialect)))).finish_reason == "stop"


async def closed_after_s(url: str) -> float:
    """Return how long the server lets an idle connection stand."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    began_s = monotonic_s()  # before the answer, which is read when this process has its turn
    writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    async with asyncio.timeout(PATIENT_S):
        while await reader.read(1024):
            pass
    writer.close()
    await writer.wait_closed()
    return monotonic_s() - began_s


@pytest.mark.fault("E3")
async def test_idle_connections(server: LlamaServer, start: Start) -> None:
    """The server closes one after 5 s. Ours are gone before, so that none is met that is being closed."""
    client = await start(server.url, **keyed())
    assert (await asked(client)).attempts == 1
    assert await closed_after_s(server.url) > KEEP_ALIVE_S
    assert (await asked(client)).attempts == 1


async def answers_of_a_connection(url: str) -> int:
    """Return how many answers the server gives on one connection."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    answers = 0
    async with asyncio.timeout(PATIENT_S):
        while answers < 200:
            writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(head.partition(b"content-length: ")[2].split()[0]))
            answers += 1
            if b"connection: close" in head:
                break
    writer.close()
    await writer.wait_closed()
    return answers


@pytest.mark.fault("E3")
async def test_many_requests_in_a_row(server: LlamaServer, start: Start) -> None:
    """The server closes each connection with its 100th answer; 250 requests see nothing of it."""
    assert await answers_of_a_connection(server.url) == 100
    client = await start(server.url, **keyed(slots=1))
    replies = [await asked(client) for _ in range(250)]
    assert {reply.attempts for reply in replies} == {1}
    assert {reply.finish_reason for reply in replies} == {"stop"}


async def test_more_requests_than_slots(server: LlamaServer, start: Start) -> None:
    """It never refuses: what has no slot yet waits at the server, for as long as `timeout_s`."""
    client = await start(server.url, **keyed(slots=64))
    replies = await asyncio.gather(*(asked(client, text=f"ticket {number}") for number in range(64)))
    assert {reply.attempts for reply in replies} == {1}
    assert client._endpoints[0].limit == 64, "no refusal cut it"


async def test_the_table_knows_every_answer(server: LlamaServer, start: Start) -> None:
    """What the server refuses is never taken for a failure of the server: nothing of it is worth another attempt."""
    for what in ({"type": "object", "properties": 7}, {"$ref": "#/nowhere"}, {"enum": "no list"}):
        client = await start(server.url, **keyed(max_attempts=3))
        with pytest.raises(NoAnswer) as refused:
            await asked(client, replace(ASK, schema=what))
        assert not refused.value.retryable, (what, refused.value)
