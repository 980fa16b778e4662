"""The demo's deployment: the shipped pipeline with its prompts, schema and rules, changed only where a demo differs."""

import shutil
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from topics.spec import Kind, TopicSpec, output_names, specs_for
from workers.demo.tickets import data_folder
from workers.settings.model import Kafka, Settings
from workers.settings.source import load

TASK = "ticket_triage"
SHIPPED = "pipelines/tickets.yaml"
PARTITIONS = 4
MAX_REVIEWS_PER_HOUR = 15
"""So few that the last rung of the ladder is seen as well."""

DRAIN_S = 10.0
STARTUP_S = 15.0
RETENTION_S = 86_400
PATIENCE = {"timeout_s": 3.0, "connect_timeout_s": 3.0}
"""Everything runs on one machine: while that is busy, nothing shall look like an outage but the one that is played."""

REAL_MODEL = {"timeout_s": 10.0, "dialect": "openai"}
"""A real model may be a small one on a CPU; and every server speaks OpenAI's dialect."""

REAL_MODEL_SLOTS = 16
REAL_MODEL_DEADLINE_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """One configuration on disk, and the topics that it names."""

    config: Path
    settings: Settings
    input: str
    outputs: dict[Kind, str]

    @property
    def kafka(self) -> Kafka:
        """The cluster and the group."""
        return self.settings.kafka

    def specs(self) -> list[TopicSpec]:
        """Return all its topics, with a retention that fits a demo."""
        max_input_bytes = self.settings.tasks[TASK].max_input_bytes
        outputs = specs_for(self.outputs, partitions=PARTITIONS, max_input_bytes=max_input_bytes)
        return [
            TopicSpec(name=self.input, partitions=PARTITIONS, retention_s=RETENTION_S),
            *(replace(spec, retention_s=RETENTION_S) for spec in outputs.values()),
        ]


def shipped_config() -> Path:
    """Return the pipeline that the demo's is made from: the one to copy for a deployment of one's own."""
    return data_folder() / SHIPPED


def deploy(
    folder: Path, *, bootstrap_servers: str, url: str, real_broker: bool = False, real_model: str | None = None
) -> Deployment:
    """Write the demo's configuration into `folder`.

    `real_model` is the name by which a server at `url` that is not ours knows its model. A real broker gets names of
    its own for topics and group, so that no other run and no other user of it is touched.
    """
    for part in ("prompts", "schemas", "rules"):
        shutil.copytree(data_folder() / part, folder / part)
    settings = yaml.safe_load(shipped_config().read_text(encoding="utf-8"))
    prefix = f"penstock-demo-{uuid.uuid4().hex[:8]}." if real_broker else ""
    task = settings["tasks"][TASK]
    task["input"] = prefix + task["input"]
    settings["kafka"] |= {
        "bootstrap_servers": bootstrap_servers,
        "group_id": prefix + settings["kafka"]["group_id"],
        "startup_timeout_s": STARTUP_S,
    }
    settings["worker"] |= {"drain_s": DRAIN_S, "http": {"host": "127.0.0.1", "port": 0}}
    _set_model(settings["models"][task["model"]], task, url, real_model)
    _set_review(task["ladder"])
    config = folder / SHIPPED
    config.parent.mkdir()
    config.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    return Deployment(
        config=config,
        settings=load(config).settings,
        input=task["input"],
        outputs=output_names(task["input"], TASK),
    )


def _set_model(model: dict[str, Any], task: dict[str, Any], url: str, real_model: str | None) -> None:
    (endpoint,) = model["endpoints"]
    endpoint["url"] = url
    model |= PATIENCE
    if real_model is not None:
        model |= REAL_MODEL | {"model": real_model}
        endpoint["max_in_flight"] = REAL_MODEL_SLOTS
        task["deadline_s"] = REAL_MODEL_DEADLINE_S


def _set_review(ladder: list[dict[str, Any]]) -> None:
    for rung in ladder:
        if "review" in rung:
            rung["review"]["max_per_hour"] = MAX_REVIEWS_PER_HOUR
