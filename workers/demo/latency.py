"""How long the simulated model takes: `zero`, `const:S`, `heavy:S:SLOW_S:RATIO`, `lognormal:MEDIAN_S:SIGMA`."""

import math
import random
from collections.abc import Callable

SEED = 20_261_124
PARTS = {"zero": 0, "const": 1, "heavy": 3, "lognormal": 2}
MAX_S = 60.0
"""A lognormal has no end; a call of more than a minute tests nothing more."""


def latency(spec: str, seed: int = SEED) -> Callable[[], float]:
    """Return a source of durations in seconds, the same sequence for the same seed.

    Raises:
        ValueError: the text is none of the four forms.
    """
    kind, *texts = spec.split(":")
    if PARTS.get(kind) != len(texts):
        raise ValueError(f"{spec!r} is none of zero, const:S, heavy:S:SLOW_S:RATIO, lognormal:MEDIAN_S:SIGMA")
    numbers = [float(text) for text in texts]
    if not all(0 <= number <= MAX_S for number in numbers):
        raise ValueError(f"{spec!r}: every number must be between 0 and {MAX_S:g}")
    return _source(kind, numbers, random.Random(seed))  # noqa: S311 - a delay is no secret


def _source(kind: str, numbers: list[float], chance: random.Random) -> Callable[[], float]:
    if kind == "lognormal":
        mu, sigma = math.log(max(numbers[0], 1e-6)), numbers[1]
        return lambda: min(chance.lognormvariate(mu, sigma), MAX_S)
    if kind == "heavy":
        usual_s, slow_s, ratio = numbers
        return lambda: slow_s if chance.random() < ratio else usual_s
    only_s = numbers[0] if numbers else 0.0
    return lambda: only_s
