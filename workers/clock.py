"""Time, in one place: every duration is measured on the monotonic clock, the wall clock only labels what leaves us."""

import time

monotonic_s = time.monotonic
"""Seconds on a clock that no operator can step: deadlines, back-off, breaker, windows."""

wall_s = time.time
"""Seconds since the epoch, UTC: provenance, dead-letter timestamps, the age of a record."""
