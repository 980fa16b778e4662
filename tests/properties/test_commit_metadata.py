"""Commit metadata that was damaged on its way: never believed, since a bit too many is a record lost (row D20)."""

from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.stream.commit_metadata import Ignored, decode, encode, fingerprint
from workers.stream.ledger import FINISHED_PAST_MAX

MARK = fingerprint("cluster", "in", 0)
BASE85 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"
COMMITTED = 7


def believed(text: str) -> set[int]:
    """Return what the text makes the next owner skip."""
    try:
        return decode(COMMITTED, text, MARK)
    except Ignored:
        return set()


def bitmap(size_bytes: int) -> bytes:
    """Return a bitmap as a window leaves it: runs of finished ones, gaps, and mixtures."""
    chance = Random(size_bytes)
    return bytes(chance.choice((0, 255, chance.randrange(256))) for _ in range(size_bytes - 1)) + b"\x01"


def damages(text: str) -> Iterator[str]:
    """Yield the text with each character of its body changed, left out, doubled or swapped, and cut behind it."""
    for at in range(text.rindex(":") + 1, len(text)):
        before, here, after = text[:at], text[at], text[at + 1 :]
        yield from (before + other + after for other in BASE85 if other != here)
        yield from (before, before + after, before + here + here + after)
        yield before + after[:1] + here + after[1:]


@pytest.mark.fault("D20")
@pytest.mark.parametrize("size_bytes", [1, 2, 5, 20, 39, 40, 41, 64])
def test_no_change_of_one_character_makes_up_a_finished_offset(size_bytes: int) -> None:
    """A changed, lost or doubled character, or a text that was cut, is noticed by its checksum: all are tried."""
    text = encode(COMMITTED, bitmap(size_bytes), MARK)
    whole = believed(text)
    assert whole
    for damaged in damages(text):
        assert believed(damaged) in (set(), whole), damaged


@pytest.mark.fault("D20")
@given(st.text(alphabet=BASE85, max_size=300))
def test_a_body_of_noise_is_not_believed(body: str) -> None:
    """Even under the right version, offset and mark."""
    assert not believed(f"p2:{COMMITTED}:{MARK}:{body}")


@given(st.binary(min_size=1, max_size=FINISHED_PAST_MAX // 8))
def test_any_bitmap_comes_back(bits: bytes) -> None:
    """Bit i stands for offset `committed + i`, up to as many as a bitmap may have."""
    text = encode(COMMITTED, bits, MARK, 1 << 20)
    expected = {COMMITTED + (at << 3) + bit for at, octet in enumerate(bits) for bit in range(8) if octet >> bit & 1}
    assert believed(text) == expected


def test_a_bitmap_as_long_as_may_be_comes_back() -> None:
    """The bound is inclusive; what is longer was not written by us."""
    whole = encode(COMMITTED, b"\xff" * (FINISHED_PAST_MAX // 8), MARK)
    assert len(believed(whole)) == FINISHED_PAST_MAX
    assert not believed(encode(COMMITTED, b"\xff" * (FINISHED_PAST_MAX // 8 + 1), MARK))
