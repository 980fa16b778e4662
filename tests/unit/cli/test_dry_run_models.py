"""What the dry run says of a model's answer, and what it advises."""

from dataclasses import replace

import pytest

from tests.support.llm_settings import model_settings
from tests.support.wire import make_reply, make_task
from workers.cli.dry_run_models import advice, of_the_server, remarks
from workers.errors import (
    AnswerCut,
    AnswerNotJson,
    AnswerOffSchema,
    AnswerUncertain,
    ConnectFailed,
    ConnectionLost,
    Declined,
    Misconfigured,
    NoAnswer,
    Overloaded,
    QuotaSpent,
    TimedOut,
)
from workers.llm import Card
from workers.llm.status import TABLE

NAMES = {"at": "models.small", "url": "models.small.endpoints[1].url", "dialect": "models.small.dialect"}
MODEL = model_settings("http://vllm-0:8000", model="Qwen/Qwen2.5-3B-Instruct", timeout_s=1.0)
BY_SCHEMA = replace(make_task(), check=lambda _: None)


@pytest.mark.parametrize(
    ("error", "setting"),
    [
        (TimedOut("slow"), "models.small.timeout_s"),
        (ConnectFailed("refused"), "models.small.endpoints[1].url"),
        (ConnectionLost("reset"), "http or https"),
        (Overloaded("503: loading"), "wait until the server has loaded"),
        (QuotaSpent("402"), "pay for the account behind models.small.api_key"),
        (Declined("400"), "models.small.max_tokens"),
        (AnswerCut("cut"), "models.small.max_tokens"),
        (AnswerNotJson("prose"), "keep to a JSON Schema"),
        (AnswerOffSchema("other"), "keep to a JSON Schema"),
        (AnswerUncertain("0.2"), "answer.confidence.at_least, or use a larger model"),
    ],
)
def test_each_error_has_its_advice(error: NoAnswer, setting: str) -> None:
    """The advice names the setting to mend, as it is called in this configuration."""
    assert setting in advice(error, NAMES)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.meaning)
def test_each_answer_of_a_server_has_its_advice(row: object) -> None:
    """No row of the client's table ends in the advice for what nobody thought of."""
    meaning, kind = row.meaning, row.error  # type: ignore[attr-defined]
    assert advice(kind(f"404 from http://h: {meaning}"), NAMES) != "look at the server"


def test_faults_of_configuration_are_told_apart() -> None:
    """Key, model and address are three different settings; the server's own words do not decide."""
    told = {row.meaning: advice(Misconfigured(row.meaning), NAMES) for row in TABLE if row.error is Misconfigured}
    assert told["the API key is missing or wrong"] == "mend models.small.api_key"
    assert told["the server does not have the configured model"].startswith("mend models.small.model:")
    paths = [todo for meaning, todo in told.items() if "path" in meaning or "redirects" in meaning]
    assert len(paths) == 2
    assert all(todo.startswith("mend models.small.endpoints[1].url") for todo in paths)
    quoted = Misconfigured("404 from http://h: no such path; it says: no API key")
    assert advice(quoted, NAMES).startswith("mend models.small.endpoints[1].url")


def test_a_good_answer_is_described() -> None:
    """Latency against its limit, tokens, and that the schema was kept."""
    assert list(remarks(make_reply(), BY_SCHEMA, MODEL)) == [
        "answers in 0.18 s (timeout_s 1), 212+19 tokens",
        "the answer is JSON by the schema",
    ]


def test_what_is_odd_about_a_good_answer_is_said() -> None:
    """A slow lone call, an odd end, JSON in a fence and another model's name are remarks, no failures."""
    reply = make_reply(latency_s=0.6, finish_reason="", text='```json\n{"category": "x"}\n```', model="other")
    said = list(remarks(reply, BY_SCHEMA, MODEL))
    assert [part for part in said if "more than half of timeout_s" in part]
    assert "finish_reason missing" in said
    assert "the JSON had to be repaired first" in said
    assert "the server calls the model `other`" in said


def test_a_text_answer_has_no_schema() -> None:
    """Nothing is said of a schema that a task does not have."""
    assert len(list(remarks(make_reply(text="a summary"), make_task(), MODEL))) == 1


def test_what_the_server_says_of_itself_is_told() -> None:
    """Its context, its slots against ours, and its load; what it does not say is not mentioned."""
    model = model_settings("http://a:8000", slots=64)
    assert list(of_the_server(Card(), model)) == []
    told = " ".join(of_the_server(Card(context_tokens=8_192, slots=4, running=3, waiting=0), model))
    assert "8,192 tokens" in told
    assert "4 requests at a time, fewer than max_in_flight 64" in told
    assert "now it runs 3 requests, and 0 wait" in told
    assert "fewer" not in " ".join(of_the_server(Card(slots=64), model))
