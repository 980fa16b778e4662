"""`penstock try CONFIG --record FILE`: one record through the stages, with one call and without Kafka."""

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from workers import clock, log
from workers.cli.configuration import Config, read_or_exit
from workers.cli.dry_run_models import advice, setting_names
from workers.cli.try_report import Trial, as_plain, exit_code, show
from workers.errors import EX_CONFIG, BadAnswer, Exit, Misconfigured, NoAnswer, NotSelected, Reject, Unavailable
from workers.ladder import descend
from workers.llm import Client
from workers.outcome import Deferred, Enriched, Outcome, Rejected
from workers.pipeline import next_best, unasked
from workers.records import Outgoing, Passage, Record, Request, Spent
from workers.second_ask import second_ask
from workers.settings.model import Settings
from workers.settings.problems import shown
from workers.settings.servers import ModelSettings
from workers.stages.s1_decode import decode
from workers.stages.s2_prompt import build
from workers.stages.s3_call import holds, may_defer
from workers.stages.s4_parse import parse
from workers.stages.s5_route import route
from workers.task import Task, ask_of, compile_task


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which of a task's models is asked, and at which of its endpoints (place from 0, or URL); None: as the worker."""

    model: str | None = None
    endpoint: str | None = None


AS_THE_WORKER = Wanted()


def try_record(  # noqa: PLR0913 - a verb's options are its arguments
    config: Config,
    *,
    record: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="The record's value; `-` reads stdin. One line end at its end is no part of it.",
            show_default=False,
        ),
    ],
    task: Annotated[str | None, typer.Option(metavar="NAME", help="Needed when there are several tasks.")] = None,
    key: Annotated[str | None, typer.Option(metavar="K", help="The record's key; none when left out.")] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Ask this one of the task's models; else the one asked first.")
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(metavar="N|URL", help="Ask this endpoint of it, by place from 0 or URL; else the first."),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Send one record through a task, and show each step: prompt, reply, answer, and what would be produced.

    Makes one call, to the first endpoint of the model that this record is sent to first (or as --model and --endpoint
    say), and touches no Kafka. When a step fails: which one, why, and which rung of the ladder would answer with what,
    or that the worker would defer the record or hold it. Long texts are shortened in the middle. Exit codes: 0 the
    model's answer is good, 1 it is not, or the record or its output was refused; 78 errors in the configuration, or the
    model refuses it (key, name, path); 69 the model cannot be reached.

    Example: echo '{"subject": "Refund?"}' | penstock try config/pipelines/tickets.yaml --record -
    """
    loaded = read_or_exit(config)
    name = _task_name(loaded.settings, task)
    if model is not None and model not in (known := loaded.settings.tasks[name].all_models()):
        raise typer.BadParameter(f"task {name} asks no model `{model}`; known here: {', '.join(known)}")
    value = _read(record)
    try:
        with log.silenced():
            trial = asyncio.run(course(loaded.settings, name, value, key, Wanted(model=model, endpoint=endpoint)))
    except Exit as exc:
        print(loaded.redactor.text(str(exc)), file=sys.stderr)
        raise typer.Exit(exc.code) from exc
    plain = as_plain(trial, loaded.redactor)
    if json_:
        print(json.dumps(plain))
    else:
        show(plain)
    raise typer.Exit(exit_code(trial))


def _task_name(settings: Settings, wanted: str | None) -> str:
    names = ", ".join(settings.tasks)
    if wanted is None and len(settings.tasks) > 1:
        raise typer.BadParameter(f"there are several tasks, choose one with --task: {names}")
    if wanted is not None and wanted not in settings.tasks:
        raise typer.BadParameter(f"no task is called `{wanted}`; known here: {names}")
    return wanted or next(iter(settings.tasks))


def _read(file: Path) -> bytes:
    try:
        value = sys.stdin.buffer.read() if file == Path("-") else file.read_bytes()
    except OSError as exc:
        raise typer.BadParameter(f"{shown(file)} cannot be read: {exc.strerror}", param_hint="--record") from exc
    return value.removesuffix(b"\n").removesuffix(b"\r")


async def course(settings: Settings, name: str, value: bytes, key: str | None, wanted: Wanted = AS_THE_WORKER) -> Trial:
    """Return how far the record comes in the task, and what would be produced for it.

    Raises:
        Exit: 78, what a check of the configuration does not find (a Python rule that cannot be imported).
        typer.BadParameter: the model that is asked has no such endpoint.
    """
    task = _compiled(settings, name)
    record = Record(
        topic=task.settings.input[0],
        partition=0,
        offset=0,
        timestamp_ms=int(clock.wall_s() * 1000),
        key=None if key is None else key.encode("utf-8", "surrogateescape"),
        value=value,
        headers=(),
    )
    trial = Trial(task=task, model=settings.models[task.model.name])
    outcome = await _outcome(trial, record, settings, wanted)
    if outcome is not None:
        trial.outcome, trial.outgoing = produced(record, outcome, task)
    if isinstance(trial.outcome, Rejected):
        trial.failure = trial.outcome.error
    if isinstance(trial.failure, NoAnswer) and not isinstance(trial.failure, NotSelected):
        trial.todo = advice(trial.failure, setting_names(trial.task.model.name, trial.model, trial.place))
    return trial


def _compiled(settings: Settings, name: str) -> Task:
    one = settings.tasks[name]
    served = {called: (Client(called, settings.models[called]), settings.models[called]) for called in one.all_models()}
    client, model = served.pop(one.model)
    try:
        return compile_task(name, one, client, model, others=served)
    except ValueError as exc:
        raise Exit(EX_CONFIG, str(exc)) from exc


def _on(task: Task, model: str) -> Task:
    """Return the task as it stands on one of its models, wherever in its ladder or its routes that is."""
    firsts = (task, *(routed for _, routed in task.routes))
    for first in firsts:
        below: Task | None = first
        while below is not None:
            if below.model.name == model:
                return below
            below = below.next_model
    raise KeyError(model)


def _place(model: ModelSettings, endpoint: str | None) -> int:
    """Return the place of an endpoint among its model's."""
    urls = [one.url.rstrip("/") for one in model.all_endpoints()]
    known = [*urls, *(str(place) for place in range(len(urls)))]
    if endpoint is None:
        return 0
    if endpoint.rstrip("/") not in known:
        raise typer.BadParameter(f"the model that is asked has no endpoint {shown(endpoint)}; its: {', '.join(urls)}")
    return known.index(endpoint.rstrip("/")) % len(urls)


async def _outcome(trial: Trial, record: Record, settings: Settings, wanted: Wanted) -> Outcome | None:
    """Return the outcome as `pipeline.decide` would after one call; None when the worker would hold the record."""
    task = trial.task
    try:
        request = decode(record, task)
        if (passed_on := unasked(request, task)) is not None:
            trial.failure = passed_on.error
            return passed_on
        task = trial.task = _on(task, wanted.model) if wanted.model else task.for_value(request.value)
        trial.model = settings.models[task.model.name]
        trial.place = _place(trial.model, wanted.endpoint)
        trial.prompt = build(request, task)
    except Reject as error:
        return Rejected(error)
    endpoints = [trial.model.all_endpoints()[trial.place]]
    client = Client(task.model.name, trial.model.with_endpoints(endpoints))
    ask = ask_of(task.name, task.settings, trial.model)
    trial.system, trial.endpoint = ask.system, client.first_endpoint
    began_s = clock.monotonic_s()
    await client.start()
    try:
        trial.reply = await client.probe(ask, trial.prompt.text)
        trial.reply.cut = trial.prompt.cut
        return Enriched(parse(trial.reply, task), trial.reply)
    except NoAnswer as error:
        trial.failure, error.endpoint = error, client.first_endpoint
        return _without(error, request, trial, began_s)
    finally:
        await client.close()


def _without(error: NoAnswer, request: Request, trial: Trial, began_s: float) -> Outcome | None:
    """Return what the ladder says, or that the worker would defer the record; None when it would hold it.

    Note what it would do before that. Of the models below nothing is known: they count as away, too.
    """
    task = trial.task
    if isinstance(error, Misconfigured) or (isinstance(error, Unavailable) and holds(error, task, began_s)):
        return None
    if isinstance(error, BadAnswer) and trial.prompt and trial.reply:
        again = second_ask(trial.prompt, error, trial.reply, task)
        trial.asks_again = again[0] if again else None
    said = trial.reply or (error if isinstance(error, BadAnswer) else None)
    spent = Spent(1, said.input_tokens, said.output_tokens) if said else Spent(1)
    if may_defer(error, task, Passage(task.settings.deadline_s, stale_at_s=_stale_at_s(task, began_s))):
        return Deferred(error, 1, spent)
    return descend(task.ladder, request, error, spent=spent)


def _stale_at_s(task: Task, began_s: float) -> float | None:
    """Return when the record is too old: Kafka has it since now."""
    return None if task.settings.max_age_s is None else began_s + task.settings.max_age_s


def produced(record: Record, outcome: Outcome, task: Task) -> tuple[Outcome, list[Outgoing]]:
    """Return what would be produced, and the outcome that it belongs to: another one when the first has no output."""
    try:
        return outcome, route(record, outcome, task, {})
    except Reject as error:
        return produced(record, next_best(record, outcome, error, task), task)
