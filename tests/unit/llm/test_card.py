"""What servers say of themselves: real shapes, and what is none."""

import orjson
import pytest

from tests.support.llm_settings import model_settings
from workers.llm.dialects import Card, dialect_of
from workers.llm.dialects.card import gauge, json_of, listed_context_tokens

# llama-server 0.7.0, shortened; vLLM's documentation of /v1/models.
LLAMA = orjson.dumps(
    {"object": "list", "data": [{"id": "tiny", "aliases": ["small"], "meta": {"n_ctx": 4096, "n_ctx_train": 32768}}]}
)
VLLM = orjson.dumps({"object": "list", "data": [{"id": "a"}, {"id": "b", "object": "model", "max_model_len": 8192}]})

# vLLM 0.22.1, shortened.
METRICS = b"""# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="x y{z}"} 12.0
vllm:num_requests_running{engine="1",model_name="x"} 3.0
vllm:num_requests_running_total 99
llamacpp:requests_deferred 7
"""


@pytest.mark.parametrize(
    ("body", "model", "expected"),
    [
        (LLAMA, "tiny", 4096),
        (LLAMA, "small", 4096),
        (LLAMA, "other", None),
        (VLLM, "b", 8192),
        (VLLM, "a", None),
        (b'{"data": [{"id": "a", "meta": null, "aliases": 3}, 4]}', "a", None),
        (b'{"data": {"id": "a"}}', "a", None),
        (b"[]", "a", None),
        (b"<html>", "a", None),
    ],
)
def test_the_context_is_that_of_the_model_asked_for(body: bytes, model: str, expected: int | None) -> None:
    """By its name or an alias; what is no list of models says nothing, and fails nothing."""
    assert listed_context_tokens({"/v1/models": body}, model) == expected
    assert listed_context_tokens({}, model) is None


def test_a_gauge_is_summed_over_its_labels() -> None:
    """Engines of one server count together; another series with the same beginning does not."""
    said = {"/metrics": METRICS}
    assert gauge(said, "vllm:num_requests_running") == 15
    assert gauge(said, "llamacpp:requests_deferred") == 7
    assert gauge(said, "vllm:num_requests_waiting") is None
    assert gauge({}, "vllm:num_requests_running") is None


def test_what_is_no_object_is_an_empty_one() -> None:
    """Readers of single members need no case for it."""
    assert json_of({"/props": b"3"}, "/props") == json_of({}, "/props") == json_of({"/props": b"{"}, "/props") == {}


@pytest.mark.parametrize(
    ("dialect", "said", "expected"),
    [
        ("openai", {"/v1/models": VLLM}, Card(context_tokens=8_192)),
        ("completions", {"/v1/models": VLLM}, Card(context_tokens=8_192)),
        ("vllm", {"/v1/models": VLLM, "/metrics": METRICS}, Card(context_tokens=8_192, running=15)),
        (
            "llamacpp",  # 0.7.0
            {
                "/props": b'{"total_slots": 4}',
                "/metrics": b"llamacpp:requests_processing 2\nllamacpp:requests_deferred 1\n",
            },
            Card(slots=4, running=2, waiting=1),
        ),
        (
            "tgi",  # router/src/lib.rs, Info
            {
                "/info": b'{"max_total_tokens": 2048, "max_concurrent_requests": 128}',
                "/metrics": b"tgi_batch_current_size 8\ntgi_queue_size 5\n",
            },
            Card(2_048, 128, 8, 5),
        ),
        (
            "ollama",  # 0.12 and later
            {"/api/ps": b'{"models": [{"name": "other"}, {"name": "b:latest", "context_length": 4096}]}'},
            Card(context_tokens=4_096),
        ),
        ("ollama", {"/api/ps": b'{"models": []}'}, Card()),
    ],
)
def test_each_dialect_reads_its_servers_own_words(dialect: str, said: dict[str, bytes], expected: Card) -> None:
    """By the paths that it asks; a server that answers none of them says nothing."""
    spoken = dialect_of(model_settings("http://a:8000", dialect=dialect))
    assert said.keys() <= set(spoken.about)
    assert spoken.card("b", said) == expected
    assert spoken.card("b", {}) == Card()
