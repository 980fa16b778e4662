"""What the dry run says of models: each endpoint is asked as a task asks, and the answer judged as its own.

For an answer by schema there is a second question: whether the server enforces it (dry_run_schema).
"""

from collections.abc import Iterator, Mapping

import orjson

from workers.cli.dry_run_schema import enforcement
from workers.cli.findings import Finding, State
from workers.errors import (
    AnswerCut,
    AnswerUncertain,
    BadAnswer,
    BadEnvelope,
    Busy,
    ConnectFailed,
    ConnectionLost,
    Declined,
    Misconfigured,
    NoAnswer,
    Overloaded,
    QuotaSpent,
    ServerFault,
    TimedOut,
)
from workers.llm import Card, Client
from workers.records import Reply
from workers.settings.model import Settings, TaskSettings
from workers.settings.servers import ModelSettings
from workers.settings.slots import slots_of
from workers.stages.s4_parse import parse
from workers.task import Task, ask_of, compile_task

_SLOW_RATIO = 0.5
"""A lone call that takes more than half of `timeout_s` leaves no room for the tail under load."""

_ADVICE: tuple[tuple[type[NoAnswer], str], ...] = (
    (TimedOut, "raise {at}.timeout_s; or try again: a first call may load the model or compile the schema"),
    (ConnectFailed, "start the server, or mend {url} (host, port, http or https) or {at}.ca_file"),
    (ConnectionLost, "mend {url}: is a model server at this port, and does it speak http or https?"),
    (BadEnvelope, "mend {url} and {dialect}: what answers here is no model server, or a proxy before it"),
    (Overloaded, "wait until the server has loaded its model and has room, then try again"),
    (QuotaSpent, "pay for the account behind {at}.api_key, or raise its limit"),
    (Busy, "try again when the server has room, or raise its limit for this key"),
    (ServerFault, "look at the server's own log"),
    (Declined, "mend {at}.max_tokens, {dialect} or the answer schema: the server refuses the request itself"),
    (AnswerCut, "raise {at}.max_tokens"),
    (AnswerUncertain, "lower the task's answer.confidence.at_least, or use a larger model"),
    (BadAnswer, "mend {dialect}, or use a server and model that keep to a JSON Schema"),
)
"""By class of error, the first that fits."""

_MISCONFIGURED = (
    ("API key", "mend {at}.api_key"),
    ("does not have the configured model", "mend {at}.model: it is the name under which this server knows it"),
    ("strict_model is set", "mend {at}.model, or load that model: the server answers with another one"),
    ("redirects", "mend {url}: write the address that the redirect leads to"),
    ("", "mend {url}: the root of the server, such as http://host:8000; and {dialect}"),
)
"""By what the error's text begins to say (workers/llm/status.py), the first that fits."""


async def model_findings(settings: Settings, name: str, task: TaskSettings) -> list[Finding]:
    """Return one finding for each endpoint of each of a task's models. Asks them, one after the other.

    An answer that says itself that it is unsure is `unknown`: it was an answer to no record.
    """
    return [
        await _asked(name, task, (called, model), place)
        for called in task.all_models()
        for model in [settings.models[called]]
        for place in range(len(model.all_endpoints()))
    ]


async def _asked(name: str, task: TaskSettings, of: tuple[str, ModelSettings], place: int) -> Finding:
    called, model = of
    endpoint = model.all_endpoints()[place]
    about = f"model {called} at {endpoint.url} for {name}"
    # A client probes the first of its endpoints: each gets a client of its own.
    only = model.with_endpoints([endpoint])
    client = Client(called, only)
    compiled = compile_task(name, task, client, only)
    ask = ask_of(name, task, only)
    await client.start()
    try:
        reply = await client.probe(ask)
        parse(reply, compiled)
        said = [*remarks(reply, compiled, only)]
        if compiled.check is not None:
            said.append(await enforcement(client, ask, compiled.check))
        said += of_the_server(await client.card(), only)
    except NoAnswer as error:
        state: State = "unknown" if isinstance(error, AnswerUncertain) else "failed"
        todo = advice(error, setting_names(called, model, place))
        return Finding(about=about, state=state, what=_what(error), todo=todo)
    finally:
        await client.close()
    return Finding(about=about, state="ok", what="; ".join(said))


def _what(error: NoAnswer) -> str:
    if isinstance(error, BadAnswer) and not isinstance(error, AnswerCut):
        return f"it answers, and the answer is of no use ({error.reason}): {error}"
    return str(error)


def setting_names(name: str, model: ModelSettings, place: int) -> dict[str, str]:
    """Return how the settings of the model and the URL of its endpoint are called."""
    at = f"models.{name}"
    return {
        "at": at,
        "url": f"{at}.url" if model.url else f"{at}.endpoints[{place}].url",
        "dialect": f"{at}.custom" if model.custom else f"{at}.dialect",
    }


def advice(error: NoAnswer, names: Mapping[str, str]) -> str:
    """Return what to do about an error of a probe. `names`: of settings, as the texts above hold them."""
    if isinstance(error, Misconfigured):
        meaning = str(error).partition("; it says")[0]
        return next(todo for words, todo in _MISCONFIGURED if words in meaning).format(**names)
    return next((todo for kind, todo in _ADVICE if isinstance(error, kind)), "look at the server").format(**names)


def remarks(reply: Reply, task: Task, model: ModelSettings) -> Iterator[str]:
    """Yield what is worth knowing of an answer that was good."""
    tokens = f", {reply.input_tokens}+{reply.output_tokens} tokens" if reply.input_tokens else ""
    yield f"answers in {reply.latency_s:.2f} s (timeout_s {model.timeout_s:g}){tokens}"
    if reply.latency_s > _SLOW_RATIO * model.timeout_s:
        yield "more than half of timeout_s for one lone call: under load many will time out"
    if reply.finish_reason != "stop" and not (model.custom and model.custom.finish_reason is None):
        yield f"finish_reason {reply.finish_reason or 'missing'}"
    if task.check is not None:
        yield "the answer is JSON by the schema" if _is_json(reply.text) else "the JSON had to be repaired first"
    if reply.model and reply.model != model.model:
        yield f"the server calls the model `{reply.model}`"


def of_the_server(card: Card, model: ModelSettings) -> Iterator[str]:
    """Yield what is worth knowing of what the server says of itself."""
    if card.context_tokens is not None:
        yield f"a context of {card.context_tokens:,} tokens for prompt and answer (max_tokens {model.max_tokens})"
    if card.slots is not None:
        yield f"it works on {card.slots} requests at a time{_too_few(card.slots, model)}"
    if card.running is not None and card.waiting is not None:
        yield f"now it runs {card.running} requests, and {card.waiting} wait"


def _too_few(server_slots: int, model: ModelSettings) -> str:
    slots = slots_of(model)
    if server_slots >= slots or model.finds_slots:
        return ""
    return f", fewer than max_in_flight {slots}: the others wait there, or are refused"


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True
