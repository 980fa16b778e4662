"""What `penstock try` found out about a record: plain values for programs, text for people."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.text import Text

from workers.errors import (
    EX_CONFIG,
    EX_UNAVAILABLE,
    BadAnswer,
    Busy,
    Misconfigured,
    NoAnswer,
    NotSelected,
    PenstockError,
    QuotaSpent,
    Unavailable,
)
from workers.log.redact import Redactor
from workers.outcome import Deferred, Enriched, Fallback, Outcome, Rejected
from workers.records import Outgoing, Prompt, Reply
from workers.settings.rungs import ModelRung
from workers.settings.servers import ModelSettings
from workers.task import Task

_NOT_ENRICHED = 1
_STEP_WIDTH = 10


@dataclass(slots=True, kw_only=True)
class Trial:
    """How far a record came. `outcome` None: the worker would hold the record until the model can be asked.

    `task` is the task on the model that is asked, `place` that of the endpoint among the model's. `endpoint`: as it is
    called, empty when none was asked. `todo`: advice for the person. `asks_again`: how the worker would ask the model
    once more before the ladder answers.
    """

    task: Task
    model: ModelSettings
    place: int = 0
    endpoint: str = ""
    system: str = ""
    prompt: Prompt | None = None
    reply: Reply | None = None
    failure: PenstockError | None = None
    asks_again: str | None = None
    todo: str = ""
    outcome: Outcome | None = None
    outgoing: list[Outgoing] = field(default_factory=list)


def exit_code(trial: Trial) -> int:
    """Return 0 when the model's answer is good, 78 or 69 when it gave none, 1 for all else."""
    if isinstance(trial.outcome, Enriched):
        return 0
    if isinstance(trial.failure, Misconfigured):
        return EX_CONFIG
    return EX_UNAVAILABLE if isinstance(trial.failure, Unavailable) else _NOT_ENRICHED


def as_plain(trial: Trial, redactor: Redactor) -> dict[str, Any]:
    """Return the trial as JSON values, secrets hidden; long texts are shortened in the middle."""
    reply, outcome = trial.reply, trial.outcome
    plain = {
        "task": trial.task.name,
        "outcome": _outcome_name(outcome),
        "prompt_version": trial.task.prompt_version,
        "asked": {"model": trial.task.model.name, "endpoint": trial.endpoint} if trial.endpoint else None,
        "system": trial.system,
        "user": trial.prompt.text if trial.prompt else None,
        "cut": [asdict(one) for one in trial.prompt.cut] if trial.prompt else [],
        "reply": _reply(reply) if reply else None,
        "repairs": list(reply.repairs) if reply else [],
        "failure": _failure(trial) if trial.failure else None,
        "tier": "model" if isinstance(outcome, Enriched) else outcome.tier if isinstance(outcome, Fallback) else None,
        "rung": _place(outcome, trial.task) if isinstance(outcome, Fallback) else None,
        "enrichment": outcome.enrichment if isinstance(outcome, Enriched | Fallback) else None,
        "deferral": _deferral(outcome, trial) if isinstance(outcome, Deferred) else None,
        "produced": [_outgoing(one) for one in trial.outgoing],
    }
    return {name: _hidden(value, redactor) for name, value in plain.items()}


def _outcome_name(outcome: Outcome | None) -> str:
    names = {Enriched: "enriched", Fallback: "fallback", Rejected: "rejected", Deferred: "deferred"}
    return names.get(type(outcome), "held")


def _deferral(outcome: Deferred, trial: Trial) -> dict[str, Any]:
    settings = trial.task.settings
    [outgoing] = trial.outgoing
    return {
        "topic": outgoing.topic,
        "retry_delay_s": settings.retry_delay_s,
        "nth": outcome.deferrals,
        "max_deferrals": settings.max_deferrals,
    }


def _place(outcome: Fallback, task: Task) -> int | None:
    """Return the rung's place in the configuration's ladder, None when no rung was asked."""
    places = [place for place, rung in enumerate(task.settings.ladder) if not isinstance(rung, ModelRung)]
    return places[outcome.rung] if outcome.rung < len(places) else None


def _reply(reply: Reply) -> dict[str, Any]:
    names = ("text", "model", "endpoint", "finish_reason", "input_tokens", "output_tokens", "latency_s")
    return {name: getattr(reply, name) for name in names}


def _failure(trial: Trial) -> dict[str, Any]:
    error = trial.failure or PenstockError()
    raw = error.raw if isinstance(error, BadAnswer) else ""
    first = _first(trial)
    return {
        "stage": error.stage,
        "reason": error.reason,
        "what": str(error),
        "raw": raw,
        "todo": trial.todo,
        "worker_would_first": first,
    }


def _first(trial: Trial) -> list[str]:
    """Return what the worker would do before the ladder's fixed answers: `try` makes one call only."""
    would = []
    if trial.asks_again:
        would.append(f"ask the model once more ({trial.asks_again})")
    within = f"within deadline_s {trial.task.settings.deadline_s:g}"
    if isinstance(trial.failure, Busy):
        would.append(f"try again when the endpoint has cooled down, {within}")
    elif isinstance(trial.failure, QuotaSpent):
        would += ["ask its other endpoints"] if len(trial.model.all_endpoints()) > 1 else []
    elif isinstance(trial.failure, Unavailable) and trial.failure.retryable and trial.model.max_attempts > 1:
        would.append(f"try again, up to {trial.model.max_attempts} calls {within}")
    if isinstance(trial.failure, NoAnswer) and not isinstance(trial.failure, Misconfigured | NotSelected):
        below = trial.task.next_model
        while below is not None:
            would.append(f"ask {below.model.name} (to try it: --model {below.model.name})")
            below = below.next_model
    return would


def _outgoing(outgoing: Outgoing) -> dict[str, Any]:
    headers = {name: None if value is None else _text(value) for name, value in outgoing.headers}
    return {
        "topic": outgoing.topic,
        "key": None if outgoing.key is None else _text(outgoing.key),
        "headers": headers,
        "value": None if outgoing.value is None else _text(outgoing.value),
    }


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _hidden(value: Any, redactor: Redactor) -> Any:
    if isinstance(value, dict):
        return {redactor.text(str(name)): _hidden(inner, redactor) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_hidden(inner, redactor) for inner in value]
    return redactor.text(value) if isinstance(value, str) else value


def show(plain: Mapping[str, Any]) -> None:
    """Print what `as_plain` returned, step by step."""
    console = Console(soft_wrap=True, highlight=False)
    for step, what, detail in steps(plain):
        console.print(
            Text.assemble((f"{step:{_STEP_WIDTH}}", "bold"), (what, "red" if what.startswith("FAILED") else ""))
        )
        for line in detail.split("\n") if detail else ():
            console.print(Text(f"  {_printable(line)}"))


def steps(plain: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield each step as its name, one line, and a text below it."""
    failure, reply = plain["failure"], plain["reply"]
    if plain["user"] is not None:
        yield "system", f"prompt version {plain['prompt_version']}", plain["system"]
        for one in plain["cut"]:
            yield "cut", _shortening(one), ""
        yield "user", "", plain["user"]
    if plain["asked"]:
        yield "asked", _printable(f"model {plain['asked']['model']} at {plain['asked']['endpoint']}"), ""
    if reply:
        yield "reply", _described(reply), reply["text"]
    if failure:
        yield (
            failure["stage"],
            _printable(f"FAILED {failure['reason']}: {failure['what']}"),
            failure["raw"] if not reply else "",
        )
        if failure["todo"]:
            yield "", f"to do: {failure['todo']}", ""
        if failure["worker_would_first"]:
            yield "", f"before the outcome below the worker would {', then '.join(failure['worker_would_first'])}", ""
    yield "outcome", _ending(plain), "" if plain["enrichment"] is None else _pretty(plain["enrichment"])
    for one in plain["produced"]:
        headers = "".join(f"{name}: {value}\n" for name, value in one["headers"].items())
        yield "produced", f"to {one['topic']}, key {json.dumps(one['key'])}", headers + _as_read(one["value"])


def _shortening(cut: Mapping[str, Any]) -> str:
    counted = "estimated " if cut["counted"] == "estimate" else ""
    kept = f"{cut['kept_chars']} of {cut['of_chars']} characters ({counted}{cut['kept_tokens']} tokens)"
    return _printable(f"{cut['field']}: the model sees {kept}, keep {cut['keep']}")


def _described(reply: Mapping[str, Any]) -> str:
    tokens = f"{reply['input_tokens']}+{reply['output_tokens']} tokens"
    ending = f"finish_reason {reply['finish_reason'] or 'missing'}"
    return _printable(f"{reply['latency_s']:.2f} s, {tokens}, {ending}; {reply['model']} at {reply['endpoint']}")


def _ending(plain: Mapping[str, Any]) -> str:
    match plain["outcome"]:
        case "enriched":
            dug = f", repaired ({', '.join(plain['repairs'])})" if plain["repairs"] else ""
            return f"enriched: the model's answer is good{dug}"
        case "fallback":
            by = "the model is not asked" if plain["rung"] is None else f"ladder[{plain['rung']}] answers"
            return f"fallback: {by}, tier {plain['tier']}"
        case "deferred":
            to = plain["deferral"]
            nth = f"deferral {to['nth']} of {to['max_deferrals']} before the ladder answers"
            return f"deferred: for {to['retry_delay_s']:g} s to {to['topic']}, {nth}"
        case "held":
            return "held: the worker would wait for the model, and produce nothing"
    return "rejected: a dead letter"


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _as_read(value: str | None) -> str:
    if value is None:
        return "null"
    try:
        return _pretty(json.loads(value))
    except ValueError:
        return value


def _printable(text: str) -> str:
    """Return a line that no terminal obeys: what is not printable is written as an escape."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
