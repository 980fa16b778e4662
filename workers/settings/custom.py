"""`custom`: a model server of one's own, described instead of programmed: what to send it, where its answer stands."""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, BeforeValidator, Field

from workers.settings.problems import did_you_mean, shown
from workers.settings.types import FaultAt, Strict

PROMPT = "prompt"
PLACEHOLDERS = (PROMPT, "system", "schema", "model", "max_tokens", "temperature")
"""What a body's template may hold, each as `<name>`."""

WHOLE = "."
"""A path to the whole body of an answer."""

_WRITTEN = re.compile(r"(<?)<([a-z_]+)>")
_DOUBLED = re.compile(r"<(<[a-z_]+>)")
_URL_PATH = re.compile(r"/[!-\"$-~]*")

Step = str | int


def placeholder_in(text: str) -> str | None:
    """Return the name of the placeholder that `text` is, None for any other text."""
    found = _WRITTEN.fullmatch(text)
    return found[2] if found and not found[1] else None


def plain(text: str) -> str:
    """Return a text that is no placeholder as it is sent: `<<eos>` stands for `<eos>`."""
    return _DOUBLED.sub(r"\1", text)


def _texts(value: Any, at: tuple[Step, ...] = ()) -> Iterator[tuple[tuple[Step, ...], str]]:
    """Yield every text inside a template, and the way to it."""
    if isinstance(value, str):
        yield at, value
    elif isinstance(value, dict):
        for key, child in value.items():
            yield from _texts(child, (*at, key))
    elif isinstance(value, list):
        for place, child in enumerate(value):
            yield from _texts(child, (*at, place))


def _template(body: Any) -> Any:
    if not isinstance(body, dict | list):
        raise ValueError("must be a mapping or a list")  # noqa: TRY004 - pydantic makes a complaint of this one only
    prompts = 0
    for at, text in _texts(body):
        name = placeholder_in(text)
        if name is None:
            _demand_plain(at, text)
        elif name not in PLACEHOLDERS:
            raise FaultAt(at, f"must be a placeholder that there is, or plain text: {_unknown(text)}")
        elif name == PROMPT:
            prompts += 1
            if prompts > 1:
                raise FaultAt(at, "must not be a second `<prompt>`: the user's text goes to one place")
    if not prompts:
        raise ValueError("must hold `<prompt>` as the value where the user's text goes")
    try:
        orjson.dumps(body)
    except orjson.JSONEncodeError as exc:  # an integer of more than 64 bits, or 254 levels
        raise ValueError(f"must be what JSON can say: {exc}") from exc
    return body


def _unknown(text: str) -> str:
    near = did_you_mean(text, [f"<{name}>" for name in PLACEHOLDERS])
    return f"no {shown(text)}{near} (write {shown(f'<{text}')} to send that text)"


def _demand_plain(at: tuple[Step, ...], text: str) -> None:
    for found in _WRITTEN.finditer(text):
        if not found[1] and found[2] in PLACEHOLDERS:
            raise FaultAt(at, f"must be `{found[0]}` alone: inside other text nothing is filled in")


def _url_path(path: str) -> str:
    if not _URL_PATH.fullmatch(path):
        raise ValueError("must begin with `/`, and have neither spaces nor `#`, such as /classify")
    return path


def _answer_path(path: str) -> str:
    if path != WHOLE and not all(path.split(".")):
        raise ValueError("must name members with a `.` between them, such as result.text; `.` is the whole body")
    return path


AnswerPath = Annotated[str, AfterValidator(_answer_path)]


class CustomSettings(Strict):
    """How a server of one's own is asked, and where its answer stands.

    Paths go through objects by name and through lists by position, from 0: `choices.0.text`.
    """

    method: Literal["POST", "PUT"] = Field(default="POST", description="of the request")
    path: Annotated[str, AfterValidator(_url_path)] = Field(
        description="where it is asked, from the root in `url`", examples=["/classify"]
    )
    body: Annotated[dict[str, Any] | list[Any], BeforeValidator(_template)] = Field(
        description="the request's JSON. A value that is `<prompt>` (needed, once), `<system>`, `<schema>` (null for a "
        "text answer), `<model>`, `<max_tokens>` or `<temperature>` is filled in and keeps its JSON type; what has "
        "no place here is not sent, the system prompt too; `<<eos>` stands for the text `<eos>`",
        examples=[{"text": "<prompt>", "instructions": "<system>", "limit": "<max_tokens>"}],
    )
    answer: AnswerPath = Field(
        description="path to the answer in a 200: a text, or an object that is the answer by schema; `.` is the whole "
        "body",
        examples=["result.text"],
    )
    finish_reason: AnswerPath | None = Field(
        default=None, description="path to why the model stopped; `length` says that the answer was cut"
    )
    model: AnswerPath | None = Field(default=None, description="path to the name of the model that answered")
    input_tokens: AnswerPath | None = Field(default=None, description="path to the tokens read")
    output_tokens: AnswerPath | None = Field(default=None, description="path to the tokens written")
