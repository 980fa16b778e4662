"""The peers' programs, fetched and built into `.cache/peers` when first asked for, and what each promises."""

import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.peers.building import environment, maven_program

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A worker to compare with. `build` returns its command, None for Penstock itself; `env` is its own settings."""

    build: Callable[[], list[str | Path]] | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    versions: Callable[[], dict[str, str]] = dict
    runs: Sequence[str] = ("kills", "outage")
    """Those in which it takes part when no peer is named."""


def parallel_consumer() -> list[str | Path]:
    """Let Maven fetch the jars and javac compile our program."""
    built = maven_program("parallel_consumer", HERE / "parallel_consumer", "Worker")
    quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
    return ["java", "-Xmx512m", quiet, "-cp", f"{built}:{built}/*", "Worker"]


def faststream() -> list[str | Path]:
    """Make a virtual environment with what its requirements pin."""
    source = HERE / "faststream"
    return [environment("faststream", source / "requirements.txt"), source / "worker.py"]


def _jar_versions() -> dict[str, str]:
    text = (HERE / "parallel_consumer" / "pom.xml").read_text()
    return dict(re.findall(r"<(parallel-consumer|kafka-clients)\.version>(.+?)<", text)) | {"java": _java()}


def _java() -> str:
    said = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(.+?)"', said)
    return found[1] if found else "unknown"


def _wheel_versions() -> dict[str, str]:
    text = (HERE / "faststream" / "requirements.txt").read_text()
    return dict(re.findall(r"^([a-z-]+)(?:\[.+\])?==(.+)$", text, re.MULTILINE))


def _java_peer(order: str, *, breaker: bool = False) -> Peer:
    return Peer(
        build=parallel_consumer,
        env={"ORDER": order, "BREAKER": str(int(breaker))},
        versions=_jar_versions,
        runs=("outage",) if breaker else ("kills", "outage"),
    )


PEERS: dict[str, Peer] = {
    "penstock": Peer(),
    "parallel_consumer": _java_peer("KEY"),
    "parallel_consumer_unordered": _java_peer("UNORDERED"),
    "parallel_consumer_breaker": _java_peer("KEY", breaker=True),
    "faststream": Peer(build=faststream, versions=_wheel_versions),
}
