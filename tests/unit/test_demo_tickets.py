"""The demo's tickets: every kind is there, and each is what its name says."""

import json
from collections import Counter

import pytest
import yaml

from workers.demo.tickets import OVERSIZED_BYTES, Ticket, data_folder, load_tickets

TICKETS = load_tickets()


def of_kind(kind: str) -> list[Ticket]:
    """The tickets of one kind."""
    return [ticket for ticket in TICKETS if ticket.kind == kind]


def test_they_are_the_same_every_time() -> None:
    """Two loads give the same tickets in the same order: a demo can be compared with the last one."""
    assert load_tickets() == TICKETS


def test_there_are_as_many_of_each_kind_as_the_file_says() -> None:
    """The counts of the file are the counts of the tickets, and the whole stays small."""
    counts = yaml.safe_load((data_folder() / "demo" / "tickets.yaml").read_text())["counts"]
    assert Counter(ticket.kind for ticket in TICKETS) == counts
    assert sum(len(ticket.value or b"") for ticket in TICKETS) < 2 << 20


@pytest.mark.parametrize("kind", ["clean", "ambiguous", "long", "repeated", "injection", "without_key"])
def test_these_kinds_can_be_asked_about(kind: str) -> None:
    """They are JSON objects with a subject, a text and a customer, and no placeholder is left in them."""
    for ticket in of_kind(kind):
        assert ticket.value is not None
        body = json.loads(ticket.value)
        assert set(body) == {"subject", "text", "customer"}
        assert "{product}" not in body["text"]
        assert (ticket.key is None) == (kind == "without_key")
        if ticket.key is not None:
            assert body["customer"]["id"] == ticket.key.decode()
        assert (len(body["text"]) > 6_000) == (kind == "long")


def test_these_kinds_cannot_be_asked_about() -> None:
    """Malformed, not UTF-8, empty, oversized and tombstone are what they are called."""
    for ticket in of_kind("malformed_json"):
        assert not _is_json(ticket.value or b"")
    for ticket in of_kind("not_utf8"):
        with pytest.raises(UnicodeDecodeError):
            (ticket.value or b"").decode()
    assert {ticket.value for ticket in of_kind("empty")} == {b""}
    assert {ticket.value for ticket in of_kind("tombstone")} == {None}
    assert all(ticket.key for ticket in of_kind("tombstone"))
    for ticket in of_kind("oversized"):
        assert len(ticket.value or b"") > OVERSIZED_BYTES
        assert _is_json(ticket.value or b"")


def test_repeated_tickets_repeat() -> None:
    """The same customer says the same thing more than once."""
    assert max(Counter((ticket.key, ticket.value) for ticket in of_kind("repeated")).values()) > 3


def _is_json(value: bytes) -> bool:
    """Whether a strict reader takes it (Python's own takes NaN)."""
    try:
        json.loads(value, parse_constant=lambda _: 1 / 0)
    except (ValueError, ZeroDivisionError):
        return False
    return True
