"""THE TABLE: from what a server answered instead of a completion to the error that decides what follows."""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import orjson

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
from workers.llm.backoff import retry_after_s
from workers.llm.scrub import identifier, quote

LOADING_COOL_DOWN_S = 5.0
"""A model that is being loaded takes seconds to minutes; asking twice a second does not speed it up."""


class Row(NamedTuple):
    """One line of the table: the first that fits decides.

    `codes`: one of them is the body's `error.code` or `error.type`. `says`: one of them occurs in its text, lower case.
    Empty: fits whatever the body says. A row that blames the endpoint never looks at prose: a server may quote the
    record there, and no record may decide what happens to others. `cool_down_s`: for a server without room that does
    not say itself when to come back.
    """

    statuses: Container[int]
    error: type[NoAnswer]
    meaning: str
    codes: frozenset[str] = frozenset()
    says: tuple[str, ...] = ()
    cool_down_s: float | None = None


_TOO_LONG_ELSEWHERE = (
    "exceeds the context length",
    "`inputs` must have less than",
    "`inputs` tokens + `max_new_tokens`",
)
"""Ollama with `truncate: false`; TGI (router/src/validation.rs), whose 422 names no code."""
_TOO_LONG_VLLM = ("cannot be greater than max_model_len", "maximum model length")
"""vLLM 0.22.1 beside `maximum context length`: `max_tokens` alone is too many (vllm/renderers/params.py), and what only
its engine sees (vllm/v1/engine/input_processor.py)."""
_TOO_LONG = (
    "maximum context length",
    "context size",
    "context window",
    "context_length",
    *_TOO_LONG_VLLM,
    *_TOO_LONG_ELSEWHERE,
)
_TOO_LONG_CODES = frozenset({"exceed_context_size_error", "context_length_exceeded"})
_REFUSED_BY_OLLAMA = ("invalid json schema in format", "failed to load model vocabulary required for format")
"""Said with a 500, on each of its routes, of a schema that cannot be made a grammar, and of a grammar that its own
engine refuses (llm/server.go, runner/ollamarunner). Where llama.cpp runs the model, its process ends instead."""
_QUEUE_FULL = "maximum pending requests exceeded"
_NO_MODEL_CODES = frozenset({"model_not_found", "model_not_available"})
_QUOTA_CODES = frozenset({"insufficient_quota"})
_PER_MINUTE = ("#token-limit", "allocated quota exceeded")
"""Alibaba's Model Studio says OpenAI's code, and mostly OpenAI's words, of its tokens per minute, which come back."""

TABLE = (
    # Refuses everybody: a person must act.
    Row(range(300, 400), Misconfigured, "redirects are not followed: that would post the record to another host"),
    Row((401,), Misconfigured, "the API key is missing or wrong"),
    Row((403,), Misconfigured, "the API key, or this host name, is not allowed to ask"),
    Row((400, 404, 422), Misconfigured, "the server does not have the configured model", codes=_NO_MODEL_CODES),
    # Both of these end the same way; only the advice differs, so prose may choose between them.
    Row((404,), Misconfigured, "the server does not have the configured model", says=("model",)),
    Row((404,), Misconfigured, "no such path: is `url` the root of a server that speaks this dialect?"),
    Row((405, 407, 410, 426), Misconfigured, "nothing here answers completions: is `url` right?"),
    # Refuses this request.
    Row((400, 413, 422), ContextExceeded, "the prompt does not fit the model's context", codes=_TOO_LONG_CODES),
    Row((400, 413, 422), ContextExceeded, "the prompt does not fit the model's context", says=_TOO_LONG),
    Row((400, 413, 422, 431), Declined, "the server refuses this request"),
    Row((500,), Declined, "the server refuses this request", says=_REFUSED_BY_OLLAMA),
    # Has no room now.
    Row((429,), Busy, "too many tokens in this minute", codes=_QUOTA_CODES, says=_PER_MINUTE),
    Row((402,), QuotaSpent, "the account behind the API key has to pay first"),
    Row((429,), QuotaSpent, "the account behind the API key has to pay first", codes=_QUOTA_CODES),
    Row((429,), Busy, "too many requests"),
    Row((503,), Overloaded, "the model is being loaded", says=("loading model",), cool_down_s=LOADING_COOL_DOWN_S),
    # Ollama, whose queue is full only while it loads a model: it works, and no breaker need know.
    Row((503,), Busy, "the model is being loaded", says=(_QUEUE_FULL,), cool_down_s=LOADING_COOL_DOWN_S),
    Row((503, 529), Overloaded, "overloaded"),
    # Did not do its work. 524 is a proxy's word for 504 (Cloudflare).
    Row((408, 504, 524), TimedOut, "the server, or a proxy before it, gave up waiting"),
    Row(range(200, 300), BadEnvelope, "a success that carries no completion"),
    Row(range(1000), ServerFault, "the server failed"),
)


@dataclass(frozen=True, slots=True)
class _Complaint:
    """What the body of an error says, as far as it can be read."""

    codes: frozenset[str]
    text: str


def error_for(
    status: int, headers: Mapping[str, str], body: bytes, endpoint: str, table: Iterable[Row] = TABLE
) -> NoAnswer:
    """Return the error for an answer that is no completion. Its text names status, endpoint, meaning and error code.

    `table`: the dialect's; it ends with a row that fits everything.

    It does not quote the server's own words: servers quote requests (llama.cpp: "; messages = [...]"), and a prompt
    must not get into a log or a dead letter.
    """
    complaint = _complaint(body)
    row = next(row for row in table if _fits(row, status, complaint))
    text = f"{status} from {endpoint}: {row.meaning}"
    if complaint.codes:
        text += f" ({', '.join(sorted(complaint.codes))})"
    if not issubclass(row.error, Busy):
        return row.error(quote(text))
    asked_s = retry_after_s(headers)
    return row.error(quote(text), row.cool_down_s if asked_s is None else asked_s)


def words_of(body: bytes, secret: str | None) -> str:
    """Return what the server wrote, fit to be shown: only for a probe, whose prompt is ours."""
    return quote(_complaint(body).text, secret)


def _fits(row: Row, status: int, complaint: _Complaint) -> bool:
    if status not in row.statuses:
        return False
    if row.codes and not row.codes & complaint.codes:
        return False
    text = complaint.text.lower()
    return not row.says or any(words in text for words in row.says)


def _complaint(body: bytes) -> _Complaint:
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return _Complaint(frozenset(), body[:1024].decode("utf-8", "replace"))
    error = parsed.get("error", parsed) if isinstance(parsed, dict) else parsed
    if not isinstance(error, dict):
        return _Complaint(frozenset(), error if isinstance(error, str) else "")
    codes = frozenset(filter(None, (identifier(error.get("code")), identifier(error.get("type")))))
    text = next((said for name in ("message", "detail", "error") if isinstance(said := error.get(name), str)), "")
    return _Complaint(codes, text)
