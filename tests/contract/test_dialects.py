"""Every dialect before a server that answers as its kind does: what is asked, and what becomes of each answer."""

import json
from typing import Any, NamedTuple

import pytest

from tests.support import fault_server as http
from tests.support.dialects import DIALECTS, body_of, speaking, without_usage
from tests.support.llm_settings import ASK, TOO_SHORT_S, Serve, Start, ask, passage
from workers.errors import (
    AnswerEmpty,
    AnswerRefused,
    BadEnvelope,
    Busy,
    ContextExceeded,
    Declined,
    Misconfigured,
    NoAnswer,
    Overloaded,
    QuotaSpent,
    ServerFault,
    TimedOut,
)
from workers.metrics import REGISTRY
from workers.records import REPETITION

PATHS = {"ollama": "/api/chat", "custom": "/classify", "completions": "/v1/completions"}


def asked(dialect: str, body: Any) -> dict[str, Any]:
    """Return what a request asks for, from where the dialect's server looks for it."""
    if dialect == "custom":
        limits = body["limits"]
        return {
            "turns": [body["instructions"], body["inputs"][0]["text"]],
            "schema": body["form"],
            "limits": [limits["tokens"], limits["heat"]],
            "model": body["who"],
        }
    if dialect == "completions":
        return {
            "turns": body["prompt"].split("\n\n"),
            "schema": body["structured_outputs"]["json"],
            "limits": [body["max_tokens"], body["temperature"]],
            "model": body["model"],
        }
    options = body["options"] if dialect == "ollama" else body
    if dialect == "ollama":
        schema = body["format"]
        assert (body["stream"], body["truncate"], body["shift"]) == (False, False, False)
    else:
        form = body["response_format"]
        assert form["type"] == "json_schema"
        schema = (form["value"] if dialect == "tgi" else form["json_schema"])["schema"]
    assert [turn["role"] for turn in body["messages"]] == ["system", "user"]
    return {
        "turns": [turn["content"] for turn in body["messages"]],
        "schema": schema,
        "limits": [options["num_predict" if dialect == "ollama" else "max_tokens"], options["temperature"]],
        "model": body["model"],
    }


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("finish_reason", ["stop", "length"])
async def test_an_answer(serve: Serve, start: Start, dialect: str, finish_reason: str) -> None:
    """Text, model, finish reason and tokens are read; path, schema and limits stand where the server looks for them.

    All of them say `length`: recorded from llama.cpp, vLLM and Ollama; TGI: FinishReason in router/src/infer.
    """
    server = await serve(http.status(200, body_of(dialect, "hi", finish_reason)))
    client = await start(server.url, **speaking(dialect))
    reply = await client.complete(client.frame(ASK).around("a ticket"), passage(), wait_s=0.0)
    assert (reply.text, reply.model, reply.finish_reason) == ("hi", "tiny", finish_reason)
    assert (reply.input_tokens, reply.output_tokens) == (11, 7)
    seen = server.requests[0]
    assert (seen.method, seen.path) == ("POST", PATHS.get(dialect, "/v1/chat/completions"))
    assert asked(dialect, server.bodies[0]) == {
        "turns": ["Sort tickets.", "a ticket"],
        "schema": ASK.schema,
        "limits": [64, 0.0],
        "model": "tiny",
    }


async def test_ollama_breaks_off_what_goes_round_in_circles(serve: Serve, start: Start) -> None:
    """A 200 that is not `done` and counts nothing (Ollama 0.17.4, recorded): an answer without an end, no failure."""
    server = await serve(
        http.status(200, {**without_usage(body_of("ollama", "{zzz")), "done": False, "done_reason": None})
    )
    reply = await ask(await start(server.url, dialect="ollama"))
    assert (reply.text, reply.finish_reason, reply.output_tokens) == ("{zzz", REPETITION, 0)


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_no_usage(serve: Serve, start: Start, dialect: str) -> None:
    """A server that counts no tokens has answered all the same."""
    server = await serve(http.status(200, without_usage(body_of(dialect, "hi"))))
    reply = await ask(await start(server.url, **speaking(dialect)))
    assert (reply.text, reply.input_tokens, reply.output_tokens) == ("hi", 0, 0)


class Case(NamedTuple):
    """What a server answers (a text: no JSON), and what becomes of it. `source`: where the shape is known from."""

    dialect: str
    source: str
    status: int
    body: object
    error: type[NoAnswer]

    def step(self) -> http.Step:
        """Return the answer as the fault server sends it."""
        if isinstance(self.body, str):
            return http.raw(http.http(self.status, self.body.encode(), kind="text/plain"), stay=True)
        return http.status(self.status, self.body, "Retry-After: 60")


def openai_error(text: str, **fields: object) -> dict[str, Any]:
    """Return an error as OpenAI's dialect has it."""
    return {"error": {"message": text, **fields}}


OPENAI = "OpenAI, API reference: error codes"
VLLM = "vLLM 0.22.1, run on a GPU (texts shortened)"
LLAMA = "llama.cpp 0.7.0, build 11669, recorded"
OLLAMA = "Ollama 0.17.4, recorded"
TGI = "TGI 3.3.7, router/src (read, not run)"
FASTAPI = "FastAPI, recorded from transformers serve"
MADE = "made up: no completion in this dialect's shape"

CASES = [
    *[Case(name, "any", 200, body_of(name, " "), AnswerEmpty) for name in DIALECTS],
    *[Case(name, "any", 200, body_of(name, None), AnswerEmpty) for name in DIALECTS],
    *[Case(name, "any", 200, body_of(name, "\n ", "length"), AnswerEmpty) for name in DIALECTS],
    *[Case(name, MADE, 200, {"model": "tiny"}, BadEnvelope) for name in DIALECTS],
    *[Case(name, MADE, 200, body_of(name, 7), BadEnvelope) for name in ("custom",)],
    # OpenAI
    Case("openai", OPENAI, 200, http.completion(None, refusal="I cannot"), AnswerRefused),
    Case("openai", OPENAI, 200, http.completion("half", "content_filter"), AnswerRefused),
    Case("openai", OPENAI, 401, openai_error("Incorrect API key", code="invalid_api_key"), Misconfigured),
    Case("openai", OPENAI, 403, openai_error("not supported", type="request_forbidden"), Misconfigured),
    Case("openai", OPENAI, 404, openai_error("Invalid URL", type="invalid_request_error"), Misconfigured),
    Case("openai", OPENAI, 404, openai_error("does not exist", code="model_not_found"), Misconfigured),
    Case("openai", OPENAI, 429, openai_error("Rate limit", code="rate_limit_exceeded"), Busy),
    Case("openai", OPENAI, 429, openai_error("exceeded your current quota", code="insufficient_quota"), QuotaSpent),
    Case("openai", OPENAI, 503, openai_error("The engine is currently overloaded"), Overloaded),
    Case("openai", OPENAI, 400, openai_error("too long", code="context_length_exceeded"), ContextExceeded),
    # vLLM
    Case("vllm", "vLLM 0.22.1, entrypoints/openai/api_server.py", 401, {"error": "Unauthorized"}, Misconfigured),
    Case("vllm", VLLM, 404, {"detail": "Not Found"}, Misconfigured),
    Case("vllm", VLLM, 404, openai_error("The model `x` does not exist.", type="NotFoundError"), Misconfigured),
    Case("vllm", VLLM, 400, openai_error("maximum context length is 2048", type="BadRequestError"), ContextExceeded),
    Case(
        "vllm",
        "vLLM 0.22.1, vllm/renderers/params.py",
        400,
        openai_error(
            "max_tokens=9000 cannot be greater than max_model_len=max_total_tokens=8192. Please request fewer output"
            " tokens. (parameter=max_tokens, value=9000)",
            type="BadRequestError",
        ),
        ContextExceeded,
    ),
    Case("vllm", VLLM, 400, openai_error("Invalid grammar", type="BadRequestError"), Declined),
    Case("vllm", "vllm-project/vllm#49445: a queue with a bound", 503, openai_error("queue is full"), Overloaded),
    # llama.cpp
    Case("llamacpp", LLAMA, 401, openai_error("Invalid API Key", type="authentication_error", code=401), Misconfigured),
    Case("llamacpp", LLAMA, 404, openai_error("File Not Found", type="not_found_error", code=404), Misconfigured),
    Case("llamacpp", LLAMA, 503, openai_error("Loading model", type="unavailable_error", code=503), Overloaded),
    Case(
        "llamacpp",
        LLAMA,
        400,
        openai_error("request (40018 tokens) exceeds", type="exceed_context_size_error", n_ctx=4096),
        ContextExceeded,
    ),
    Case(
        "llamacpp",
        LLAMA,
        400,
        openai_error("JSON schema error at #: unrecognized type", type="invalid_request_error", code=400),
        Declined,
    ),
    # TGI
    Case("tgi", TGI, 401, "", Misconfigured),
    Case("tgi", TGI, 404, "", Misconfigured),
    Case("tgi", TGI, 429, {"error": "Model is overloaded", "error_type": "overloaded"}, Busy),
    Case("tgi", TGI, 424, {"error": "Request failed", "error_type": "generation"}, ServerFault),
    Case(
        "tgi",
        TGI,
        422,
        {"error": "Input validation error: `inputs` must have less than 9 tokens", "error_type": "validation"},
        ContextExceeded,
    ),
    Case(
        "tgi",
        TGI,
        422,
        {"error": "`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 4000", "error_type": "validation"},
        ContextExceeded,
    ),
    Case("tgi", TGI, 422, {"error": "grammar is not valid", "error_type": "validation"}, Declined),
    # Ollama
    Case("ollama", OLLAMA, 200, {**body_of("ollama", ""), "done_reason": "load"}, AnswerEmpty),
    Case("ollama", OLLAMA, 403, "", Misconfigured),  # a Host header that it does not know
    Case("ollama", OLLAMA, 404, "404 page not found", Misconfigured),
    Case("ollama", OLLAMA, 404, {"error": "model 'nope' not found"}, Misconfigured),
    Case("ollama", OLLAMA, 405, "405 method not allowed", Misconfigured),
    Case(
        "ollama",
        OLLAMA,
        503,
        {"error": "server busy, please try again.  maximum pending requests exceeded"},
        Busy,
    ),
    Case("ollama", OLLAMA, 400, {"error": "the input length exceeds the context length"}, ContextExceeded),
    Case("ollama", OLLAMA, 400, {"error": "unexpected EOF"}, Declined),
    Case("ollama", OLLAMA, 500, {"error": "invalid JSON schema in format"}, Declined),
    Case("openai", OLLAMA, 500, openai_error("invalid JSON schema in format", type="api_error"), Declined),
    Case("ollama", OLLAMA, 500, {"error": "failed to load model vocabulary required for format"}, Declined),
    Case("ollama", OLLAMA, 500, {"error": "model runner has unexpectedly stopped, this may be due to"}, ServerFault),
    Case("ollama", "Ollama, llm/server.go", 500, {"error": "llama runner process has terminated"}, ServerFault),
    # A server of one's own
    Case("custom", FASTAPI, 401, {"detail": "Not authenticated"}, Misconfigured),
    Case("custom", FASTAPI, 403, {"detail": "Forbidden"}, Misconfigured),
    Case("custom", FASTAPI, 404, {"detail": "Not Found"}, Misconfigured),
    Case("custom", FASTAPI, 405, {"detail": "Method Not Allowed"}, Misconfigured),
    Case("custom", FASTAPI, 422, {"detail": [{"type": "missing", "loc": ["body", "text"]}]}, Declined),
    Case("custom", FASTAPI, 500, "Internal Server Error", ServerFault),
    Case("custom", FASTAPI, 503, {"detail": "loading model"}, Overloaded),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.dialect}-{case.status}-{case.error.__name__}")
async def test_no_answer(serve: Serve, start: Start, case: Case) -> None:
    """Each becomes the class that says what follows from it (shapes as the servers have them)."""
    server = await serve(default=case.step())
    with pytest.raises(case.error) as raised:
        await ask(await start(server.url, **speaking(case.dialect)), passage(TOO_SHORT_S))
    assert type(raised.value) is case.error


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_an_empty_answer_says_what_it_used(serve: Serve, start: Start, dialect: str) -> None:
    """It is paid for as a good one is, and counted with it."""
    server = await serve(default=http.status(200, body_of(dialect, " ")))
    before = tokens_counted()
    with pytest.raises(AnswerEmpty) as raised:
        await ask(await start(server.url, **speaking(dialect)))
    assert (raised.value.input_tokens, raised.value.output_tokens) == (11, 7)
    assert [now - then for now, then in zip(tokens_counted(), before, strict=True)] == [11, 7]


def tokens_counted() -> list[float]:
    """Return the input and output tokens of all calls so far."""
    labels = ({"model": "tiny", "direction": direction} for direction in ("input", "output"))
    return [REGISTRY.get_sample_value("penstock_model_tokens_total", one) or 0.0 for one in labels]


PROXY = {
    401: Misconfigured,
    403: Misconfigured,
    404: Misconfigured,
    429: Busy,
    500: ServerFault,
    502: ServerFault,
    503: Overloaded,
    504: TimedOut,
}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("code", PROXY)
async def test_a_proxy_before_the_server(serve: Serve, start: Start, dialect: str, code: int) -> None:
    """A page says the same whatever server stands behind it (nginx's error pages)."""
    page = b"<html><head><title>Error</title></head><body><hr><center>nginx</center></body></html>"
    server = await serve(default=http.raw(http.http(code, page, kind="text/html"), stay=True))
    with pytest.raises(PROXY[code]) as raised:
        await ask(await start(server.url, **speaking(dialect)), passage(TOO_SHORT_S))
    assert type(raised.value) is PROXY[code]


@pytest.mark.parametrize(
    "case", [case for case in CASES if case[:3] == ("ollama", OLLAMA, 500) and case.error is Declined]
)
async def test_ollama_refuses_a_request_with_a_500(serve: Serve, start: Start, case: Case) -> None:
    """It is not asked again, the endpoint is not to blame, and its words stay out of our error."""
    server = await serve(case.step(), default=http.status(200, body_of("ollama", "hi")))
    client = await start(server.url, dialect="ollama", max_attempts=3, breaker={"min_calls": 1})
    with pytest.raises(Declined) as raised:
        await ask(client)
    assert len(server.requests) == 1
    assert json.dumps(case.body)[12:30] not in str(raised.value)
    assert (await ask(client)).text == "hi"


@pytest.mark.parametrize(("setting", "sent"), [("30m", "30m"), (-1, -1), ("-1", -1), (90.5, 90.5), ("0", 0)])
async def test_ollama_is_told_how_long_to_keep_the_model(
    serve: Serve, start: Start, setting: object, sent: object
) -> None:
    """`keep_alive` is sent with each request; a bare number as one, since Go's durations want a unit."""
    server = await serve(http.status(200, body_of("ollama", "hi")))
    await ask(await start(server.url, dialect="ollama", keep_alive=setting))
    body: Any = server.bodies[0]
    assert body["keep_alive"] == sent
    assert asked("ollama", body)["turns"] == ["Sort tickets.", "a ticket"]


async def test_ollama_decides_itself_unless_told(serve: Serve, start: Start) -> None:
    """Nothing is sent when nothing is set: a null would be a value too."""
    server = await serve(http.status(200, body_of("ollama", "hi")))
    await ask(await start(server.url, dialect="ollama"))
    assert "keep_alive" not in json.loads(server.requests[0].body)
