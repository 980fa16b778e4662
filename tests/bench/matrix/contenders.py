"""Who takes part, how each is built and set, and where its output is read.

All have the same contract: the environment says BOOTSTRAP URL N GROUP TOPIC_IN TOPIC_OUT MODEL MAX_TOKENS TIMEOUT_S
INSTANCE; input `{"id","text"}`, output `{"id","result"}`. Penstock gets the same through its configuration.
"""

import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.bench.matrix.endpoint import Endpoint
from tests.bench.matrix.workloads import TIMEOUT_S, Case
from tests.bench.peers.building import environment, go_program, maven_program, needed
from tests.support.deployment import PENSTOCK, configuration

PEERS = Path(__file__).parents[1] / "peers"
PYTHON = PEERS / "python"
Command = list[str | Path]
OUTPUT_KINDS = ("enriched", "fallback", "review", "dlq")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One cell's work, as a worker is told it."""

    case: Case
    bootstrap_servers: str
    endpoint: Endpoint
    group: str
    topic_in: str
    topic_out: str
    folder: Path
    instance: str = ""
    """A static member's id; empty: dynamic membership."""

    def environment(self) -> dict[str, str]:
        """Return the contract's variables."""
        return {
            "BOOTSTRAP": self.bootstrap_servers,
            "URL": f"{self.endpoint.url}/v1/chat/completions",
            "N": str(self.case.slots),
            "GROUP": self.group,
            "TOPIC_IN": self.topic_in,
            "TOPIC_OUT": self.topic_out,
            "MODEL": "simulated",
            "MAX_TOKENS": "16",
            "TIMEOUT_S": str(int(TIMEOUT_S)),
            "INSTANCE": self.instance,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One worker with one setting. `build` fetches and builds what is missing, `command` says how to start it."""

    command: Callable[[Job], Command]
    build: Callable[[], object] | None = None
    env: Callable[[Job], Mapping[str, str]] = lambda _: {}
    versions: Callable[[], Mapping[str, str]] = dict
    order: str = "none"
    setting: str = ""
    by_source: bool = False
    """Its output is told apart by the header `__penstock.source`, not by the value's id."""
    short: bool = False
    """Takes part in `make bench`."""
    static: bool = True
    """It can be a static member."""


def penstock(job: Job, *, order: str, as_it_comes: bool = False) -> Command:
    """Write the configuration; every safety is on, whatever it costs. `as_it_comes`: only what the work demands."""
    tuned_task = {} if as_it_comes else {"max_in_flight": job.case.slots * 4}
    tuned_kafka = {} if as_it_comes else {"commit_interval_s": 1.0}
    topics = dict(zip(OUTPUT_KINDS, topics_out(job.topic_out, by_source=True), strict=True))
    config = configuration(
        job.folder / f"{job.group}{job.instance}",
        bootstrap_servers=job.bootstrap_servers,
        group_id=job.group,
        url=job.endpoint.url,
        model={"max_in_flight": "auto" if job.case.auto else job.case.slots, "timeout_s": TIMEOUT_S, "max_tokens": 16},
        tasks={
            "bench": {
                "input": job.topic_in,
                "topics": topics,
                "order": order,
                "shape": "only",
                **tuned_task,
                **job.case.penstock,
            }
        },
        kafka=tuned_kafka | ({"group_instance_id": job.instance} if job.instance else {}),
        worker={"log": {"level": "warning"}},
        files={"user.j2": "{{ record.text }}\n"},
    )
    return [PENSTOCK, "run", config]


def topics_out(topic: str, *, by_source: bool) -> list[str]:
    """Return where the outputs go: one topic, and for Penstock one for each kind."""
    return [topic, *(f"{topic}.{kind}" for kind in OUTPUT_KINDS[1:])] if by_source else [topic]


def _one_core(job: Job) -> dict[str, str]:
    return {"GOMAXPROCS": "1", "OUT_IN_FLIGHT": str(max(1_024, 4 * job.case.slots))}


def _peer(command: Callable[[], Command], **more: Any) -> Contender:
    """Return a peer whose command does not depend on the job; asking for the command builds it."""
    return Contender(command=lambda _: command(), build=command, **more)


def _go_plain() -> Command:
    return [go_program("go_plain", PEERS / "go_plain")]


def _connect() -> Command:
    return [go_program("connect", PEERS / "connect"), "run", PEERS / "connect" / "pipeline.yaml"]


def _java() -> Command:
    built = maven_program("parallel_consumer_vertx", PEERS / "parallel_consumer_vertx", "Worker")
    quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
    return ["java", "-Xmx512m", "-XX:ActiveProcessorCount=1", quiet, "-cp", f"{built}:{built}/*", "Worker"]


def _python_peer(
    name: str, setting: str, *arguments: str, python: str = sys.executable, static: bool = True
) -> Contender:
    def command() -> Command:
        needed(python, "this peer needs it")
        return [environment(name, PYTHON / f"{name}.txt", python), PYTHON / f"{name}.py", *arguments]

    return _peer(command, versions=_pinned(name), setting=setting, static=static)


def _pinned(name: str) -> Callable[[], dict[str, str]]:
    text = (PYTHON / f"{name}.txt").read_text
    return lambda: dict(re.findall(r"^([a-z-]+)(?:\[.+\])?==(.+)$", text(), re.MULTILINE))


def _modules(name: str) -> Callable[[], dict[str, str]]:
    def versions() -> dict[str, str]:
        text = (PEERS / name / "go.mod").read_text()
        found = re.findall(r"\b(twmb/franz-go|redpanda-data/(?:connect|benthos))(?:/v4)? (v\S+)(?! // indirect)", text)
        return dict(found) | {"go": _said(["go", "version"], r"go(1\S+)")}

    return versions


def _jars() -> dict[str, str]:
    text = (PEERS / "parallel_consumer_vertx" / "pom.xml").read_text()
    java = _said(["java", "-version"], r'version "(.+?)"')
    return dict(re.findall(r"<(parallel-consumer|kafka-clients)\.version>(.+?)<", text)) | {"java": java}


def _said(command: list[str], pattern: str) -> str:
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(pattern, ran.stdout + ran.stderr)
    return found[1] if found else "unknown"


def _own_versions() -> dict[str, str]:
    return {"penstock": version("penstock")}


def _own(order: str, setting: str, **more: Any) -> Contender:
    how: dict[str, Any] = {"as_it_comes": more.pop("as_it_comes", False)}
    return Contender(
        command=lambda job: penstock(job, order=order, **how),
        versions=_own_versions,
        order=order,
        setting=setting,
        by_source=True,
        **more,
    )


CONTENDERS: dict[str, Contender] = {
    "penstock": _own("none", "no order asked for, commit 1 s", short=True),
    "penstock_key": _own("key", "order by key, commit 1 s"),
    "penstock_default": _own("key", "as it comes: order by key, commit 0.2 s, 512 in flight", as_it_comes=True),
    "connect": _peer(
        _connect,
        env=lambda job: _one_core(job) | {"HTTP_IDLE_CONNECTIONS": str(job.case.slots)},
        versions=_modules("connect"),
        setting="Redpanda Connect at its best: a build of ours with a connection per call",
        short=True,
    ),
    "connect_default": _peer(
        _connect,
        env=_one_core,
        versions=_modules("connect"),
        setting="Redpanda Connect as it ships: two idle connections",
    ),
    "go_plain": _peer(
        _go_plain,
        env=_one_core,
        versions=_modules("go_plain"),
        setting="written by hand in Go, transport tuned",
        short=True,
    ),
    "go_plain_default": _peer(
        _go_plain,
        env=lambda job: _one_core(job) | {"STOCK_HTTP": "1"},
        versions=_modules("go_plain"),
        setting="written by hand in Go, Go's own transport",
    ),
    "aiokafka_sem": _python_peer("aiokafka_sem", "written by hand: aiokafka, aiohttp, uvloop, a semaphore"),
    "parallel_consumer": _peer(
        _java,
        env=lambda _: {"ORDER": "UNORDERED"},
        versions=_jars,
        setting="Parallel Consumer with Vert.x, unordered",
    ),
    "parallel_consumer_key": _peer(
        _java,
        env=lambda _: {"ORDER": "KEY"},
        versions=_jars,
        order="key",
        setting="Parallel Consumer with Vert.x, by key",
    ),
    "faststream": _python_peer("faststream_concurrent", "FastStream with its middleware for concurrent work"),
    "faust": _python_peer(
        "faust_agents", "Faust's own agents, concurrency N", "worker", "-l", "error", "--without-web", static=False
    ),
    "quixstreams": _python_peer("quix_batches", "Quix Streams, a batch per checkpoint", static=False),
    "pyrallel": _python_peer("pyrallel", "pyrallel-consumer, unordered", python="python3.12", static=False),
}


def chosen(names: list[str], *, short: bool) -> dict[str, Contender]:
    """Return those asked for by name; none asked for: all, or those of the short bench.

    Raises:
        KeyError: there is no such name.
    """
    if names:
        return {name: CONTENDERS[name] for name in names}
    return {name: each for name, each in CONTENDERS.items() if each.short or not short}
