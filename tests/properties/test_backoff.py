"""Pauses: bounded, never negative, and only what a server may reasonably ask for is honoured."""

import math
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.llm.backoff import COOL_MAX_S, RETRY_AFTER_MAX_S, RETRY_MAX_S, cool_down_s, retry_after_s, retry_s


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_pauses_are_bounded_and_positive(nth: int, drawn: float) -> None:
    """Whatever the count and the draw, a pause is positive and not above its bound."""
    assert 0 < cool_down_s(nth, lambda: drawn) <= COOL_MAX_S
    assert 0 < retry_s(nth, lambda: drawn) <= RETRY_MAX_S


def test_pauses_double_and_jitter_only_shortens() -> None:
    """Without jitter the pauses double from their first value to their bound; full jitter takes a quarter off."""
    assert [cool_down_s(nth, lambda: 0.0) for nth in range(1, 7)] == [0.5, 1, 2, 2, 2, 2]
    assert cool_down_s(1, lambda: 1.0) == pytest.approx(0.375)
    assert [retry_s(nth, lambda: 0.0) for nth in (1, 2, 3, 9)] == [0.1, 0.2, 0.4, 2.0]


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_header_gives_a_usable_pause_or_none(first: str, second: str) -> None:
    """No header, however odd, raises or makes us wait longer than 120 s."""
    pause_s = retry_after_s({"retry-after-ms": first, "retry-after": second})
    assert pause_s is None or 0 < pause_s <= RETRY_AFTER_MAX_S


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_seconds_are_honoured_within_bounds_only(seconds: float) -> None:
    """0 < x <= 120 is honoured as it is, everything else is junk."""
    honoured = math.isfinite(seconds) and 0 < seconds <= RETRY_AFTER_MAX_S
    assert retry_after_s({"retry-after": repr(seconds)}) == (seconds if honoured else None)


@pytest.mark.parametrize(
    ("headers", "expected_s"),
    [
        ({}, None),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after": formatdate(1_000_030, usegmt=True)}, 30.0),
        ({"retry-after": formatdate(999_000, usegmt=True)}, None),
        ({"retry-after": "Wed, 21 Oct 9999999 07:28:00 GMT"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "0"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "9999999"}, None),
    ],
)
def test_every_spelling_of_retry_after(headers: dict[str, str], expected_s: float | None) -> None:
    """Milliseconds, seconds and dates are read; past, negative, infinite and huge ones are not."""
    assert retry_after_s(headers, clock=lambda: 1_000_000.0) == expected_s
