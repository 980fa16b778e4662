"""The simulated model: what it answers, how it fails on purpose, and that it never passes for a real one."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema_rs
import orjson
import pytest

from workers.demo.answers import CATEGORIES, instance, ticket, triage, wrapped
from workers.demo.latency import latency
from workers.demo.processes import SimulatedModel

SCHEMA = orjson.loads((Path(__file__).parents[2] / "config" / "schemas" / "triage.v1.json").read_bytes())
BOUND = aiohttp.ClientTimeout(total=30)


@pytest.fixture(scope="module")
def model() -> Iterator[SimulatedModel]:
    """A model that answers at once, eight at a time."""
    with SimulatedModel(latency="zero", capacity=8, wrap_ratio=0) as running:
        yield running


@pytest.fixture
async def http(model: SimulatedModel) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of that model, which is well again afterwards."""
    async with aiohttp.ClientSession(model.url, timeout=BOUND) as session:
        yield session
    model.ok()


def body(text: str, schema: Any = SCHEMA) -> dict[str, Any]:
    """A request as OpenAI's dialect writes it."""
    spoken = [{"role": "system", "content": "You sort tickets."}, {"role": "user", "content": text}]
    form = {"type": "json_schema", "json_schema": {"name": "triage", "strict": True, "schema": schema}}
    return {"model": "some/model", "messages": spoken, "response_format": form}


async def ask(http: aiohttp.ClientSession, text: str, schema: Any = SCHEMA) -> dict[str, Any]:
    """Ask and return the envelope."""
    async with http.post("/v1/chat/completions", json=body(text, schema)) as answer:
        assert answer.status == 200, await answer.text()
        envelope: dict[str, Any] = await answer.json()
        return envelope


async def test_an_answer_fits_the_schema_and_says_that_it_is_simulated(http: aiohttp.ClientSession) -> None:
    """Content fits the schema; model, fingerprint and header name the simulation; tokens are counted."""
    async with http.post("/v1/chat/completions", json=body("I was charged twice, refund me today!")) as answer:
        envelope = await answer.json()
        assert answer.headers["X-Simulated"] == "true"
    triaged = orjson.loads(envelope["choices"][0]["message"]["content"])
    assert jsonschema_rs.is_valid(SCHEMA, triaged)
    assert triaged == {
        "category": "billing",
        "urgency": "high",
        "summary": "I was charged twice, refund me today!",
    }
    assert envelope["model"] == "simulated-some/model"
    assert envelope["system_fingerprint"] == "penstock-simulated-model"
    assert envelope["choices"][0]["finish_reason"] == "stop"
    assert envelope["usage"]["prompt_tokens"] > 0


async def test_vllm_s_own_field_is_understood(http: aiohttp.ClientSession) -> None:
    """`structured_outputs` asks for the same as `response_format`; without either the answer is text."""
    asked = body("My password is lost")
    del asked["response_format"]
    async with http.post("/v1/chat/completions", json=asked) as answer:
        assert (await answer.json())["choices"][0]["message"]["content"] == "(simulated) My password is lost"
    asked["structured_outputs"] = {"json": SCHEMA}
    async with http.post("/v1/chat/completions", json=asked) as answer:
        content = (await answer.json())["choices"][0]["message"]["content"]
    assert orjson.loads(content)["category"] == "account"


@pytest.mark.parametrize(("mode", "status"), [("503", 503), ("429", 429), ("500", 500), ("401", 401)])
async def test_a_fault_is_a_status_with_an_error_body(
    model: SimulatedModel, http: aiohttp.ClientSession, mode: str, status: int
) -> None:
    """Each fault of a status answers every completion until it is lifted."""
    model.fail(mode)
    async with http.post("/v1/chat/completions", json=body("x")) as answer:
        assert answer.status == status
        assert (await answer.json())["error"]["code"] == status
        assert ("Retry-After" in answer.headers) == (mode == "429")
    model.ok()
    await ask(http, "x")


async def test_garbage_is_a_200_that_is_no_json(model: SimulatedModel, http: aiohttp.ClientSession) -> None:
    """`garbage` claims to be JSON and is not."""
    model.fail("garbage")
    async with http.post("/v1/chat/completions", json=body("x")) as answer:
        assert answer.status == 200
        assert answer.content_type == "application/json"
        with pytest.raises(orjson.JSONDecodeError):
            orjson.loads(await answer.read())


async def test_reset_breaks_the_connection(model: SimulatedModel, http: aiohttp.ClientSession) -> None:
    """`reset` is seen as a lost connection, never as an answer."""
    model.fail("reset")
    with pytest.raises(aiohttp.ClientConnectionError):
        await http.post("/v1/chat/completions", json=body("x"))


async def test_hang_answers_nothing_and_forgets_who_left(model: SimulatedModel, http: aiohttp.ClientSession) -> None:
    """A request in `hang` stays in flight until its client leaves."""
    model.fail("hang")
    asking = asyncio.create_task(http.post("/v1/chat/completions", json=body("x")).__aenter__())
    await wait_for_in_flight(model, 1)
    assert not asking.done()
    asking.cancel()
    await wait_for_in_flight(model, 0)


async def wait_for_in_flight(model: SimulatedModel, count: int) -> None:
    """Poll until the server has this many requests in its hands."""
    async with asyncio.timeout(20):
        while (await asyncio.to_thread(model.counts))["in_flight"] != count:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.02)


async def test_a_fault_for_some_seconds_ends_by_itself(model: SimulatedModel, http: aiohttp.ClientSession) -> None:
    """`for_s` bounds a fault."""
    model.fail("500", for_s=0.2)
    async with asyncio.timeout(20):
        while True:
            async with http.post("/v1/chat/completions", json=body("x")) as answer:
                if answer.status == 200:
                    return
            await asyncio.sleep(0.05)


async def test_what_is_no_request_is_refused(http: aiohttp.ClientSession) -> None:
    """Malformed bodies are 400, unknown paths 404, unknown modes 400; none of them stops the server."""
    for bad in (b"{", b"[]", b'{"messages": 1}', b'{"messages": [{"role": "user"}]}', b""):
        async with http.post("/v1/chat/completions", data=bad) as answer:
            assert answer.status == 400, bad
    async with http.get("/nothing") as answer:
        assert answer.status == 404
    async with http.post("/_sim", json={"mode": "sulk"}) as answer:
        assert answer.status == 400
    for path in ("/health", "/v1/models"):
        async with http.get(path) as answer:
            assert answer.status == 200


async def test_it_counts_how_often_each_text_was_asked(model: SimulatedModel, http: aiohttp.ClientSession) -> None:
    """Texts are counted one by one, and two long ones that begin alike are two."""
    for text in ("counted", "counted", "y" * 5_000 + "1", "y" * 5_000 + "2"):
        await ask(http, text)
    texts = await asyncio.to_thread(model.texts)
    assert texts["counted"] == 2
    assert sum(text.startswith("yyy") for text in texts) == 2


async def test_capacity_bounds_what_is_served_at_a_time() -> None:
    """Requests past the capacity wait in line and are all answered."""
    with SimulatedModel(latency="const:0.5", capacity=3) as small:
        async with aiohttp.ClientSession(small.url, timeout=BOUND) as http:
            await asyncio.gather(*[ask(http, str(n)) for n in range(12)])
        counts = await asyncio.to_thread(small.counts)
    assert counts["answered"] == 12
    assert counts["max_serving"] == 3
    assert counts["max_in_flight"] > 3


def test_a_server_ends_with_its_parent_s_pipe() -> None:
    """Stopping closes the pipe, and the process ends by itself."""
    model = SimulatedModel(latency="zero")
    model.stop()
    model.stop()
    assert not Path(f"/proc/{model.pid}").exists()


@pytest.mark.parametrize(
    ("text", "category", "urgency"),
    [
        ("The app crashes when I save, production is down", "bug", "high"),
        ("My invoice shows the wrong VAT, please refund the payment", "billing", "normal"),
        ("I cannot login, where can I change my password?", "account", "normal"),
        ("Just curious: how can I export a report?", "how_to", "low"),
        ("zzz", "other", "normal"),
        ("", "other", "normal"),
    ],
)
def test_keywords_decide(text: str, category: str, urgency: str) -> None:
    """The category with most words wins, a question word decides only where nothing else does."""
    answer = triage(text)
    assert (answer["category"], answer["urgency"]) == (category, urgency)
    assert jsonschema_rs.is_valid(SCHEMA, answer)


def test_categories_are_those_of_the_schema() -> None:
    """Every category that the heuristic knows is one that the demo's schema allows."""
    assert {*CATEGORIES, "other"} == set(SCHEMA["properties"]["category"]["enum"])


@pytest.mark.parametrize(
    ("prompt", "about"),
    [
        ('Sort this.\n<ticket>\n{"subject": "Bill", "body": "a\\nb"}\n</ticket>\nAnswer.', "Bill\na\nb"),
        ('<ticket>{"ticket": {"n": 1, "deep": ["x", {"y": "z"}]}}</ticket>', "x\nz"),
        ('<ticket>{"subject": "cut</ticket>', "cut"),
        ("<ticket>{3: 4</ticket>", "{3: 4"),
        ("no tags", "no tags"),
    ],
)
def test_the_ticket_is_found_in_its_prompt(prompt: str, about: str) -> None:
    """What stands around the ticket is not judged; JSON that was cut is judged as it stands."""
    assert ticket(prompt) == about


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"const": 3}, "b": {"type": "array", "items": {"type": "null"}}}},
        {"type": "object", "properties": {"urgency": {"enum": ["yes", "no"]}, "summary": {"type": "boolean"}}},
        {"type": "object", "properties": {"summary": {"type": "string", "minLength": 50, "maxLength": 60}}},
        {"type": "array", "items": {"type": "integer", "minimum": 5}, "minItems": 2},
        {"type": ["number", "null"], "exclusiveMinimum": 7},
        {"anyOf": [{"type": "string", "minLength": 3}, {"type": "null"}]},
    ],
)
def test_any_other_schema_gets_the_smallest_value_that_fits(schema: dict[str, Any]) -> None:
    """Hints are used where they fit; elsewhere the smallest value is made up."""
    assert jsonschema_rs.is_valid(schema, instance(schema, triage("a bug")))


def test_a_share_of_the_answers_is_wrapped() -> None:
    """About the asked share is wrapped, in both ways, and a text meets the same fate each time."""
    said = [wrapped("{}", f"text {n}", 0.1) for n in range(2_000)]
    assert said == [wrapped("{}", f"text {n}", 0.1) for n in range(2_000)]
    assert 100 < sum(each != "{}" for each in said) < 300
    assert any(each.startswith("```json") for each in said)
    assert any(each.startswith("Here is") for each in said)


def test_latencies_are_repeatable_and_have_the_shape_asked_for() -> None:
    """The same seed gives the same sequence; median and share of slow calls are as written."""
    one, other = latency("lognormal:0.15:0.35"), latency("lognormal:0.15:0.35")
    assert [one() for _ in range(10)] == [other() for _ in range(10)]
    source = latency("lognormal:0.15:0.35")
    many = sorted(source() for _ in range(2_001))
    assert 0.14 < many[1_000] < 0.16
    assert many[-1] > 0.3
    slow = latency("heavy:0.05:2:0.1")
    assert 120 < sum(slow() == 2 for _ in range(2_000)) < 280
    assert latency("const:0.15")() == 0.15
    assert latency("zero")() == 0


@pytest.mark.parametrize("spec", ["", "const", "const:x", "const:-1", "heavy:1:2", "lognormal:nan:1", "uniform:1"])
def test_a_latency_that_is_none_is_refused(spec: str) -> None:
    """A misspelt latency is an error at start, not a surprise later."""
    with pytest.raises(ValueError, match=r"none of|could not|must be"):
        latency(spec)
