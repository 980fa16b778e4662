"""`penstock dry-run CONFIG`: would it work here? Asks the cluster and the models, and leaves nothing behind."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from workers import log
from workers.cli.configuration import Config, as_line, read_with_warnings
from workers.cli.dry_run_kafka import all_topics, group_finding, read_finding, topic_findings, write_findings
from workers.cli.dry_run_models import model_findings
from workers.cli.dry_run_records import SAMPLE_RECORDS, record_finding
from workers.cli.findings import Finding, as_json, failed, summary
from workers.clock import monotonic_s
from workers.errors import Exit
from workers.llm import Client
from workers.settings.model import Kafka, Settings
from workers.stream import sample, topic_admin
from workers.stream.survey import Survey, survey
from workers.task import Task, compile_task

CLUSTER_MAX_S = 10.0
SAMPLE_S = 5.0


def dry_run(
    config: Config,
    *,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of lines.")] = False,
) -> None:
    """Check against the real cluster and the real models whether a configuration would work.

    One line for each check: ok, FAILED or unknown, and what to do. Nothing is joined, committed or produced; each
    endpoint is asked one question, and for answers by schema a second one: whether the server enforces the schema. A
    few records are read. Exit codes: 0 nothing failed, 1 something did, 78 errors in the configuration.

    Example: penstock dry-run config/pipelines/tickets.yaml
    """
    loaded, problems = read_with_warnings(config)
    warnings = [as_line(problem) for problem in problems]
    with log.silenced():
        findings = asyncio.run(look(loaded.settings, str(config)))
    hide = loaded.redactor.text
    findings = [replace(one, what=hide(one.what), todo=hide(one.todo)) for one in [_lint(config, warnings), *findings]]
    if json_:
        print(as_json(str(config), findings, warnings))
    else:
        print(*findings, *(f"{'':7} {line}" for line in warnings), summary(findings), sep="\n")
    if failed(findings):
        raise typer.Exit(1)


def _lint(config: Path, warnings: Sequence[str]) -> Finding:
    what = "no error" + (f", warnings: {len(warnings)}" if warnings else "")
    return Finding(about=f"configuration {config}", state="ok", what=what)


async def look(settings: Settings, config: str) -> list[Finding]:
    """Return every finding: all checks run, none stops another. Models are asked while the cluster answers."""
    asked = asyncio.ensure_future(_models(settings))
    return [*await _cluster(settings, config), *await asked]


async def _models(settings: Settings) -> list[Finding]:
    """Ask one after the other: a server with one slot would look slow otherwise."""
    return [one for name, task in settings.tasks.items() for one in await model_findings(settings, name, task)]


async def _cluster(settings: Settings, config: str) -> list[Finding]:
    limit_s = min(settings.kafka.startup_timeout_s, CLUSTER_MAX_S)
    kafka = settings.kafka.model_copy(update={"startup_timeout_s": limit_s})
    about, began_s = f"broker {kafka.bootstrap_servers}", monotonic_s()
    try:
        seen = await survey(kafka, all_topics(settings), limit_s)
        there = [name for name, topic in seen.topics.items() if not topic.error]
        states = await topic_admin.describe(kafka, there) if there else {}
    except Exit as exc:
        return [
            Finding(about=about, state="failed", what=str(exc).removeprefix("no Kafka broker can be used: ")),
            Finding(about="topics, rights, group and records", state="unknown", what="not looked at without a broker"),
        ]
    what = f"answers in {monotonic_s() - began_s:.2f} s; cluster {seen.cluster_id}, brokers: {seen.brokers}"
    return [
        Finding(about=about, state="ok", what=what),
        *topic_findings(settings, seen, states, config),
        *write_findings(settings, seen),
        group_finding(kafka.group_id, seen.group),
        *await _records(settings, kafka, seen),
    ]


async def _records(settings: Settings, kafka: Kafka, seen: Survey) -> list[Finding]:
    """Read a few of each input's newest records, and try each task's template on them."""
    findings = []
    for name, settings_of_task in settings.tasks.items():
        task = compiled(settings, name)
        for topic in [*settings_of_task.input, *task.retry_topics()]:
            if topic not in seen.topics or seen.topics[topic].error:
                continue
            try:
                records = await sample.newest(
                    kafka, topic, seen.topics[topic].partitions, count=SAMPLE_RECORDS, timeout_s=SAMPLE_S
                )
            except Exit as exc:
                findings.append(read_finding(topic, seen.topics[topic], str(exc)))
                continue
            findings.append(read_finding(topic, seen.topics[topic], ""))
            if topic in settings_of_task.input:
                findings.append(record_finding(topic, task, records))
    return findings


def compiled(settings: Settings, name: str) -> Task:
    """Return a task as the worker would run it, its model not started."""
    task = settings.tasks[name]
    model = settings.models[task.model]
    return compile_task(name, task, Client(task.model, model), model)
