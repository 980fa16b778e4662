"""The table of statuses: one test per row, and what an error may never say."""

import json

import pytest

from workers.errors import (
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
from workers.llm.status import LOADING_COOL_DOWN_S, error_for, words_of


def openai_error(text: str, **fields: object) -> bytes:
    """Return an error body as OpenAI's dialect has it."""
    return json.dumps({"error": {"message": text, **fields}}).encode()


# Bodies as seen from the servers that are named (servers.md), cut to what matters.
OLLAMA_LOADING = b'{"error":"server busy, please try again.  maximum pending requests exceeded"}'
LLAMA_LOADING = openai_error("Loading model", type="unavailable_error", code=503)
LLAMA_TOO_LONG = openai_error("request (900 tokens) exceeds", type="exceed_context_size_error", code=400, n_ctx=512)
LLAMA_NO_PATH = openai_error("File Not Found", type="not_found_error", code=404)
VLLM_TOO_LONG = openai_error("This model's maximum context length is 2048 tokens.", type="BadRequestError", code=400)
VLLM_MAX_TOKENS = openai_error(
    "max_tokens=20000 cannot be greater than max_model_len=max_total_tokens=16384. Please request fewer output tokens."
    " (parameter=max_tokens, value=20000)",
    type="BadRequestError",
    param="max_tokens",
    code=400,
)
VLLM_ENGINE = openai_error(
    "The decoder prompt (length 9) is longer than the maximum model length of 8.", type="BadRequestError", code=400
)
VLLM_NO_MODEL = openai_error("The model `x` does not exist.", type="NotFoundError", code=404)
VLLM_NO_PATH = b'{"detail":"Not Found"}'
OPENAI_TOO_LONG = openai_error("too long", type="invalid_request_error", code="context_length_exceeded")
OPENAI_NO_MODEL = openai_error("no access", type="invalid_request_error", code="model_not_found")
OPENAI_NO_QUOTA = openai_error(
    "You exceeded your current quota, please check your plan and billing details. For more information on this error,"
    " read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors.",
    type="insufficient_quota",
    code="insufficient_quota",
)
ALIBABA_PER_MINUTE = openai_error(
    "You exceeded your current quota, please check your plan and billing details. For details, see:"
    " https://help.aliyun.com/zh/model-studio/error-code#token-limit",
    type="insufficient_quota",
    code="insufficient_quota",
)
SCALEWAY_PER_MINUTE = b'{"status":429,"error":"INSUFFICIENT QUOTA","message":"You exceeded your current limit"}'
TGI_BUSY = b'{"error":"Model is overloaded","error_type":"overloaded"}'


@pytest.mark.parametrize(
    ("status", "body", "error", "says"),
    [
        (301, b"", Misconfigured, "redirect"),
        (307, b"", Misconfigured, "redirect"),
        (401, b"", Misconfigured, "API key"),
        (402, b"", QuotaSpent, "pay"),
        (429, OPENAI_NO_QUOTA, QuotaSpent, "pay"),
        (429, ALIBABA_PER_MINUTE, Busy, "minute"),
        (429, SCALEWAY_PER_MINUTE, Busy, "too many"),
        (403, b"", Misconfigured, "not allowed"),
        (404, VLLM_NO_MODEL, Misconfigured, "configured model"),
        (404, OPENAI_NO_MODEL, Misconfigured, "configured model"),
        (400, OPENAI_NO_MODEL, Misconfigured, "configured model"),
        (404, VLLM_NO_PATH, Misconfigured, "no such path"),
        (404, LLAMA_NO_PATH, Misconfigured, "no such path"),
        (405, b"", Misconfigured, "url"),
        (400, b"", Declined, "refuses"),
        (413, b"", Declined, "refuses"),
        (422, b'{"detail":[{"msg":"Field required"}]}', Declined, "refuses"),
        (400, LLAMA_TOO_LONG, ContextExceeded, "context"),
        (400, VLLM_TOO_LONG, ContextExceeded, "context"),
        (400, VLLM_MAX_TOKENS, ContextExceeded, "context"),
        (400, VLLM_ENGINE, ContextExceeded, "context"),
        (400, OPENAI_TOO_LONG, ContextExceeded, "context"),
        (429, TGI_BUSY, Busy, "too many"),
        (503, b"", Overloaded, "overloaded"),
        (529, b"", Overloaded, "overloaded"),
        (503, LLAMA_LOADING, Overloaded, "loaded"),
        (408, b"", TimedOut, "gave up"),
        (504, b"", TimedOut, "gave up"),
        (204, b"", BadEnvelope, "no completion"),
        (409, b"", ServerFault, "failed"),
        (418, b"", ServerFault, "failed"),
        (425, b"", ServerFault, "failed"),
        (500, b"Internal Server Error", ServerFault, "failed"),
        (501, b"", ServerFault, "failed"),
        (502, b"<html>bad gateway</html>", ServerFault, "failed"),
        (599, b"", ServerFault, "failed"),
    ],
)
def test_each_row(status: int, body: bytes, error: type[NoAnswer], says: str) -> None:
    """Status and body decide the class; the text names status, endpoint and meaning."""
    found = error_for(status, {}, body, "http://m:8000")
    assert type(found) is error
    assert str(found).startswith(f"{status} from http://m:8000: ")
    assert says in str(found)


def test_cool_downs() -> None:
    """Retry-After is honoured on 429 and 503; a model that loads is left alone for longer; else it is ours to say."""
    asked = error_for(429, {"retry-after": "3"}, b"", "m")
    loading = error_for(503, {}, LLAMA_LOADING, "m")
    silent = error_for(503, {}, b"", "m")
    minute = error_for(429, {}, ALIBABA_PER_MINUTE, "m")
    queue = error_for(503, {}, OLLAMA_LOADING, "m")
    assert [e.retry_after_s for e in (asked, loading, silent, minute, queue) if isinstance(e, Busy)] == [
        3.0,
        LOADING_COOL_DOWN_S,
        None,
        None,
        LOADING_COOL_DOWN_S,
    ]


@pytest.mark.parametrize("status", [400, 401, 404, 422, 429, 500, 503])
def test_no_error_quotes_the_request(status: int) -> None:
    """Servers echo requests in their errors; ours quote codes only, capped and printable."""
    body = openai_error(
        'Failed to parse; messages = [{"content":"my secret ticket"}]', type="x\x1b[31m", code="a" * 500
    )
    text = str(error_for(status, {}, body, "http://m"))
    assert "secret ticket" not in text
    assert "\x1b" not in text
    assert len(text) <= 200


def test_a_record_cannot_misconfigure_the_endpoint() -> None:
    """What a 400 quotes of the record never decides about the endpoint."""
    found = error_for(400, {}, openai_error("bad: 'model_not_found unauthorized model'", type="BadRequestError"), "m")
    assert type(found) is Declined


def test_a_probe_may_quote_but_not_the_key() -> None:
    """The words of a server are shown on request, without the key, control characters or more than 200 characters."""
    words = words_of(openai_error("Incorrect API key: sk-canary\x1b[2J" + "x" * 500), "sk-canary")
    assert words.startswith("Incorrect API key: ***")
    assert "\x1b" not in words
    assert len(words) <= 200


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b'{"error":null}', b'{"error":[1]}', b"\xff\xfe", b'{"error":"no"}']
)
def test_any_body_is_read(body: bytes) -> None:
    """No body of an error, however odd, breaks the reading of it."""
    assert type(error_for(500, {}, body, "m")) is ServerFault
    assert isinstance(words_of(body, None), str)
