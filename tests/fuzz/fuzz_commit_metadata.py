"""Any text as commit metadata: it names only offsets that somebody finished, or it is ignored.

Two ways in: the input as the text itself; and a bitmap that we wrote, with the input as damage to its text.
"""

from workers.stream.commit_metadata import MAX_CHARS, VERSION, Ignored, decode, encode, fingerprint
from workers.stream.ledger import FINISHED_PAST_MAX

MARK = fingerprint("cluster", "in", 0)
REASONS = {"", "foreign", "version", "base", "partition", "damaged"}


def one_input(raw: bytes) -> None:
    """Decode `raw`, and a text of ours that `raw` damages."""
    committed = int.from_bytes(raw[:3], "big")
    _any_text(raw[3:].decode("utf-8", "replace"), committed)
    _any_text(f"{VERSION}:{committed}:{MARK}:{raw[3:].decode('latin-1')}", committed)
    _damaged(raw, committed)


def _any_text(text: str, committed: int) -> None:
    found = _decoded(text, committed)
    assert all(committed <= offset < committed + FINISHED_PAST_MAX for offset in found)
    # Only a whole and checked stream is believed, so what is believed can be written again and means the same.
    assert _decoded(encode(committed, _bits(found, committed), MARK, 1 << 20), committed) == found


def _damaged(raw: bytes, committed: int) -> None:
    length = raw[3] if len(raw) > 3 else 0
    bits, damage = raw[4 : 4 + length], raw[4 + length :]
    text = encode(committed, bits, MARK)
    assert len(text) <= MAX_CHARS
    whole = _decoded(text, committed)
    assert whole <= {committed + index for index in range(len(bits) * 8) if bits[index >> 3] >> (index & 7) & 1}
    spoilt = list(text)
    for where, what in zip(damage[::2], damage[1::2], strict=False):
        if spoilt:
            at = where * len(spoilt) // 256
            spoilt[at : at + what % 3] = chr(what)
    assert _decoded("".join(spoilt), committed) <= whole, "damage made up a finished offset"


def _decoded(text: str, committed: int) -> set[int]:
    found, reason = set[int](), ""
    try:
        found = decode(committed, text, MARK)
    except Ignored as error:
        reason = error.reason
    assert reason in REASONS
    return found


def _bits(offsets: set[int], committed: int) -> bytearray:
    bits = bytearray((max(offsets, default=committed) - committed) // 8 + 1)
    for offset in offsets:
        bits[(offset - committed) >> 3] |= 1 << ((offset - committed) & 7)
    return bits
