"""Functions that a task could name as its Python rule, good and bad ones."""

from typing import Any


def by_length(value: Any) -> dict[str, Any] | None:
    """Answer long texts, decline the others."""
    return {"category": "other", "urgency": "low", "summary": "long"} if len(value["text"]) > 3 else None


def off_schema(value: Any) -> dict[str, Any]:
    """Answer what no triage schema accepts."""
    return {"category": value["text"]}


def raises(value: Any) -> dict[str, Any]:
    """Fail with the record's content in the exception's text."""
    raise KeyError(value["text"])


def no_json(_: Any) -> object:
    """Answer what cannot be written as JSON."""
    return {"category": object()}


def upper(value: str) -> str:
    """Answer a text."""
    return value.upper()


async def waits(_: Any) -> None:
    """Be a coroutine, which no rule may be."""


NUMBER = 7
