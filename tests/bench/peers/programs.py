"""The peers' programs, fetched and built into `.cache/peers` when first asked for, and what each promises."""

import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.kafka import ROOT

HERE = Path(__file__).parent
CACHE = ROOT / ".cache" / "peers"
BUILD_S = 600.0


class CannotBuildError(Exception):
    """A peer cannot be fetched or built here; the text says why."""


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
    source = HERE / "parallel_consumer"
    built = _built("parallel_consumer", [source / "pom.xml", source / "Worker.java"])
    if not (built / "Worker.class").exists():
        for tool in ("mvn", "javac"):
            if shutil.which(tool) is None:
                raise CannotBuildError(f"no {tool} on the PATH: install Maven and a JDK 17+")
        jars = ["mvn", "-q", "-B", "-f", source / "pom.xml", "dependency:copy-dependencies"]
        _run([*jars, f"-DoutputDirectory={built}"])
        _run(["javac", "-cp", f"{built}/*", "-d", built, source / "Worker.java"])
    quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
    return ["java", "-Xmx512m", quiet, "-cp", f"{built}:{built}/*", "Worker"]


def faststream() -> list[str | Path]:
    """Make a virtual environment with what its requirements pin."""
    source = HERE / "faststream"
    built = _built("faststream", [source / "requirements.txt"])
    python = built / "bin" / "python"
    if not (built / "complete").exists():
        _run([sys.executable, "-m", "venv", built])
        _run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-r", source / "requirements.txt"])
        (built / "complete").touch()
    return [python, source / "worker.py"]


def _built(name: str, sources: list[Path]) -> Path:
    """Return the folder for what is built from these sources: another one when they change."""
    told = hashlib.sha256(b"\0".join(source.read_bytes() for source in sources)).hexdigest()[:12]
    folder = CACHE / f"{name}-{told}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _run(command: list[str | Path]) -> None:
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_S, check=False)
    except subprocess.TimeoutExpired as exc:
        raise CannotBuildError(f"{command[0]} did not end within {BUILD_S:g} s") from exc
    if ran.returncode:
        raise CannotBuildError(f"{command[0]} failed: {(ran.stdout + ran.stderr)[-800:]}")


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
