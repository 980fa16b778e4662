"""The fuzz targets by name, their committed corpus, and a run of plain mutations over it.

Each target's module has `one_input(raw)`: it returns, or raises what is wrong. A file of its corpus is one input; those
called `found-*` once raised.
"""

import importlib
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.fuzz.mutation import mutated

NAMES = ("decode", "parse", "configuration", "commit_metadata", "http_answer")
CORPUS = Path(__file__).parent / "corpus"

OneInput = Callable[[bytes], None]


class Found(Exception):
    """An input that a target raised for; `raw` is that input, the cause says why."""

    def __init__(self, target: str, raw: bytes) -> None:
        super().__init__(f"{target}: {raw[:200]!r}")
        self.raw = raw


def one_input_of(target: str) -> OneInput:
    """Return the function of a target."""
    found: OneInput = importlib.import_module(f"tests.fuzz.fuzz_{target}").one_input
    return found


def corpus(target: str) -> list[bytes]:
    """Return the committed inputs of a target."""
    return [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]


def mutations(target: str, *, count: int | None = None, seconds: float | None = None, seed: int = 1) -> int:
    """Give a target its corpus and then mutations of it, so many or for so long; return how many inputs it took.

    Raises:
        Found: an input that the target raised for.
    """
    one_input, seeds, chance = one_input_of(target), corpus(target), Random(seed)
    ends_at_s = time.monotonic() + seconds if seconds is not None else float("inf")
    for raw in seeds:
        _given(target, one_input, raw)
    done = 0
    while done != count and time.monotonic() < ends_at_s:
        _given(target, one_input, mutated(chance, chance.choice(seeds), seeds))
        done += 1
    return len(seeds) + done


def _given(target: str, one_input: OneInput, raw: bytes) -> None:
    try:
        one_input(raw)
    except BaseException as exc:
        raise Found(target, raw) from exc
