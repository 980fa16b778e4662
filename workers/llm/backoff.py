"""How long to wait before asking again: what the server says, else doubling pauses with jitter. All in seconds."""

import math
import random
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime

RETRY_AFTER_MAX_S = 120.0
"""A longer Retry-After is not honoured (openai-python 3.54 has the same bound)."""

COOL_FIRST_S, COOL_MAX_S = 0.5, 2.0
"""Cool-down of an endpoint that said 429 or 503 without a time of its own. openai-python goes up to 8 s, for one
caller; here all share the pause, and a handful asks after it: longer pauses would only lose time after an outage."""

RETRY_FIRST_S, RETRY_MAX_S = 0.1, 2.0
"""Pause of one record between two attempts: short, its deadline runs."""

_JITTER_RATIO = 0.25


def cool_down_s(nth: int, draw: Callable[[], float] = random.random) -> float:
    """Return the cool-down after the `nth` refusal in a row (from 1)."""
    return _doubled(COOL_FIRST_S, COOL_MAX_S, nth, draw)


def retry_s(nth: int, draw: Callable[[], float] = random.random) -> float:
    """Return the pause after the `nth` failed attempt of a record (from 1)."""
    return _doubled(RETRY_FIRST_S, RETRY_MAX_S, nth, draw)


def _doubled(first_s: float, max_s: float, nth: int, draw: Callable[[], float]) -> float:
    # Only ever shortened by the jitter, so that the bound is a bound. The exponent is capped: 2.0**1024 overflows.
    return min(max_s, first_s * 2.0 ** min(nth - 1, 16)) * (1.0 - _JITTER_RATIO * draw())


def retry_after_s(headers: Mapping[str, str], clock: Callable[[], float] = time.time) -> float | None:
    """Return what the server asks for, None when it says nothing usable.

    `retry-after-ms` first, then `retry-after` as seconds (maybe a float), then as an HTTP-date (RFC 9110, 10.2.3),
    which is compared with the wall clock. Honoured only when 0 < x <= 120.
    """
    said = headers.get("retry-after-ms")
    asked_s = None if said is None else _number(said, scale=1e-3)
    if asked_s is None and (said := headers.get("retry-after")) is not None:
        asked_s = _number(said)
        if asked_s is None:
            asked_s = _date_s(said, clock)
    return asked_s if asked_s is not None and 0 < asked_s <= RETRY_AFTER_MAX_S else None


def _number(said: str, scale: float = 1.0) -> float | None:
    try:
        value = float(said) * scale
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _date_s(said: str, clock: Callable[[], float]) -> float | None:
    try:
        return parsedate_to_datetime(said).timestamp() - clock()
    except (ValueError, OverflowError):
        return None
