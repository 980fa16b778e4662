"""`penstock audit CONFIG`: has every record its outcome? Reads topics and commits; a worker may run meanwhile."""

import asyncio
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress as Bars

from topics.spec import KINDS
from workers import log
from workers.audit.reading import Place, Progress
from workers.audit.reading import audit as judged
from workers.audit.task_rules import rules_of
from workers.cli.audit_report import Audited, as_table, findings
from workers.cli.configuration import Config, impatient, read_or_exit
from workers.cli.findings import failed
from workers.errors import EX_CONFIG, Exit
from workers.settings.model import Settings
from workers.stream import topic_admin
from workers.stream.topic_admin import TopicState
from workers.task import output_topics

PLAIN_WIDTH = 120


def audit(
    config: Config,
    *,
    task: Annotated[str | None, typer.Option(metavar="NAME", help="Only this task.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
) -> None:
    """Read input topics, outputs and the group's commits, and say what became of every record.

    Nothing is joined, committed or produced; workers may run meanwhile, and what they are at counts as waiting. For
    each partition: records; finished; waiting (not finished yet, which is no fault); missing (committed, and no
    outcome: a loss); doubled (more than one outcome, as a crash may leave them: no fault); out of order; altered;
    invalid; past the commit (finished, and to be done again if all workers died now). Exit codes: 0 nothing is wrong, 1
    something is, with the first records and what to do; 78 errors in the configuration, a missing topic or right; 69 no
    broker.

    Example: penstock audit config/pipelines/tickets.yaml --task ticket_triage
    """
    loaded = read_or_exit(config)
    settings = loaded.settings
    if task is not None and task not in settings.tasks:
        raise typer.BadParameter(f"no task is called `{task}`; known here: {', '.join(settings.tasks)}")
    try:
        with log.silenced(), _bars(quiet=json_ or not sys.stderr.isatty()) as progress:
            found = asyncio.run(look(settings, [task] if task else [*settings.tasks], progress))
    except Exit as exc:
        print(loaded.redactor.text(str(exc)), file=sys.stderr)
        raise typer.Exit(exc.code) from exc
    ok = not any(failed(findings(one)) for one in found)
    if json_:
        print(json.dumps({"config": str(config), "ok": ok, "topics": [one.as_json() for one in found]}))
    else:
        _print(found)
    if not ok:
        raise typer.Exit(1)


async def look(settings: Settings, tasks: Sequence[str], progress: Progress | None) -> list[Audited]:
    """Return the verdict over each input topic of these tasks.

    Raises:
        Exit: 78, a topic is missing or a right; 69, no broker answers.
    """
    kafka = impatient(settings.kafka)
    pairs = [(name, topic) for name in tasks for topic in settings.tasks[name].input]
    outputs = {(name, topic): output_topics(topic, name, settings.tasks[name]) for name, topic in pairs}
    names = {topic for _, topic in pairs} | {one for out in outputs.values() for one in out.names()}
    states = await topic_admin.describe(kafka, names)
    if missing := sorted(names - states.keys()):
        raise Exit(EX_CONFIG, f"no such topic, or this user may not DESCRIBE it: {', '.join(missing)}")
    found = []
    for name, topic in pairs:
        where = {kind: getattr(outputs[name, topic], kind) for kind in KINDS}
        place = Place(
            topic=topic,
            outputs=where,
            retry=outputs[name, topic].retry,
            partitions={one: states[one].partitions for one in (topic, *outputs[name, topic].names())},
            compacted=frozenset(_compacted(states)),
        )
        verdict = await judged(kafka, place, rules_of(settings, name, over=False), progress=progress)
        untold = [one for one in (topic, *where.values()) if states[one].cleanup_policy is None]
        found.append(Audited(task=name, topic=topic, verdict=verdict, untold=untold, latest=kafka.start == "latest"))
    return found


def _compacted(states: dict[str, TopicState]) -> Iterator[str]:
    return (name for name, state in states.items() if "compact" in (state.cleanup_policy or ""))


@contextmanager
def _bars(*, quiet: bool) -> Iterator[Progress | None]:
    """Show how far each topic is read, on stderr, while it lasts."""
    if quiet:
        yield None
        return
    with Bars(console=Console(stderr=True), transient=True) as bars:
        shown = {}

        def progress(topic: str, done: int, total: int) -> None:
            if topic not in shown:
                shown[topic] = bars.add_task(topic, total=total)
            bars.update(shown[topic], completed=done)

        yield progress


def _print(found: Sequence[Audited]) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    for one in found:
        console.print(as_table(one))
        for finding in findings(one):
            console.print(str(finding), markup=False, soft_wrap=True)
        console.print()
