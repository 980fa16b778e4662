"""The retry topic's records: what they say, and what is not believed."""

import pytest

from topics import retries
from topics.headers import Header
from topics.retries import Retry

RETRY = Retry(topic="in", partition=3, offset=4711, timestamp_ms=1_767_225_599_000, deferrals=2)


def written(*originals: Header, retry: Retry = RETRY) -> list[Header]:
    """The headers of a deferred record."""
    return retries.headers(originals, retry, source="in/3/4711", task="t", reason="timeout")


@pytest.mark.parametrize("timestamp_ms", [-(1 << 40), -1, 0, 1_767_225_599_000, 1 << 62])
def test_what_is_written_reads_back(timestamp_ms: int) -> None:
    """Where the record lay, when it was sent and how often it was deferred."""
    retry = Retry(topic="a.b-c_d", partition=0, offset=0, timestamp_ms=timestamp_ms, deferrals=99)
    assert retries.decode(written(retry=retry)) == retry


def test_the_inputs_headers_come_back_without_ours_and_without_forged_ones() -> None:
    """In order, duplicates and nulls included; what a replay set stays."""
    replayed: list[Header] = [("__penstock.origin", b"first/0/1"), ("__penstock.replay", b"1")]
    kept: list[Header] = [("a", b"1"), ("a", None), ("ce_id", b"x")]
    forged: list[Header] = [("__penstock.retry.deferrals", b"7"), ("__penstock.source", b"x/0/0")]
    said = written(*forged, *kept, *replayed)
    assert retries.decode(said) == RETRY
    assert retries.originals(said) == [*kept, *replayed]
    assert [name for name, _ in said].count("__penstock.source") == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (retries.DEFERRALS, None),
        (retries.DEFERRALS, b"0"),
        (retries.DEFERRALS, b"-1"),
        (retries.DEFERRALS, b"1000"),
        (retries.DEFERRALS, "²".encode()),
        (retries.FROM, b""),
        (retries.FROM, b"in/3"),
        (retries.FROM, b"in/3/x"),
        (retries.FROM, b"a b/3/1"),
        (retries.TIMESTAMP_MS, b"--2"),
        (retries.TIMESTAMP_MS, b"1e3"),
        (retries.TIMESTAMP_MS, b"\xff"),
    ],
)
def test_what_penstock_did_not_write_is_not_believed(name: str, value: bytes | None) -> None:
    """One header that is missing or malformed, and it is no deferred record."""
    said = [header for header in written() if header[0] != name]
    assert retries.decode(said) is None
    assert retries.decode([*said, (name, value)]) is None
