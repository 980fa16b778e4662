"""Batches before a real server: llama.cpp's llama-server with a tiny random model, at temperature 0."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import orjson
import pytest

from tests.support.llama_server import CONTEXT_TOKENS, LlamaServer
from tests.support.llm_settings import ASK, Start, passage
from workers.errors import ContextExceeded
from workers.llm import Client
from workers.llm.batches import Batches
from workers.ports import Ask
from workers.records import Reply
from workers.settings.batch import BatchSettings

TEXTS = ("the printer is on fire", "where is my invoice?", "a")
LABEL = {
    "type": "object",
    "properties": {"label": {"enum": ["spam", "other"]}},
    "required": ["label"],
    "additionalProperties": False,
}
PATIENT_S = 60.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaServer]:
    """A server with two slots."""
    with LlamaServer(tmp_path_factory.mktemp("llama")) as running:
        yield running


async def client_of(server: LlamaServer, start: Start) -> Client:
    """Return a client that waits for a loaded machine."""
    return await start(server.url, slots=1, dialect="completions")


async def in_one_call(client: Client, ask: Ask, *texts: str) -> list[Reply | BaseException]:
    """Ask for all texts in one batch; return what each got."""
    shared = Batches(client, BatchSettings(max_records=len(texts), linger_s=PATIENT_S))
    frame = shared.frame(ask)
    asked = (shared.complete(frame.around(text), passage(2 * PATIENT_S), wait_s=0) for text in texts)
    return await asyncio.gather(*asked, return_exceptions=True)


async def test_each_gets_the_answer_that_it_gets_alone(server: LlamaServer, start: Start) -> None:
    """The answers differ, and stand by the records whose prompts they answer."""
    client, ask = await client_of(server, start), replace(ASK, schema=None, max_tokens=12)
    alone = [await client.complete(client.frame(ask).around(text), passage(PATIENT_S), wait_s=0) for text in TEXTS]
    together = await in_one_call(client, ask, *TEXTS)
    assert len({reply.text for reply in alone}) == len(TEXTS)
    assert [one.text for one in together if isinstance(one, Reply)] == [reply.text for reply in alone]


async def test_each_is_held_to_the_schema(server: LlamaServer, start: Start) -> None:
    """A random model writes no object by itself."""
    client = await client_of(server, start)
    for one in await in_one_call(client, replace(ASK, schema=LABEL), *TEXTS):
        assert isinstance(one, Reply)
        assert orjson.loads(one.text)["label"] in ("spam", "other")


async def test_one_that_is_too_long_falls_back_alone(server: LlamaServer, start: Start) -> None:
    """The server refuses the whole request with a 400; asked alone, the others are answered."""
    client = await client_of(server, start)
    told = await in_one_call(client, replace(ASK, schema=LABEL), TEXTS[0], "x " * CONTEXT_TOKENS, TEXTS[1])
    assert [type(one) for one in told] == [Reply, ContextExceeded, Reply]
