"""Whether a server enforces the answer schema: it is asked for prose, with the schema, and its answer says."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson

from workers.errors import NoAnswer
from workers.json_text import loads_raw_controls
from workers.llm import Client
from workers.ports import Ask
from workers.records import Reply

_SYSTEM = "You are a poet. You write plain verse."
_PROSE = "Write a poem of four lines about the sea. Plain verse only: no JSON, no braces, no quotation marks."
"""Nothing in it tells the schema: a model that answers by the schema all the same was made to."""

_ROOM = 2
"""Times `max_tokens`: prose that a schema forces into a text can be longer than an answer."""


async def enforcement(client: Client, ask: Ask, check: Callable[[Any], str | None]) -> str:
    """Return what is to be said of the server's enforcement. Makes one call, and never fails."""
    try:
        reply = await client.probe(replace(ask, system=_SYSTEM, max_tokens=_ROOM * ask.max_tokens), _PROSE)
    except NoAnswer as error:
        return f"whether it enforces the answer schema could not be told ({error.reason} when it was asked for prose)"
    return judged(reply, check)


def judged(reply: Reply, check: Callable[[Any], str | None]) -> str:
    """Return what an answer to a request for prose, with the schema, says of the server."""
    try:
        value = loads_raw_controls(reply.text)
    except orjson.JSONDecodeError:
        if reply.finish_reason == "length" and reply.text.lstrip().startswith("{"):
            return "seems to enforce the answer schema: asked for prose, it began an object, and was cut"
        return (
            "does NOT enforce the answer schema: asked for prose, it did not answer with JSON. A small model will often"
            " need a second ask"
        )
    if (wrong := check(value)) is not None:
        return (
            "does not enforce all of the answer schema: asked for prose, it wrote JSON that the schema refuses"
            f" ({wrong}). Such an answer costs a second ask"
        )
    return "enforces the answer schema: asked for prose, it answered by the schema"
