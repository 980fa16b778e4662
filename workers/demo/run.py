"""`penstock demo` from end to end: start everything, play, stop the worker, and account for every record."""

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from workers.audit import judge
from workers.audit.task_rules import rules_of
from workers.clock import monotonic_s
from workers.demo import report
from workers.demo.broker import EmbeddedBroker
from workers.demo.deployment import PARTITIONS, TASK, Deployment, deploy
from workers.demo.figures import latencies, outage
from workers.demo.play import Play
from workers.demo.processes import SimulatedModel
from workers.demo.real_model import check_answers
from workers.demo.samples import samples
from workers.demo.screen import Screen
from workers.demo.sightings import CLOSED, OPENED
from workers.demo.summary import Summary
from workers.demo.tickets import Ticket, load_tickets
from workers.demo.worker_process import WorkerProcess
from workers.errors import Exit
from workers.stream import readback, topic_admin

LIMIT_S = 60.0
REAL_MODEL_LIMIT_S = 300.0
REAL_MODEL_TICKETS = 150
DRAINED_WITHIN_S = 15.0
FAILED = 1
LOG = "worker.log"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the command line asks for; None: embedded, simulated. `model` is what the server at `model_url` calls it."""

    bootstrap_servers: str | None = None
    model_url: str | None = None
    model: str | None = None


def demo(wishes: Wishes, console: Console) -> Summary:
    """Run the demo and return its summary, with what went wrong; nothing that it started is left when it returns.

    Raises:
        KeyboardInterrupt: Ctrl-C; nothing is left then either.
    """
    began_s = monotonic_s()
    tickets = load_tickets()[: REAL_MODEL_TICKETS if wishes.model_url else None]
    summary = Summary(
        broker=f"{wishes.bootstrap_servers} (yours)" if wishes.bootstrap_servers else report.EMBEDDED,
        model=f"{wishes.model} at {wishes.model_url} (yours)" if wishes.model_url else report.SIMULATED,
        simulated=[*([] if wishes.bootstrap_servers else ["broker"]), *([] if wishes.model_url else ["model"])],
        records=len(tickets),
    )
    console.print(report.opening(summary))
    with _folder(summary) as folder:
        try:
            _perform(wishes, console, folder, tickets, summary)
        except Exit as error:
            summary.fail(str(error), error.code)
        summary.seconds = monotonic_s() - began_s
        report.closing(console, summary, folder / LOG)
    return summary


@contextmanager
def _folder(summary: Summary) -> Iterator[Path]:
    """Make a folder for the configuration and the worker's log; it stays when there is a log to look into."""
    folder = Path(tempfile.mkdtemp(prefix="penstock-demo-"))
    try:
        yield folder
    finally:
        if not (summary.problems and (folder / LOG).exists()):
            shutil.rmtree(folder)


def _perform(wishes: Wishes, console: Console, folder: Path, tickets: list[Ticket], summary: Summary) -> None:
    """Start broker and model, run the demo between them, and end them."""
    with ExitStack() as started, Screen(console) as screen:
        screen.say("starting")
        broker = None if wishes.bootstrap_servers else started.enter_context(EmbeddedBroker())
        model = None if wishes.model_url else started.enter_context(SimulatedModel())
        deployment = deploy(
            folder,
            bootstrap_servers=broker.bootstrap_servers if broker else wishes.bootstrap_servers or "",
            url=model.url if model else wishes.model_url or "",
            real_broker=broker is None,
            real_model=wishes.model if model is None else None,
        )
        stage = Stage(deployment, broker, model, tickets, screen, folder / LOG)
        asyncio.run(_in_time(_run(stage, summary), LIMIT_S if model else REAL_MODEL_LIMIT_S))


async def _in_time(work: Awaitable[None], limit_s: float) -> None:
    try:
        async with asyncio.timeout(limit_s):
            await work
    except TimeoutError as exc:
        raise Exit(FAILED, f"not finished within {limit_s:g} s") from exc


@dataclass(frozen=True, slots=True)
class Stage:
    """What a run runs on. `broker` and `model` are None when they are not ours."""

    deployment: Deployment
    broker: EmbeddedBroker | None
    model: SimulatedModel | None
    tickets: list[Ticket]
    screen: Screen
    log: Path


async def _run(stage: Stage, summary: Summary) -> None:
    """Play, then account for every record from what the broker has."""
    deployment, screen = stage.deployment, stage.screen
    if stage.model is None:
        await check_answers(deployment.settings)
        screen.say("the model answers; it is not made to fail, so the outage is left out")
    await _create_topics(stage)
    with WorkerProcess(deployment.config, stage.log) as worker:
        await worker.started()
        screen.say("the worker has joined its group")
        play = Play(deployment, worker, stage.model, stage.tickets, screen)
        await play.run()
        summary.lag = play.lag
        screen.say(f"the group's lag is {play.lag}; the worker is asked to stop")
        code = await worker.stop(DRAINED_WITHIN_S)
        screen.say(f"the worker has stopped with exit code {code}; reading every topic back")
    await _account(stage, worker, summary)
    if code:
        summary.fail(f"the worker stopped with exit code {code}")
    if summary.lag != 0:
        summary.fail(f"the group's lag is {summary.lag} and not 0")
    if stage.model is not None:
        for what in play.sightings.missing():
            summary.fail(what)


async def _create_topics(stage: Stage) -> None:
    specs = stage.deployment.specs()
    if stage.broker is None:
        await topic_admin.create(stage.deployment.kafka, specs, replication_factor=-1)  # -1: the broker's default
        stage.screen.say(f"created the topic {stage.deployment.input} and its outputs; they stay")
        return
    for spec in specs:
        stage.broker.create_topic(spec.name, spec.partitions)


async def _account(stage: Stage, worker: WorkerProcess, summary: Summary) -> None:
    """Read every topic back and compare."""
    deployment = stage.deployment
    topics = dict.fromkeys([deployment.input, *deployment.outputs.values()], PARTITIONS)
    read = await readback.read_topics(deployment.kafka, topics)
    outputs = {kind: read[name] for kind, name in deployment.outputs.items()}
    verdict = summary.verdict = judge(
        read[deployment.input], outputs, rules=rules_of(deployment.settings, TASK, over=True)
    )
    for problem in verdict.broken():
        summary.fail(problem)
    if verdict.inputs != len(stage.tickets):
        summary.fail(f"{verdict.inputs} records are in the input topic, {len(stage.tickets)} were written")
    summary.latencies = latencies(outputs)
    summary.samples = samples(outputs)
    opened, closed = [*worker.logged(OPENED)], [*worker.logged(CLOSED)]
    if stage.model is not None and opened and closed:
        summary.outage = outage(outputs, opened_at_s=opened[0]["at_s"], closed_at_s=closed[-1]["at_s"])
        for problem in summary.outage.problems():
            summary.fail(problem)
