"""The demo's input: support tickets of every kind that a topic may hold, the same ones every time."""

import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

SEED = 20_261_124
CUSTOMERS = 60
PLANS = ("free", "team", "business", "enterprise")
LONG_LINES = 150
OVERSIZED_BYTES = 300 << 10
"""Above the default `max_input_bytes` of a task, below what a broker takes by default (1 MiB)."""

Template = dict[str, str]
Body = dict[str, Any]

_PLACEHOLDER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """One input record, and what kind of ticket it is (the kinds are those of config/demo/tickets.yaml)."""

    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    kind: str


def data_folder() -> Path:
    """Return the folder with `demo`, `prompts`, `rules` and `schemas`: inside the wheel, or a checkout's `config`."""
    packaged = Path(__file__).parent / "data"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "config"


def load_tickets() -> list[Ticket]:
    """Return some hundreds of tickets in one order for ever, the kinds mixed; about a megabyte in all."""
    source = yaml.safe_load((data_folder() / "demo" / "tickets.yaml").read_text(encoding="utf-8"))
    desk = _Desk(source)
    tickets = [ticket for kind, count in source["counts"].items() for ticket in desk.tickets(kind, count)]
    desk.chance.shuffle(tickets)
    return tickets


class _Desk:
    """Makes tickets from the templates; `chance` is seeded, so that every run of the demo sees the same ones."""

    def __init__(self, source: dict[str, Any]) -> None:
        self.chance = random.Random(SEED)  # noqa: S311 - sample text is no secret
        self._templates: dict[str, list[Template]] = source
        self._words: dict[str, list[str]] = source["words"]
        self._number = 0

    def tickets(self, kind: str, count: int) -> Iterator[Ticket]:
        """Yield `count` tickets of one kind."""
        repeated = [(self._customer(), self._body("repeated", n)) for n in range(4)]
        for n in range(count):
            customer = self._customer()
            match kind:
                case "tombstone" | "empty":
                    value = b"" if kind == "empty" else None
                case "repeated":
                    customer, body = repeated[n % len(repeated)]
                    value = _encoded(customer, body)
                case "malformed_json" | "not_utf8" | "oversized":
                    value = _SPOILT[kind](_encoded(customer, self._body("clean", n)), n)
                case _:
                    value = _encoded(customer, self._body("clean" if kind == "without_key" else kind, n))
            key = None if kind == "without_key" else customer.encode()
            yield Ticket(key=key, value=value, headers=self._headers(), kind=kind)

    def _customer(self) -> str:
        return f"customer-{self.chance.randrange(CUSTOMERS):03d}"

    def _headers(self) -> tuple[tuple[str, bytes], ...]:
        """CloudEvents' headers in Kafka's binary mode, which a worker passes through."""
        self._number += 1
        return (("ce_id", b"%06d" % self._number), ("ce_source", b"/helpdesk"), ("ce_type", b"ticket.opened"))

    def _body(self, kind: str, n: int) -> Body:
        templates = self._templates[kind]
        template = templates[n % len(templates)]
        text = self._filled(template["text"])
        if "line" in template:
            text = "\n".join([text, *(self._filled(template["line"]) for _ in range(LONG_LINES))])
        return {"subject": self._filled(template["subject"]), "text": text}

    def _filled(self, template: str) -> str:
        """Replace each `{word}` that the file knows by one of its words; other braces are text."""
        return _PLACEHOLDER.sub(
            lambda found: self.chance.choice(self._words[found[1]]) if found[1] in self._words else found[0], template
        )


def _encoded(customer: str, body: Body) -> bytes:
    plan = PLANS[int(customer.removeprefix("customer-")) % len(PLANS)]
    return json.dumps(body | {"customer": {"id": customer, "plan": plan}}, ensure_ascii=False).encode()


def _malformed(value: bytes, n: int) -> bytes:
    """Return what no JSON reader takes: cut in the middle, NaN, a second value, plain text."""
    ways = (value[: len(value) // 2], b'{"subject": NaN}', value + value, b"Dear support, my password is lost.")
    return ways[n % len(ways)]


def _not_utf8(value: bytes, n: int) -> bytes:
    """Return the ticket with a byte that UTF-8 does not know, as old mail gateways send it."""
    return value.replace(b" ", b"\xe9" if n % 2 else b"\xff", 1)


def _oversized(value: bytes, n: int) -> bytes:
    """Return the ticket with an attachment pasted into it."""
    pasted = b'", "attachment": "' + b"%02x" % n * (OVERSIZED_BYTES // 2)
    return value.removesuffix(b'"}}') + pasted + b'"}}'


_SPOILT: dict[str, Callable[[bytes, int], bytes]] = {
    "malformed_json": _malformed,
    "not_utf8": _not_utf8,
    "oversized": _oversized,
}
