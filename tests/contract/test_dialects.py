"""Every dialect before a server that answers as its kind does: what is asked, and what becomes of each answer."""

from typing import Any

import pytest

from tests.support import fault_server as http
from tests.support.llm_settings import ASK, Serve, Start, ask, passage
from workers.errors import AnswerEmpty, BadEnvelope, Busy, ContextExceeded, Misconfigured, NoAnswer, Overloaded
from workers.llm.dialects import DIALECTS


def body_of(dialect: str, text: str | None, finish_reason: str = "stop") -> dict[str, Any]:
    """Return a completion in the dialect's shape (recorded from Ollama 0.17.4; the others have OpenAI's)."""
    if dialect != "ollama":
        return http.completion(text, finish_reason)
    said = {"role": "assistant", "content": text}
    counts = {"prompt_eval_count": 11, "eval_count": 7, "total_duration": 13_769_658}
    return {"model": "tiny", "message": said, "done": True, "done_reason": finish_reason, **counts}


def asked_schema(dialect: str, body: Any) -> Any:
    """Return what stands where the dialect's server looks for the schema."""
    if dialect == "ollama":
        return body["format"]
    form = body["response_format"]
    assert form["type"] == "json_schema"
    return (form["value"] if dialect == "tgi" else form["json_schema"])["schema"]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("finish_reason", ["stop", "length"])
async def test_an_answer(serve: Serve, start: Start, dialect: str, finish_reason: str) -> None:
    """Text, model, finish reason and tokens are read; path, schema and limit stand where the server looks for them."""
    server = await serve(http.status(200, body_of(dialect, "hi", finish_reason)))
    reply = await ask(await start(server.url, dialect=dialect))
    assert (reply.text, reply.model, reply.finish_reason) == ("hi", "tiny", finish_reason)
    assert (reply.input_tokens, reply.output_tokens) == (11, 7)
    body: Any = server.bodies[0]
    assert server.requests[0].path == ("/api/chat" if dialect == "ollama" else "/v1/chat/completions")
    assert asked_schema(dialect, body) == ASK.schema
    assert [turn["role"] for turn in body["messages"]] == ["system", "user"]
    assert body["messages"][1]["content"] == "a ticket"
    if dialect == "ollama":
        assert body["options"] == {"temperature": 0.0, "num_predict": 64}
        assert (body["stream"], body["truncate"]) == (False, False)
    else:
        assert body["max_tokens"] == 64


OLLAMA_BUSY = {"error": "server busy, please try again. maximum pending requests exceeded"}
FAILURES = [
    *[(name, 200, body_of(name, " "), AnswerEmpty) for name in DIALECTS],
    *[(name, 200, body_of(name, None), AnswerEmpty) for name in DIALECTS],
    *[(name, 200, {"model": "tiny"}, BadEnvelope) for name in DIALECTS],
    ("ollama", 200, {"message": {"content": "a part"}, "done": False}, BadEnvelope),
    ("ollama", 503, OLLAMA_BUSY, Overloaded),
    ("ollama", 404, {"error": "model 'nope' not found"}, Misconfigured),
    ("ollama", 400, {"error": "the input length exceeds the context length"}, ContextExceeded),
    ("tgi", 429, {"error": "Model is overloaded", "error_type": "overloaded"}, Busy),
    (
        "tgi",
        422,
        {"error": "Input validation error: `inputs` must have less than 9 tokens", "error_type": "validation"},
        ContextExceeded,
    ),
    (
        "llamacpp",
        400,
        {"error": {"code": 400, "message": "request too large", "type": "exceed_context_size_error"}},
        ContextExceeded,
    ),
    ("llamacpp", 503, {"error": {"code": 503, "message": "Loading model"}}, Overloaded),
    ("vllm", 404, {"error": {"message": "The model `x` does not exist.", "type": "NotFoundError"}}, Misconfigured),
]


@pytest.mark.parametrize("case", FAILURES)
async def test_no_answer(serve: Serve, start: Start, case: tuple[str, int, object, type[NoAnswer]]) -> None:
    """Each becomes the class that says what follows from it (shapes as the servers have them)."""
    dialect, code, body, error = case
    server = await serve(default=http.status(code, body, "Retry-After: 60"))
    with pytest.raises(error) as raised:
        await ask(await start(server.url, dialect=dialect), passage(deadline_s=1.0))
    assert type(raised.value) is error
