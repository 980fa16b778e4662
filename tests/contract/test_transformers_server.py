"""The client before a real `transformers serve`, which enforces no schema, with a model of a few words (chain_hf.py).

It takes gigabytes, so it runs by hand: `make servers SERVERS=transformers`; elsewhere it is skipped.
"""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.compiled import task_for
from tests.support.llm_settings import ASK, Start, passage
from tests.support.real_server import RECORD, produced, url_of
from workers.answers import compile_schema
from workers.cli.dry_run_schema import enforcement
from workers.errors import AnswerCut, AnswerOffSchema, Declined, Misconfigured, TimedOut
from workers.llm import Client
from workers.llm.dialects.card import Card
from workers.outcome import Enriched, Fallback, Outcome
from workers.pipeline import decide
from workers.ports import Ask
from workers.records import Passage, Reply

URL = "PENSTOCK_TEST_TRANSFORMERS_URL"
PATIENT_S = 300.0
"""For calls that shall not time out on a loaded machine."""
CONTEXT_TOKENS = 512
"""As `chain_hf.py` makes the model, which answers as follows, in nine tokens, whatever it is asked."""
ANSWER = 'Here you are:\n```json\n{"label": "spam"}\n```'
ANSWER_TOKENS = 9
FOR_EVER = "sing!"
"""Behind `!` it sings until `max_tokens`."""


def label(*values: str) -> dict[str, object]:
    """Return a schema that takes one of these labels."""
    return {
        "type": "object",
        "properties": {"label": {"enum": values}},
        "required": ["label"],
        "additionalProperties": False,
    }


LABELLED = replace(ASK, schema=label("spam", "other"))


@pytest.fixture(scope="module")
def url() -> str:
    """The server's root."""
    return url_of("transformers serve", "transformers", URL)


def patient(**changes: object) -> dict[str, object]:
    """Return settings of a client that waits long enough."""
    return {"dialect": "openai", "timeout_s": PATIENT_S, "connect_timeout_s": 10.0, **changes}


async def asked(client: Client, what: Ask = LABELLED, text: str = "a ticket.") -> Reply:
    """Ask something once, with time enough."""
    return await client.complete(client.frame(what).around(text), passage(PATIENT_S), wait_s=0)


async def decided(
    folder: Path, client: Client, url: str, schema: dict[str, object], way: Passage, **asks: Ask
) -> Outcome:
    """Return what becomes of a record, by this schema; `asks` replace the task's own."""
    task = task_for(folder, client, url, schema=json.dumps(schema))
    return await decide(RECORD, replace(task, **{name: client.frame(what) for name, what in asks.items()}), way)


async def test_an_answer(url: str, start: Start) -> None:
    """Tokens are counted, the finish reason is given, and the model is the one that was asked for."""
    reply = await asked(await start(url, **patient(strict_model=True)))
    assert reply.text.endswith(ANSWER)
    assert (reply.finish_reason, reply.model, reply.attempts) == ("stop", "tiny", 1)
    assert (reply.input_tokens > 10, reply.output_tokens) == (True, ANSWER_TOKENS)


async def test_a_schema_is_not_enforced_and_the_answer_salvaged(url: str, start: Start, tmp_path: Path) -> None:
    """It takes `response_format` and says nothing; the JSON is found in the prose, and provenance tells so."""
    client = await start(url, **patient())
    task = task_for(tmp_path, client, url, schema=json.dumps(label("spam", "other")), ladder=False)
    outcome, written = await produced(task, passage(PATIENT_S))
    assert written["enrichment"] == {"label": "spam"}
    told = written["provenance"]
    assert (told["tier"], told["model"], told["endpoint"]) == ("model", "tiny", url)
    assert told["output_tokens"] == ANSWER_TOKENS
    assert outcome.reply.repairs == ("fenced",)


async def test_an_answer_that_the_schema_refuses(url: str, start: Start, tmp_path: Path) -> None:
    """It is checked here, asked for once more, and then the ladder's."""
    way = passage(PATIENT_S)
    outcome = await decided(tmp_path, await start(url, **patient()), url, label("bug", "other"), way)
    assert isinstance(outcome, Fallback), outcome
    assert isinstance(outcome.error, AnswerOffSchema)
    assert way.attempts == 2


async def test_a_cut_answer(url: str, start: Start, tmp_path: Path) -> None:
    """It is known as cut, asked for with more room, and whole then; without enough it is the ladder's."""
    client = await start(url, **patient())
    short, longer, whole = (replace(LABELLED, max_tokens=tokens) for tokens in (5, 6, 64))
    assert (await asked(client, short)).finish_reason == "length"
    for wide, becomes in ((whole, Enriched), (longer, Fallback)):
        way = passage(PATIENT_S)
        outcome = await decided(tmp_path, client, url, label("spam", "other"), way, frame=short, wide_frame=wide)
        assert isinstance(outcome, becomes), outcome
        assert way.attempts == 2
    assert isinstance(outcome, Fallback)
    assert isinstance(outcome.error, AnswerCut)


async def test_dry_run_sees_that_it_enforces_nothing(url: str, start: Start, tmp_path: Path) -> None:
    """Asked for prose, it answers with prose, though it was sent the schema."""
    (tmp_path / "label.json").write_text(json.dumps(label("spam", "other")))
    said = await enforcement(await start(url, **patient()), LABELLED, compile_schema(tmp_path / "label.json").check)
    assert said.startswith("does NOT enforce")


async def test_another_model_than_the_one_asked_for(url: str, start: Start) -> None:
    """400 without a code, so nothing but its words says that everybody is refused: each request is, once."""
    way, client = passage(PATIENT_S), await start(url, **patient(model="huge", max_attempts=3))
    with pytest.raises(Declined, match="400 ") as refused:
        await client.complete(client.frame(LABELLED).around("a ticket."), way, wait_s=0)
    assert (type(refused.value), way.attempts) == (Declined, 1)
    with pytest.raises(Declined, match="Server is pinned to 'tiny'; requested 'huge'"):
        await client.probe(LABELLED)


async def test_a_prompt_that_is_too_long(url: str, start: Start) -> None:
    """It is not refused: beyond its context a model goes on, and what it says is worth nothing. `inputs` has to cut."""
    reply = await asked(await start(url, **patient()), text="q" * 2 * CONTEXT_TOKENS)
    assert reply.input_tokens > 2 * CONTEXT_TOKENS
    assert reply.finish_reason == "stop"


async def test_the_card(url: str, start: Start) -> None:
    """It does not say how long its context is, nor how busy it is."""
    client = await start(url, **patient(warm_up_s=PATIENT_S))
    assert await client.card() == Card()
    await client.warm_up()
    assert (await client.probe(LABELLED)).finish_reason == "stop"


async def test_a_wrong_path(url: str, start: Start) -> None:
    """404: the `url` is not the server's root."""
    with pytest.raises(Misconfigured, match=r"404 .* no such path"):
        await asked(await start(f"{url}/elsewhere", **patient()))


async def test_a_field_that_it_does_not_know(url: str, start: Start) -> None:
    """422: the dialect `completions` asks for structured output by vLLM's field; without a schema it is answered."""
    client = await start(url, **patient(dialect="completions"))
    with pytest.raises(Declined, match="422 "):
        await asked(client)
    assert (await asked(client, replace(LABELLED, schema=None))).finish_reason in ("stop", "length")


async def test_a_call_that_takes_too_long(url: str, start: Start) -> None:
    """We hang up; it notices nothing, sings to the end of `max_tokens`, and only then answers who comes next."""
    hasty, client = await start(url, **patient(timeout_s=0.2)), await start(url, **patient())
    with pytest.raises(TimedOut):
        await asked(hasty, replace(LABELLED, max_tokens=2_000), FOR_EVER)
    reply = await asked(client)
    print(f"the next one was answered after {reply.latency_s:.2f} s")
    assert (reply.text.endswith(ANSWER), reply.attempts) == (True, 1)


async def test_a_cancelled_call(url: str, start: Start) -> None:
    """Nothing of it is met by the next one on the same client."""
    client = await start(url, **patient(slots=1))
    call = asyncio.create_task(asked(client, replace(LABELLED, max_tokens=500), FOR_EVER))
    await asyncio.sleep(0.1)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert call.cancelled()
    assert (await asked(client)).text.endswith(ANSWER)


async def test_many_calls_at_once(url: str, start: Start) -> None:
    """It never refuses: one is answered after the other, each with its own id."""
    client = await start(url, slots=32, **patient(request_id=True))
    replies = await asyncio.gather(*(asked(client) for _ in range(32)))
    assert {reply.attempts for reply in replies} == {1}
    assert client._endpoints[0].limit == 32, "no refusal cut it"
