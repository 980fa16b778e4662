"""`penstock try CONFIG --record FILE`: one record through the stages, with one call and without Kafka."""

import asyncio
import json
import math
import sys
from pathlib import Path
from typing import Annotated

import typer

from workers import clock, log
from workers.cli.configuration import Config, read_or_exit
from workers.cli.dry_run_models import advice, setting_names
from workers.cli.try_report import Trial, as_plain, exit_code, show
from workers.errors import EX_CONFIG, BadAnswer, Exit, NoAnswer, NotSelected, Reject, Unavailable
from workers.ladder import descend
from workers.llm import Client
from workers.outcome import Enriched, Outcome, Rejected
from workers.pipeline import next_best, unasked
from workers.ports import Ask
from workers.records import Outgoing, Record, Request
from workers.second_ask import second_ask
from workers.settings.model import Settings
from workers.settings.problems import shown
from workers.stages.s1_decode import decode
from workers.stages.s2_prompt import build
from workers.stages.s3_call import patience
from workers.stages.s4_parse import parse
from workers.stages.s5_route import route
from workers.task import Task, ask_of, compile_task


def try_record(
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
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Send one record through a task, and show each step: prompt, reply, answer, and what would be produced.

    Makes one call, to the first endpoint of the task's model, and touches no Kafka. When a step fails: which one, why,
    and which rung of the ladder would answer with what. Long texts are shortened in the middle. Exit codes: 0 the
    model's answer is good, 1 it is not, or the record or its output was refused; 78 errors in the configuration, or
    the model refuses it (key, name, path); 69 the model cannot be reached.

    Example: echo '{"subject": "Refund?"}' | penstock try config/pipelines/tickets.yaml --record -
    """
    loaded = read_or_exit(config)
    name = _task_name(loaded.settings, task)
    value = _read(record)
    try:
        with log.silenced():
            trial = asyncio.run(course(loaded.settings, name, value, key))
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


async def course(settings: Settings, name: str, value: bytes, key: str | None) -> Trial:
    """Return how far the record comes in the task, and what would be produced for it.

    Raises:
        Exit: 78, what a check of the configuration does not find (a Python rule that cannot be imported).
    """
    client, task, ask = _compiled(settings, name)
    record = Record(
        topic=task.settings.input[0],
        partition=0,
        offset=0,
        timestamp_ms=int(clock.wall_s() * 1000),
        key=None if key is None else key.encode("utf-8", "surrogateescape"),
        value=value,
        headers=(),
    )
    trial = Trial(task=task, model=settings.models[task.settings.model], system=ask.system)
    await client.start()
    try:
        outcome = await _outcome(trial, record, client, ask)
    finally:
        await client.close()
    if outcome is not None:
        trial.outcome, trial.outgoing = produced(record, outcome, task)
    if isinstance(trial.outcome, Rejected):
        trial.failure = trial.outcome.error
    if isinstance(trial.failure, NoAnswer) and not isinstance(trial.failure, NotSelected):
        trial.todo = advice(trial.failure, setting_names(task.settings.model, trial.model, 0))
    return trial


def _compiled(settings: Settings, name: str) -> tuple[Client, Task, Ask]:
    one = settings.tasks[name]
    served = {called: (Client(called, settings.models[called]), settings.models[called]) for called in one.all_models()}
    client, model = served.pop(one.model)
    try:
        task = compile_task(name, one, client, model, others=served)
        ask = ask_of(name, one, model)
    except ValueError as exc:
        raise Exit(EX_CONFIG, str(exc)) from exc
    return client, task, ask


async def _outcome(trial: Trial, record: Record, client: Client, ask: Ask) -> Outcome | None:
    """Return the outcome as `pipeline.decide` would after one call; None when the worker would hold the record."""
    task = trial.task
    try:
        request = decode(record, task)
        if (passed_on := unasked(request, task)) is not None:
            trial.failure = passed_on.error
            return passed_on
        trial.prompt = build(request, task)
    except Reject as error:
        return Rejected(error)
    began_s = clock.monotonic_s()
    try:
        trial.reply = await client.probe(ask, trial.prompt.text)
        return Enriched(parse(trial.reply, task), trial.reply)
    except NoAnswer as error:
        trial.failure, error.endpoint = error, client.first_endpoint
        return _without(error, request, trial, began_s)


def _without(error: NoAnswer, request: Request, trial: Trial, began_s: float) -> Outcome | None:
    """Return what the ladder says, None when the worker would hold; note what the worker would do before that."""
    task = trial.task
    if isinstance(error, Unavailable) and patience(error, task, waited_s=0.0, began_s=began_s) == math.inf:
        return None
    if isinstance(error, BadAnswer) and trial.prompt and trial.reply:
        again = second_ask(trial.prompt, error, trial.reply, task)
        trial.asks_again = again[0] if again else None
    return descend(task.ladder, request, error, attempts=1)


def produced(record: Record, outcome: Outcome, task: Task) -> tuple[Outcome, list[Outgoing]]:
    """Return what would be produced, and the outcome that it belongs to: another one when the first has no output."""
    try:
        return outcome, route(record, outcome, task, {})
    except Reject as error:
        return produced(record, next_best(record, outcome, error, task), task)
