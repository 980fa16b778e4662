"""What all dialects of a chat share: a conversation with a hole for the user's text, and reading an envelope."""

from typing import Any, NamedTuple

import orjson

from workers.errors import BadAnswer, BadEnvelope
from workers.json_text import loads
from workers.ports import Frame

_NAME_MAX_CHARS = 256


class Completion(NamedTuple):
    """What a model said, and what its server says about it. Token counts are 0 when the server gives none.

    `members`, of a request with several prompts: what was said to each; the counts are then of the whole request.
    """

    text: str
    model: str
    finish_reason: str
    input_tokens: int
    output_tokens: int
    members: "tuple[Completion | BadAnswer, ...]" = ()


def conversation(options: dict[str, Any], system: str) -> Frame:
    """Return the body: the options, the system's text if there is one, and the hole; `messages` comes last."""
    spoken = orjson.dumps({"role": "system", "content": system}) + b"," if system else b""
    head = orjson.dumps(options)[:-1] + b',"messages":[' + spoken + b'{"role":"user","content":'
    return Frame(head, b"}]}")


def envelope_of(body: bytes) -> Any:
    """Return the JSON of a 200's body.

    Raises:
        BadEnvelope: it is none; retryable.
    """
    try:
        return loads(body)
    except orjson.JSONDecodeError as exc:
        raise BadEnvelope(f"200 with {len(body)} bytes that are no JSON: cut, or no model server") from exc


def name_in(value: object) -> str:
    """Return a name that the server gives, capped; empty when it gives none."""
    return value[:_NAME_MAX_CHARS] if isinstance(value, str) else ""


def count_in(value: object) -> int:
    """Return a number of tokens that the server gives, 0 when it gives none."""
    return value if isinstance(value, int) and value > 0 else 0


def counts_in(envelope: dict[str, Any]) -> tuple[int, int]:
    """Return the input and output tokens in OpenAI's `usage`."""
    used = envelope.get("usage")
    if not isinstance(used, dict):
        return 0, 0
    return count_in(used.get("prompt_tokens")), count_in(used.get("completion_tokens"))
