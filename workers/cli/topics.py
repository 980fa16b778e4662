"""`penstock topics create|check CONFIG`: the topics of a configuration, as they should be and as they are."""

import asyncio
import sys
from collections.abc import Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from topics.spec import KINDS, KINDS_WITH_RETRY, Kind, TopicSpec, needed_bytes, output_names, specs_for
from workers import log
from workers.cli.configuration import impatient
from workers.errors import EX_CONFIG, Exit
from workers.settings.model import Settings, TaskSettings
from workers.settings.problems import SettingsInvalid
from workers.settings.source import load
from workers.stream import topic_admin
from workers.stream.topic_admin import TopicState

app = typer.Typer(
    name="topics",
    help="Create or check the topics of a configuration.\n\nExample: penstock topics check pipelines/tickets.yaml",
    no_args_is_help=True,
)

_INPUT_RETENTION_S = 7 * 86_400  # Kafka's own default
RETRY_RETENTION_DELAYS = 7
"""As with what `create` makes: 7 days for a delay of a day at most."""
T = TypeVar("T")
Config = Annotated[Path, typer.Argument(help="the deployment's YAML file")]


@app.command()
def check(config: Config) -> None:
    """Say what is wrong with the topics; exit 1 when something is, 0 when nothing is.

    Example: penstock topics check config/pipelines/tickets.yaml
    """
    settings = _settings(config)
    states = _finished(topic_admin.describe(impatient(settings.kafka), all_names(settings)))
    problems = list(faults(settings, states))
    for problem in problems:
        print(problem)
    if problems:
        raise typer.Exit(1)
    print(f"{len(states)} topics are as they should be")


@app.command()
def create(
    config: Config,
    replication_factor: Annotated[int, typer.Option(min=-1, help="-1: the broker's default")] = -1,
    inputs: Annotated[int, typer.Option(min=0, help="also create missing inputs, with this many partitions")] = 0,
) -> None:
    """Create the missing output topics, each with as many partitions as its input. Existing topics stay as they are.

    Example: penstock topics create config/pipelines/tickets.yaml --replication-factor 3
    """
    settings = _settings(config)
    states = _finished(topic_admin.describe(impatient(settings.kafka), all_names(settings)))
    specs = missing(settings, states, input_partitions=inputs)
    if specs:
        _finished(topic_admin.create(settings.kafka, specs, replication_factor))
    for spec in specs:
        print(f"created {spec.name} ({spec.partitions} partitions)")
    print(f"{len(specs)} created, {len(states)} were there")


def all_names(settings: Settings) -> list[str]:
    """Return every topic of the configuration, inputs and outputs."""
    pairs = [(topic, names) for _, topic, names in _outputs(settings)]
    return [topic for topic, _ in pairs] + [name for _, names in pairs for name in names.values()]


def missing(settings: Settings, states: Mapping[str, TopicState], *, input_partitions: int) -> list[TopicSpec]:
    """Return what has to be created: outputs, and inputs when `input_partitions` is not 0.

    Raises:
        typer.Exit: 78, an input is missing and nobody said how many partitions it shall have.
    """
    wanted: dict[str, TopicSpec] = {}
    for task, topic, names in _outputs(settings):
        partitions = states[topic].partitions if topic in states else input_partitions
        if not partitions:
            print(
                f"no such input topic: {topic}; check the name, or give --inputs PARTITIONS to create it as well",
                file=sys.stderr,
            )
            raise typer.Exit(EX_CONFIG)
        wanted.setdefault(topic, TopicSpec(name=topic, partitions=partitions, retention_s=_INPUT_RETENTION_S))
        specs = specs_for(
            names, partitions=partitions, max_input_bytes=task.max_input_bytes, text=task.input_format == "text"
        )
        for spec in specs.values():
            wanted.setdefault(spec.name, spec)
    return [spec for name, spec in wanted.items() if name not in states]


def faults(settings: Settings, states: Mapping[str, TopicState]) -> Iterator[str]:
    """Yield what is wrong, one line each, beginning with the topic's name."""
    for task, topic, names in _outputs(settings):
        if topic not in states:
            yield f"{topic}: missing, or this user may not DESCRIBE it (input): `topics create --inputs PARTITIONS`"
        for kind, name in names.items():
            if name not in states:
                yield f"{name}: missing, or this user may not DESCRIBE it ({kind}): `topics create`"
            elif topic in states:
                yield from _faults_of_output(kind, task, name, states[name], states[topic].partitions)


def _faults_of_output(
    kind: Kind, task: TaskSettings, name: str, state: TopicState, input_partitions: int
) -> Iterator[str]:
    if state.partitions != input_partitions:
        yield (
            f"{name}: {state.partitions} partitions, its input has {input_partitions}:"
            " records go by key instead of keeping their partition"
        )
    needed = needed_bytes(kind, max_input_bytes=task.max_input_bytes, text=task.input_format == "text")
    if state.max_message_bytes is not None and state.max_message_bytes < needed:
        yield (
            f"{name}: max.message.bytes is {state.max_message_bytes}, an accepted record may need {needed}:"
            " raise it, or lower the task's max_input_bytes"
        )
    keeps_s = state.retention_s
    if kind == "retry" and keeps_s is not None and 0 <= keeps_s < RETRY_RETENTION_DELAYS * task.retry_delay_s:
        yield (
            f"{name}: retention.ms keeps records for {keeps_s:g} s, and they wait for {task.retry_delay_s:g} s"
            f" (retry_delay_s): keep them {RETRY_RETENTION_DELAYS} times as long, for a stop of the workers adds to it"
        )
    if kind in ("review", "dlq", "retry") and "compact" in (state.cleanup_policy or ""):
        yield f"{name}: cleanup.policy is {state.cleanup_policy}: compaction would drop all but one record of a key"


def _outputs(settings: Settings) -> Iterator[tuple[TaskSettings, str, dict[Kind, str]]]:
    for name, task in settings.tasks.items():
        kinds = KINDS_WITH_RETRY if task.defers else KINDS
        overrides: dict[Kind, str | None] = {kind: getattr(task.topics, kind) for kind in kinds}
        for topic in task.input:
            yield task, topic, output_names(topic, name, overrides, kinds)


def _settings(config: Path) -> Settings:
    try:
        return load(config).settings
    except SettingsInvalid as exc:
        for problem in exc.problems:
            print(problem, file=sys.stderr)
        raise typer.Exit(EX_CONFIG) from exc


def _finished(work: Coroutine[Any, Any, T]) -> T:
    try:
        with log.silenced():
            return asyncio.run(work)
    except Exit as exc:
        print(exc, file=sys.stderr)
        raise typer.Exit(exc.code) from exc
