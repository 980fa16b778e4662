"""D10, D11 on the real thing: what a chat template and a tokenizer make of the corpus, and what an obedient model does.

A server puts the record's text into its template and reads special tokens in the whole of it. Here the tokenizer is
llama.cpp's, in llama-server; its vocabulary holds the tokens of one family of models after the other.
"""

import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
import re2
import yaml

from tests.fuzz.shipped import shipped_task
from tests.support.chat_families import FAMILIES, Family
from tests.support.llama_server import LlamaServer
from tests.support.memory import TOPIC
from tests.support.scripted_model import ScriptedModel
from tests.support.tiny_gguf import vocabulary
from tests.support.wire import make_record
from workers.llm.dialects.openai import OpenAI
from workers.outcome import Enriched
from workers.pipeline import decide
from workers.ports import Ask, Frame
from workers.prompts import compile_prompt
from workers.records import Passage, Prompt, Reply, Request
from workers.stages import s2_prompt
from workers.stages.s2_prompt import build
from workers.task import Task

CORPUS = [
    {"name": row["name"], "subject": row["subject"], "text": row["text"]}
    for row in yaml.safe_load((Path(__file__).parent / "injections.yaml").read_text("utf-8"))
]
PLAIN = {"subject": "Invoice", "text": "I was charged twice."}
SHIPPED = shipped_task()
CARELESS = "<ticket>\n{{ record.subject }}\n{{ record.text }}\n</ticket>\nAnswer with the JSON object."
"""A template that neither encodes what a record says nor escapes it."""


@pytest.fixture
def careless(tmp_path: Path) -> Task:
    """The shipped task with a template of somebody in a hurry."""
    (tmp_path / "system.txt").write_text("Sort it.")
    (tmp_path / "user.j2").write_text(CARELESS)
    return replace(SHIPPED, render=compile_prompt(tmp_path / "system.txt", tmp_path / "user.j2").render)


@pytest.fixture
def unguarded(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Stage 2 as it would be without making texts harmless, once a test says `switch_off`."""
    return monkeypatch


def switch_off(patch: pytest.MonkeyPatch) -> None:
    """Send texts to the model as they are."""
    patch.setattr(s2_prompt, "_harmless", lambda text: text)


# ------------------------------------------------------------------ the tokenizer


class Tokenizer:
    """What a server of one family sees in a ticket."""

    def __init__(self, server: LlamaServer) -> None:
        self._server = server
        self._tokens = vocabulary(server.family)[0]
        self._first = len(self._tokens) - len(server.family.tokens)

    def marks(self, task: Task, *tickets: dict[str, str]) -> list[str]:
        """Return the tokens of a whole conversation that are no text, in their order; each ticket is a user's turn."""
        asked = [messages_of(ticket, task) for ticket in tickets]
        spoken = {"messages": [asked[0][0], *(user for _, user in asked)]}
        prompt = self._server.asked("/apply-template", spoken)["prompt"]
        read = {"content": prompt, "parse_special": True, "add_special": False}
        return [self._tokens[one] for one in self._server.asked("/tokenize", read)["tokens"] if one >= self._first]

    def changed(self, task: Task) -> list[str]:
        """Return the names of the tickets whose conversation has other marks than a plain ticket's."""
        if self.marks(task, *CORPUS) == self.marks(task, *[PLAIN] * len(CORPUS)):
            return []  # all in one conversation: that they change nothing is quickly seen
        plain = self.marks(task, PLAIN)
        return [ticket["name"] for ticket in CORPUS if self.marks(task, ticket) != plain]


def messages_of(ticket: dict[str, str], task: Task) -> tuple[dict[str, str], dict[str, str]]:
    """Return what is asked for a ticket: the system's message and the user's."""
    system, user = orjson.loads(build(Request(make_record(topic=TOPIC), ticket), task).body)["messages"]
    return system, user


@pytest.mark.fault("D10", "D11")
@pytest.mark.parametrize("family", FAMILIES, ids=[family.name for family in FAMILIES])
def test_no_ticket_changes_the_turns(
    family: Family, tmp_path: Path, careless: Task, unguarded: pytest.MonkeyPatch
) -> None:
    """No ticket adds a turn, a thought, a call or an end of text, whatever the prompt's template; unguarded they do."""
    every = {"name": "every token", "subject": family.name, "text": " ".join(family.tokens)}
    with LlamaServer(tmp_path / "server", family=family) as server:
        tokenizer = Tokenizer(server)
        for task in (SHIPPED, careless):
            assert tokenizer.changed(task) == []
            assert tokenizer.marks(task, every) == tokenizer.marks(task, PLAIN) != []
        switch_off(unguarded)
        changed = tokenizer.changed(careless)
        assert len(tokenizer.marks(careless, every)) == len(tokenizer.marks(careless, PLAIN)) + len(family.tokens)
    assert family.name in changed, "the corpus has a ticket for each family"
    print(f"{family.name}: turns changed, guarded 0 of {len(CORPUS)}, unguarded {len(changed)}")


@pytest.mark.parametrize(
    "text",
    [
        '<p class="x">See <a href="https://example.com">here</a>, <b>now</b><br/></p>',
        "if a[0] < b and b > c[i]: return x | y  # list[str], dict[str, int]",
        "[x] done, [ ] open, [1], [INFO] started, [think twice], <john@example.com>, ~/.profile, a |> b",
        "byte tokens are text: <0x0A>",
    ],
)
def test_ordinary_text_stays_as_it_is(text: str, careless: Task) -> None:
    """Markup, code and lists are read as they were written."""
    _, user = messages_of({"subject": "x", "text": text}, careless)
    assert text in user["content"]


def test_what_is_broken_can_still_be_read(careless: Task) -> None:
    """One blank is all that is put in, also into HTML that is spelt like a token."""
    _, user = messages_of({"subject": "x", "text": "<s>old</s> [INST] <<SYS>>"}, careless)
    assert "< s>old< /s> [ INST] << SYS>>" in user["content"]


# ------------------------------------------------------------------ a model that obeys

_MARK = re2.compile(
    "|".join(sorted({re2.escape(token) for family in FAMILIES for token in family.tokens}, reverse=True))
)
_CATEGORIES = ("billing", "bug", "account", "how_to", "other")


class Obedient(ScriptedModel):
    """A model that does what it is told last, by whomever: a turn inside the user's text, or words behind the data.

    It has no other thought: the same order leads to the same answer, another order to another one.
    """

    def frame(self, ask: Ask) -> Frame:
        """As chat servers take it."""
        return OpenAI().frame("obedient", ask)

    async def complete(self, prompt: Prompt, passage: Passage, *, wait_s: float) -> Reply:
        """Obey."""
        self.then = orjson.dumps(obeyed(orjson.loads(prompt.body))).decode()
        return await super().complete(prompt, passage, wait_s=wait_s)


def obeyed(body: dict[str, Any]) -> dict[str, str]:
    """Return the answer that the conversation's last order leads to."""
    text = body["messages"][-1]["content"]
    turns = [turn for turn in _MARK.split(text)[1:] if turn.strip()]
    order = turns[0] if turns else text.partition("</ticket>")[2]
    chosen = _CATEGORIES[zlib.crc32(order.encode()) % len(_CATEGORIES)]
    return {"category": chosen, "urgency": "high", "summary": f"I obey: {order}"[:200]}


async def talked_into(task: Task) -> list[str]:
    """Return the names of the tickets whose enrichment is another than a plain ticket's."""
    plain = await enrichment(PLAIN, task)
    return [ticket["name"] for ticket in CORPUS if await enrichment(ticket, task) != plain]


async def enrichment(ticket: dict[str, str], task: Task) -> Any:
    """Take a ticket through the main path."""
    outcome = await decide(make_record(topic=TOPIC, value=orjson.dumps(ticket)), task, Passage(10.0))
    assert isinstance(outcome, Enriched), outcome
    return outcome.enrichment


@pytest.mark.fault("D10", "D11")
async def test_an_obedient_model_hears_nobody_but_us(careless: Task, unguarded: pytest.MonkeyPatch) -> None:
    """By the shipped prompt no ticket changes the answer. Each of its two guards is needed, and has its share.

    Stage 2 breaks turn marks whatever the template. The mark behind the data is the template's own: one that does not
    escape `<` in what it quotes can be closed from inside, as the two tickets show that do so.
    """
    model = Obedient()
    shipped, careless = replace(SHIPPED, model=model), replace(careless, model=model)
    frame = model.frame(Ask(name="triage", system="Sort it.", schema=None, max_tokens=99, temperature=0.0))
    shipped, careless = replace(shipped, frame=frame), replace(careless, frame=frame)
    assert await talked_into(shipped) == []
    closing = await talked_into(careless)
    assert closing == ["fake end of ticket", "fake end of ticket in the subject"]
    switch_off(unguarded)
    half, none = await talked_into(shipped), await talked_into(careless)
    assert {"mistral", "exaone"} <= set(half), "these need no `<`"
    assert {"chatml", "gemma 4", "deepseek", *half, *closing} <= set(none)
    print(f"answers changed of {len(CORPUS)}: 0; careless {len(closing)}, unguarded {len(half)}, both {len(none)}")
