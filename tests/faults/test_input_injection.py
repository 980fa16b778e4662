"""D10-D12: a record is text inside one user message, whatever it says.

What no test here can show: how often a real model changes its label because a ticket told it to. A simulated one obeys
nobody. That rate belongs to an evaluation of the model; what holds whatever the model does is below.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from tests.fuzz.shipped import shipped_task
from tests.support.fault_server import FaultServer, Seen, answer
from tests.support.llm_settings import client_for
from tests.support.memory import TOPIC, MemorySink
from tests.support.wire import make_record, make_reply
from workers.errors import BadAnswer
from workers.outcome import Enriched
from workers.pipeline import decide, finish
from workers.prompts import compile_prompt
from workers.records import Outgoing, Passage, Request
from workers.stages.s2_prompt import build
from workers.stages.s4_parse import parse
from workers.stream.ledger import Ledger
from workers.stream.window import Delivery
from workers.task import Task

CORPUS = yaml.safe_load((Path(__file__).parent / "injections.yaml").read_text("utf-8"))
EACH = pytest.mark.parametrize("ticket", CORPUS, ids=[ticket["name"] for ticket in CORPUS])
OBEYED = [ticket for ticket in CORPUS if "answer" in ticket]
PLAIN = {"subject": "Invoice", "text": "I was charged twice."}
TASK = shipped_task()
OPENING, CLOSING = "\n<ticket>\n", "\n</ticket>\n"
SAID = '{"category":"billing","urgency":"low","summary":"A ticket."}'
TURNS = (
    "<|",
    "[INST]",
    "[/INST]",
    "<s>",
    "</s>",
    "<<SYS>>",
    "<bos>",
    "<eos>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<｜",  # noqa: RUF001 - DeepSeek's bar
)


def value_of(ticket: dict[str, Any]) -> bytes:
    """Return the record that a producer writes for a ticket."""
    return orjson.dumps({"subject": ticket["subject"], "text": ticket["text"]})


def asked(value: Any, task: Task = TASK) -> dict[str, Any]:
    """Return the request for a decoded record."""
    body: dict[str, Any] = orjson.loads(build(Request(make_record(topic=TOPIC), value), task).body)
    return body


def user_text(body: dict[str, Any]) -> str:
    """Return what the user's message says, and leave a hole in its place."""
    text = body["messages"][1]["content"]
    body["messages"][1]["content"] = None
    assert isinstance(text, str)
    return text


def test_the_corpus_is_not_lost() -> None:
    """It has at least forty tickets under names of their own, and most of them ask for an answer of a certain kind."""
    assert len({ticket["name"] for ticket in CORPUS}) == len(CORPUS) >= 40
    assert len(OBEYED) >= 20


@pytest.mark.fault("D10", "D12")
@EACH
def test_a_ticket_changes_nothing_but_the_text_between_its_marks(ticket: dict[str, Any]) -> None:
    """Roles, parts, model and options stay; the ticket is one JSON text between the marks that the template set."""
    body, plain = asked(orjson.loads(value_of(ticket))), asked(PLAIN)
    text, expected = user_text(body), user_text(plain)
    assert body == plain, "something outside the user's message"
    before, opening, rest = text.partition(OPENING)
    inside, closing, after = rest.partition(CLOSING)
    assert (opening, closing) == (OPENING, CLOSING)
    assert (before, after) == (expected.partition(OPENING)[0], expected.rpartition(CLOSING)[2])
    assert "<" not in inside, "no mark can begin or end inside"
    assert set(orjson.loads(inside)) == {"subject", "body"}


@pytest.mark.fault("D11")
@EACH
def test_a_ticket_cannot_end_its_turn_nor_hide_text(ticket: dict[str, Any], tmp_path: Path) -> None:
    """Also through a template that marks nothing: no token of a chat template, no character that nobody can see."""
    (tmp_path / "system.txt").write_text("Sort it.")
    (tmp_path / "user.j2").write_text("{{ record.subject }}\n{{ record.text }}")
    bare = replace(TASK, render=compile_prompt(tmp_path / "system.txt", tmp_path / "user.j2").render)
    value = value_of(ticket)
    text = user_text(asked(orjson.loads(value), bare))
    assert [token for token in TURNS if token in text] == []
    assert not [character for character in text if ord(character) < 0x20 and character not in "\t\n"]
    assert not [character for character in text if 0x202A <= ord(character) <= 0x202E or ord(character) >= 0xE0000]
    assert value == value_of(ticket)


@pytest.mark.fault("D10")
@pytest.mark.parametrize("ticket", OBEYED, ids=[ticket["name"] for ticket in OBEYED])
def test_the_answer_of_a_model_that_obeys_is_refused(ticket: dict[str, Any]) -> None:
    """What a ticket talked a model into has still to pass the answer schema: it becomes no enrichment."""
    with pytest.raises(BadAnswer):
        parse(replace(make_reply(), text=ticket["answer"]), TASK)


async def passed(ticket: dict[str, Any], task: Task) -> list[Outgoing]:
    """Take a ticket through the pipeline with a real client; return what is produced."""
    sink, passage = MemorySink(), Passage(10.0)
    record = make_record(topic=TOPIC, value=value_of(ticket), headers=())
    delivery = Delivery(record, Ledger(TOPIC, record.partition, 0), record.key, passage)
    outcome = await finish(delivery, await decide(record, task, passage), task, sink)
    assert isinstance(outcome, Enriched)
    return sink.sent


def frame_of(seen: Seen) -> tuple[str, dict[str, str], dict[str, Any]]:
    """Return path, headers and body of a request, without the user's text, its length and the number of the call."""
    body = orjson.loads(seen.body)
    user_text(body)
    own = ("content-length", "x-request-id")
    return seen.path, {name: value for name, value in seen.headers.items() if name.lower() not in own}, body


@pytest.mark.fault("D10", "D12")
async def test_a_ticket_reaches_no_other_place() -> None:
    """URL, HTTP headers and request around the text are those of a plain ticket; so are topic, key, headers of outputs.

    No ticket makes a second request, whatever URL is in it.
    """
    async with FaultServer(default=answer(SAID)) as server:
        client = client_for(server.url)
        await client.start()
        try:
            task = replace(TASK, model=client)
            [plain] = await passed(PLAIN, task)
            for ticket in CORPUS:
                [outgoing] = await passed(ticket, task)
                assert (outgoing.topic, outgoing.key, outgoing.partition) == (plain.topic, plain.key, plain.partition)
                assert outgoing.headers == plain.headers
        finally:
            await client.close()
        frames = [frame_of(seen) for seen in server.requests]
    assert len(frames) == 1 + len(CORPUS)
    assert all(frame == frames[0] for frame in frames)
