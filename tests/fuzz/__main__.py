"""Fuzzing for a while: `python -m tests.fuzz [--seconds N] [--seed N] [TARGET ...]`, each target for N seconds.

With atheris installed it is guided by coverage and what it learns stays in `.cache/fuzz`; without, inputs are mutations
of the committed corpus. An input that was found to raise is written to `.cache/fuzz/<target>/crash-*`: mend the cause,
and move the file to `tests/fuzz/corpus/<target>/found-<what>`. The target `records` is the whole worker in memory.
"""

import argparse
import asyncio
import hashlib
import importlib.util
import subprocess
import sys
import time
import traceback
from pathlib import Path

from tests.fuzz import boundary
from tests.fuzz.targets import CORPUS, NAMES, Found, mutations

KEPT = Path(".cache") / "fuzz"
INPUT_MAX_BYTES = 4_096
ONE_INPUT_MAX_S = 10


def main() -> int:
    """Run the targets one after the other; return how many found something."""
    arguments = _arguments()
    found = 0
    for target in arguments.targets or (*NAMES, "records"):
        began_s = time.monotonic()
        print(f"--- {target}", flush=True)
        if target == "records":
            sound = _records(arguments.seconds, arguments.seed)
        elif importlib.util.find_spec("atheris") is not None:
            sound = _guided(target, arguments.seconds, arguments.seed)
        else:
            sound = _plain(target, arguments.seconds, arguments.seed)
        print(
            f"--- {target}: {'nothing found' if sound else 'FOUND'} in {time.monotonic() - began_s:.0f} s", flush=True
        )
        found += not sound
    return min(found, 1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("targets", nargs="*", choices=[*NAMES, "records", []], metavar="TARGET")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def _guided(target: str, seconds: float, seed: int) -> bool:
    kept = KEPT / target
    kept.mkdir(parents=True, exist_ok=True)
    options = [
        f"-max_total_time={seconds:.0f}",
        f"-seed={seed}",
        f"-max_len={INPUT_MAX_BYTES}",
        f"-timeout={ONE_INPUT_MAX_S}",
        f"-artifact_prefix={kept}/",
        f"-dict={CORPUS.parent / 'tokens.dict'}",
        "-print_final_stats=1",
    ]
    command = [sys.executable, "-m", "tests.fuzz.guided", target, str(kept), str(CORPUS / target), *options]
    return subprocess.run(command, check=False).returncode == 0


def _plain(target: str, seconds: float, seed: int) -> bool:
    try:
        print(f"{mutations(target, seconds=seconds, seed=seed)} inputs, not guided: atheris is not installed")
    except Found as found:
        traceback.print_exc()
        path = KEPT / target / f"crash-{hashlib.sha256(found.raw).hexdigest()[:12]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(found.raw)
        print(f"the input is {path}")
        return False
    return True


def _records(seconds: float, seed: int) -> bool:
    figures = boundary.Figures()
    for course in boundary.COURSES:
        ends_at_s = time.monotonic() + seconds / len(boundary.COURSES)
        try:
            asyncio.run(boundary.run(course, figures, lambda ends_at_s=ends_at_s: time.monotonic() < ends_at_s, seed))
        except AssertionError:
            traceback.print_exc()
            return False
    print(figures)
    return True


if __name__ == "__main__":
    sys.exit(main())
