"""Every dialect by its name: settings of a model that speaks it, and completions as its server spells them."""

from typing import Any, get_args

from tests.support.fault_server import completion
from workers.settings.servers import ModelSettings

DIALECTS: tuple[str, ...] = get_args(ModelSettings.model_fields["dialect"].annotation)

CUSTOM: dict[str, Any] = {
    "path": "/classify",
    "body": {
        "instructions": "<system>",
        "inputs": [{"text": "<prompt>", "lang": "en"}],
        "form": "<schema>",
        "limits": {"tokens": "<max_tokens>", "heat": "<temperature>", "stop": ["<<eos>", "</s>"]},
        "who": "<model>",
        "stream": False,
    },
    "answer": "result.0.text",
    "finish_reason": "result.0.stopped",
    "model": "served_by",
    "input_tokens": "usage.read",
    "output_tokens": "usage.written",
}
"""A server of one's own, as a team would write it with FastAPI."""

# What each adds to OpenAI's completion. llama.cpp: recorded from 0.7.0, build 11669 (a random model); vLLM: 0.22.1,
# vllm/entrypoints/openai/protocol.py; TGI: 3.3.7, router/src/lib.rs.
_BESIDE: dict[str, dict[str, Any]] = {
    "openai": {"id": "chatcmpl-1", "created": 1, "service_tier": "default"},
    "vllm": {"id": "chatcmpl-1", "created": 1, "system_fingerprint": "vllm-0.22.1-1", "kv_transfer_params": None},
    "llamacpp": {"id": "chatcmpl-1", "created": 1, "system_fingerprint": "b11669-Debian", "timings": {"cache_n": 0}},
    "tgi": {"id": "", "created": 1, "system_fingerprint": "3.3.7-native"},
}
_CHOICE: dict[str, dict[str, Any]] = {"openai": {"refusal": None}, "vllm": {"refusal": None, "tool_calls": []}}


def speaking(dialect: str) -> dict[str, Any]:
    """Return the settings that make a model speak it."""
    return {"dialect": dialect, "custom": CUSTOM} if dialect == "custom" else {"dialect": dialect}


def body_of(dialect: str, text: object, finish_reason: str = "stop") -> dict[str, Any]:
    """Return a completion in the dialect's shape, of 11 and 7 tokens. Ollama's is recorded from 0.17.4."""
    if dialect == "custom":
        said = {"text": text, "stopped": finish_reason}
        return {"result": [said], "served_by": "tiny", "usage": {"read": 11, "written": 7}}
    if dialect == "ollama":
        turn = {"role": "assistant", "content": text}
        counts = {"prompt_eval_count": 11, "eval_count": 7, "total_duration": 13_769_658, "load_duration": 1_394_813}
        return {"model": "tiny", "message": turn, "done": True, "done_reason": finish_reason, **counts}
    if dialect == "completions":  # vLLM 0.22.1, run on a GPU
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish_reason, "stop_reason": None}
        used = {"prompt_tokens": 11, "completion_tokens": 7}
        return {"object": "text_completion", "model": "tiny", "choices": [choice], "usage": used}
    body = completion(None, finish_reason, **{"content": text, **_CHOICE.get(dialect, {})})
    return {**body, **_BESIDE[dialect]}


def without_usage(body: dict[str, Any]) -> dict[str, Any]:
    """Return a completion whose server counts no tokens."""
    return {name: value for name, value in body.items() if name != "usage" and not name.endswith("_count")}
