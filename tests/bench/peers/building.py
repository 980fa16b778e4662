"""Fetches and builds what a bench compares with, by name from the registries, into `.cache/peers` when first needed."""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.support.kafka import ROOT

CACHE = ROOT / ".cache" / "peers"
BUILD_S = 900.0
"""Redpanda Connect takes the longest: three to five minutes on two busy cores."""


class CannotBuildError(Exception):
    """A peer cannot be fetched or built here; the text says why."""


def built(name: str, sources: Sequence[Path]) -> Path:
    """Return the folder for what is built from these sources: another one when they change."""
    told = hashlib.sha256(b"\0".join(source.read_bytes() for source in sources)).hexdigest()[:12]
    folder = CACHE / f"{name}-{told}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def ran(command: Sequence[str | Path], folder: Path | None = None) -> None:
    """Run a step of a build at the lowest priority.

    Raises:
        CannotBuildError: it failed, or did not end in time.
    """
    try:
        done = subprocess.run(
            ["nice", "-n", "19", *command], cwd=folder, capture_output=True, text=True, timeout=BUILD_S, check=False
        )
    except subprocess.TimeoutExpired as exc:
        raise CannotBuildError(f"{command[0]} did not end within {BUILD_S:g} s") from exc
    if done.returncode:
        raise CannotBuildError(f"{command[0]} failed: {(done.stdout + done.stderr)[-800:]}")


def needed(tool: str, how: str) -> None:
    """Raise CannotBuildError unless the tool is on the PATH; `how` says what to install."""
    if shutil.which(tool) is None:
        raise CannotBuildError(f"no {tool} on the PATH: {how}")


def environment(name: str, requirements: Path, python: str | Path = sys.executable) -> Path:
    """Return the Python of a virtual environment with what a file pins."""
    folder = built(name, [requirements])
    interpreter = folder / "bin" / "python"
    if not (folder / "complete").exists():
        ran([python, "-m", "venv", folder])
        ran([interpreter, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-r", requirements])
        (folder / "complete").touch()
    return interpreter


def go_program(name: str, source: Path) -> Path:
    """Return the program that Go builds from a module with a go.sum: nothing is resolved anew."""
    files = sorted(each for each in source.iterdir() if each.suffix in {".go", ".mod", ".sum"})
    program = built(name, files) / name
    if not program.exists():
        needed("go", "install Go 1.26 or newer")
        unfinished = program.with_suffix(".unfinished")
        ran(["go", "build", "-o", unfinished, "."], source)
        unfinished.rename(program)
    return program


def maven_program(name: str, source: Path, main: str) -> Path:
    """Return the folder with the jars that a pom names and the class compiled beside them."""
    folder = built(name, [source / "pom.xml", source / f"{main}.java"])
    if not (folder / f"{main}.class").exists():
        for tool in ("mvn", "javac"):
            needed(tool, "install Maven and a JDK 17+")
        jars = ["mvn", "-q", "-B", "-f", source / "pom.xml", "dependency:copy-dependencies"]
        ran([*jars, f"-DoutputDirectory={folder}"])
        ran(["javac", "-cp", f"{folder}/*", "-d", folder, source / f"{main}.java"])
    return folder
