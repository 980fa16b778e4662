"""A server of /v1/completions that answers each prompt by its text, in the shape of vLLM's answers."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from tests.support import fault_server as http
from tests.support.fault_server import FaultServer


def completion_of(texts: Sequence[str | None], *indexes: Any) -> dict[str, Any]:
    """Return the body with a choice for each text; `indexes` are theirs when they are not their positions."""
    choices = [
        {"index": index, "text": text, "logprobs": None, "finish_reason": "stop", "stop_reason": None}
        for index, text in zip(indexes or range(len(texts)), texts, strict=True)
    ]
    used = {"prompt_tokens": 11 * len(texts) + 1, "completion_tokens": 7 * len(texts)}
    return {"id": "cmpl-1", "object": "text_completion", "model": "tiny", "choices": choices, "usage": used}


def echo(server: FaultServer, *, refused: str = "refused") -> http.Step:
    """Answer each prompt with `answer to TEXT`, last choice first; 400 for a request that holds the refused text."""

    async def step(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        asked = json.loads(server.requests[-1].body)["prompt"]
        texts = [text.split("\n\n", 1)[1] for text in ([asked] if isinstance(asked, str) else asked)]
        if refused in texts:
            return await http.status(400, {"error": {"message": "no", "code": 400}})(reader, writer)
        body = completion_of([f"answer to {text}" for text in texts])
        body["choices"].reverse()
        return await http.status(200, body)(reader, writer)

    return step
