"""Several records in one request, on the wire: what is asked, whose answer is whose, and what a fault costs."""

import asyncio
from typing import Any

import pytest

from tests.support import fault_server as http
from tests.support.completions import completion_of, echo
from tests.support.llm_settings import ASK, Serve, Start, model_settings, passage
from workers.clock import monotonic_s
from workers.errors import AnswerEmpty, BadEnvelope, ContextExceeded, DeadlineOver, Declined, PenstockError
from workers.llm import Client
from workers.llm.batches import Batches
from workers.metrics import REGISTRY
from workers.records import Passage, Reply
from workers.settings.batch import BatchSettings

TEXTS = ("a", "b", "c")


async def ask_all(client: Client, *texts: str, passages: list[Passage] | None = None) -> list[Reply | BaseException]:
    """Ask for all texts in one batch; return what each got."""
    shared = Batches(client, BatchSettings(max_records=len(texts), linger_s=30.0))
    frame = shared.frame(ASK)
    ways = passages or [passage() for _ in texts]
    asked = (shared.complete(frame.around(text), way, wait_s=0) for text, way in zip(texts, ways, strict=True))
    async with asyncio.timeout(30):
        return await asyncio.gather(*asked, return_exceptions=True)


def calls(outcome: str) -> float:
    """Return how many calls have ended so."""
    return REGISTRY.get_sample_value("penstock_model_calls_total", {"model": "tiny", "outcome": outcome}) or 0.0


async def test_one_request_and_each_its_own_answer(serve: Serve, start: Start) -> None:
    """An array of prompts, the choices in any order: answers go by `index`, tokens add up to what the call took."""
    server = await serve()
    server.default = echo(server)
    ways = [passage() for _ in TEXTS]
    before = calls("ok")
    replies = await ask_all(await start(server.url, dialect="completions"), *TEXTS, passages=ways)
    assert [reply.text for reply in replies if isinstance(reply, Reply)] == [f"answer to {text}" for text in TEXTS]
    [seen] = server.requests
    assert seen.path == "/v1/completions"
    assert server.bodies == [
        {
            "model": "tiny",
            "max_tokens": 64,
            "temperature": 0.0,
            "structured_outputs": {"json": ASK.schema},
            "json_schema": ASK.schema,
            "prompt": [f"Sort tickets.\n\n{text}" for text in TEXTS],
        }
    ]
    spent = [(reply.input_tokens, reply.output_tokens) for reply in replies if isinstance(reply, Reply)]
    assert spent == [(12, 7), (11, 7), (11, 7)]
    assert [way.attempts for way in ways] == [1, 0, 0]
    assert calls("ok") == before + 1


async def test_a_record_alone_is_a_plain_prompt(serve: Serve, start: Start) -> None:
    """Without others, and without `batch`: the system text, a blank line, the user's text."""
    server = await serve()
    server.default = echo(server)
    client = await start(server.url, dialect="completions")
    [reply] = await ask_all(client, "a")
    direct = await client.complete(client.frame(ASK).around("b"), passage(), wait_s=0)
    assert isinstance(reply, Reply)
    assert (reply.text, direct.text, direct.input_tokens) == ("answer to a", "answer to b", 12)
    asked: list[Any] = server.bodies
    assert [body["prompt"] for body in asked] == ["Sort tickets.\n\na", "Sort tickets.\n\nb"]


WRONG = {
    "one too few": completion_of(["x", "y"]),
    "one too many": completion_of(["x", "y", "z", "0"]),
    "one alone": completion_of(["x"]),
    "none": completion_of([]),
    "one twice": completion_of(["x", "y", "z"], 0, 1, 1),
    "no index": completion_of(["x", "y", "z"], None, None, None),
    "not from 0": completion_of(["x", "y", "z"], 1, 2, 3),
    "no numbers": completion_of(["x", "y", "z"], "0", "1", "2"),
    "a list": completion_of(["x", "y", "z"], [0], 1, 2),
    "no choices": {"model": "tiny"},
    "no objects": {"choices": ["x", "y", "z"]},
}


@pytest.mark.parametrize("what", WRONG)
async def test_answers_that_cannot_be_placed_are_nobodys(serve: Serve, start: Start, what: str) -> None:
    """Every prompt answered once, or none is: one fault of the server, told to each."""
    server = await serve(default=http.status(200, WRONG[what]))
    before = calls("bad_envelope")
    told = await ask_all(await start(server.url, dialect="completions"), *TEXTS)
    assert [type(one) for one in told] == [BadEnvelope] * 3
    assert calls("bad_envelope") == before + 1
    assert len(server.requests) == 1


async def test_two_answers_to_one_prompt_are_none(serve: Serve, start: Start) -> None:
    """Nobody asked for a choice."""
    server = await serve(default=http.status(200, completion_of(["x", "y"])))
    [told] = await ask_all(await start(server.url, dialect="completions"), "a")
    assert isinstance(told, BadEnvelope)


async def test_a_failed_batch_is_tried_again_as_one(serve: Serve, start: Start) -> None:
    """The client's own second attempt, as for a single record; it counts once."""
    server = await serve(http.status(500))
    server.default = echo(server)
    ways = [passage() for _ in TEXTS]
    told = await ask_all(await start(server.url, dialect="completions", max_attempts=2), *TEXTS, passages=ways)
    assert [type(one) for one in told] == [Reply] * 3
    assert [way.attempts for way in ways] == [2, 0, 0]
    assert len(server.requests) == 2


async def test_a_bad_member_falls_back_alone(serve: Serve, start: Start) -> None:
    """The server refuses the whole request for one prompt's sake: each is asked alone, and the others are answered."""
    server = await serve()
    server.default = echo(server)
    told = await ask_all(await start(server.url, dialect="completions"), "a", "refused", "c")
    assert [type(one) for one in told] == [Reply, Declined, Reply]
    assert [one.text for one in told if isinstance(one, Reply)] == ["answer to a", "answer to c"]
    assert len(server.requests) == 4


async def test_a_prompt_that_is_too_long_falls_back_alone(serve: Serve, start: Start) -> None:
    """As vLLM says it, at the batch and at the one."""
    too_long = {"error": {"message": "This model's maximum context length is 512 tokens.", "code": 400}}
    server = await serve(http.status(400, too_long), http.status(400, too_long))
    server.default = echo(server)
    told = await ask_all(await start(server.url, slots=1, dialect="completions"), *TEXTS)
    assert sorted(type(one).__name__ for one in told) == ["ContextExceeded", "Reply", "Reply"]
    assert any(isinstance(one, ContextExceeded) for one in told)


@pytest.mark.parametrize("said", ["", " \n", None])
async def test_an_empty_member_is_its_own_matter(serve: Serve, start: Start, said: str | None) -> None:
    """The others have their answers; the endpoint is named in the failure."""
    server = await serve(http.status(200, completion_of(["x", said, "z"])))
    told = await ask_all(await start(server.url, dialect="completions"), *TEXTS)
    assert [type(one) for one in told] == [Reply, AnswerEmpty, Reply]
    assert isinstance(told[1], PenstockError)
    assert told[1].endpoint == server.url


async def test_a_batch_holds_one_slot(serve: Serve, start: Start) -> None:
    """Three records, one slot: one request runs."""
    gate = asyncio.Event()
    server = await serve()
    server.default = http.once(gate, echo(server))
    client = await start(server.url, slots=1, dialect="completions")
    asked = asyncio.create_task(ask_all(client, *TEXTS))
    async with asyncio.timeout(10):
        while not server.running:  # noqa: ASYNC110 - what is waited for sets no event
            await asyncio.sleep(0.001)
    gate.set()
    assert [type(one) for one in await asked] == [Reply] * 3
    assert server.most_running == 1


async def test_a_record_whose_time_is_over_is_not_asked_alone(serve: Serve, start: Start) -> None:
    """The batch used its deadline up: the endpoint would be blamed for a timeout that is none of its own."""
    server = await serve()
    client = await start(server.url, dialect="completions")
    over = Passage(10.0, ends_at_s=monotonic_s() + 0.01)
    with pytest.raises(DeadlineOver):
        await client.complete(client.frame(ASK).around("a"), over, wait_s=0)
    assert not server.requests


@pytest.mark.parametrize("dialect", ["openai", "vllm", "llamacpp", "tgi", "ollama"])
def test_only_some_servers_take_several_prompts(dialect: str) -> None:
    """A conversation is one record's: `batch` there is a mistake, and the message says where it belongs."""
    with pytest.raises(ValueError, match="dialect: completions"):
        model_settings("http://m", dialect=dialect, batch={})
    assert model_settings("http://m", dialect="completions", batch={}).batch == BatchSettings(
        max_records=8, linger_s=0.1
    )
