"""What `penstock try` makes of one record, against a scripted server: one call, and what would come of it."""

import json
from pathlib import Path
from typing import Any

import pytest
import typer

from tests.support.fault_server import FaultServer, Step, answer, close, status
from tests.support.llm_settings import refused_url
from tests.support.settings_files import SOUND, patient, write_sound
from workers.cli.try_record import AS_THE_WORKER, Wanted, course
from workers.cli.try_report import as_plain, exit_code, show
from workers.errors import Exit
from workers.settings.source import load

GOOD = '{"label": "spam"}'
RECORD = b'{"text": "Buy now"}'
HIDDEN = "sk-do-not-show-me"


async def tried(
    folder: Path,
    *script: Step,
    text: str = SOUND,
    value: bytes = RECORD,
    key: str | None = "k",
    wanted: Wanted = AS_THE_WORKER,
    **files: str,
) -> tuple[int, dict[str, Any], FaultServer]:
    """Try a record; return the exit code, the report as a program reads it, and the server with what it saw."""
    async with FaultServer(*script) as server:
        loaded = load(write_sound(folder, patient(text).replace("http://localhost:8000", server.url), **files), {})
        trial = await course(loaded.settings, "triage", value, key, wanted)
    plain = as_plain(trial, loaded.redactor)
    assert json.loads(json.dumps(plain)) == plain
    return exit_code(trial), plain, server


async def test_an_enriched_record(tmp_path: Path) -> None:
    """Prompt, reply, enrichment and what would be produced are those of the worker; one call was made."""
    code, plain, server = await tried(tmp_path, answer(GOOD))
    assert (code, plain["outcome"], plain["tier"], len(server.requests)) == (0, "enriched", "model", 1)
    assert (plain["system"], plain["user"]) == ("Sort it.", "Buy now")
    asked = json.loads(server.requests[0].body)
    assert [one["content"] for one in asked["messages"]] == ["Sort it.", "Buy now"]
    assert plain["reply"]["text"] == GOOD
    assert (plain["reply"]["finish_reason"], plain["reply"]["input_tokens"], plain["reply"]["output_tokens"]) == (
        "stop",
        11,
        7,
    )
    assert (plain["enrichment"], plain["failure"], plain["repairs"]) == ({"label": "spam"}, None, [])
    [one] = plain["produced"]
    assert (one["topic"], one["key"]) == ("raw.triage.enriched", "k")
    value = json.loads(one["value"])
    assert (value["input"], value["enrichment"]) == (json.loads(RECORD), {"label": "spam"})


async def test_an_answer_inside_a_fence_names_the_rung_of_salvage(tmp_path: Path) -> None:
    """What had to be dug out is good, and the report says how."""
    code, plain, _ = await tried(tmp_path, answer(f"Sure!\n```json\n{GOOD}\n```"))
    assert (code, plain["outcome"], plain["repairs"]) == (0, "enriched", ["fenced"])


# What the server does, and: exit code, stage, reason, outcome, what the worker would do before that.
NO_ANSWER: dict[str, tuple[Step, int, str, str, str, list[str]]] = {
    "prose": (answer("no"), 1, "parse", "answer_not_json", "fallback", ["ask the model once more (asked_again)"]),
    "cut": (
        answer('{"lab', finish_reason="length"),
        1,
        "parse",
        "answer_cut",
        "fallback",
        ["ask the model once more (larger_budget)"],
    ),
    "off the schema": (
        answer('{"label": "x"}'),
        1,
        "parse",
        "answer_off_schema",
        "fallback",
        ["ask the model once more (asked_again)"],
    ),
    "request refused": (status(400), 1, "call", "request_refused", "fallback", []),
    "busy": (
        status(429),
        69,
        "call",
        "busy",
        "fallback",
        ["try again when the endpoint has cooled down, within deadline_s 5"],
    ),
    "quota spent": (status(402), 69, "call", "quota_spent", "fallback", []),
    "server error": (
        status(500),
        69,
        "call",
        "server_error",
        "fallback",
        ["try again, up to 3 calls within deadline_s 5"],
    ),
    "wrong key": (status(401), 78, "call", "misconfigured", "held", []),
}


@pytest.mark.parametrize("name", NO_ANSWER)
async def test_a_failure_says_where_why_and_who_answers(name: str, tmp_path: Path) -> None:
    """The stage, the reason, what to do, and the rung that answers; one call whatever the error allows."""
    step, code, stage, reason, outcome, would = NO_ANSWER[name]
    ended, plain, server = await tried(tmp_path, step)
    failure = plain["failure"]
    assert (ended, failure["stage"], failure["reason"], plain["outcome"]) == (code, stage, reason, outcome)
    assert (failure["worker_would_first"], len(server.requests)) == (would, 1)
    assert failure["todo"]
    if outcome == "fallback":
        assert (plain["tier"], plain["rung"], plain["enrichment"]) == ("rules", 0, {"label": "spam"})
        [one] = plain["produced"]
        assert (one["topic"], one["headers"]["__penstock.reason"]) == ("raw.triage.fallback", reason)
        assert json.loads(one["value"])["provenance"]["endpoint"] == server.url
    else:
        assert plain["produced"] == []


async def test_the_next_rung_answers_when_the_first_declines(tmp_path: Path) -> None:
    """The rung's place is that of the configuration's ladder, whatever kinds of rungs stand before it."""
    _, plain, _ = await tried(tmp_path, status(500), value=b'{"text": "hello"}')
    assert (plain["tier"], plain["rung"], plain["enrichment"]) == ("default", 1, {"label": "other"})


async def test_no_further_call_is_promised_when_the_configuration_allows_one(tmp_path: Path) -> None:
    """`max_attempts: 1` leaves the ladder to answer at once."""
    text = SOUND.replace("    model: tiny\n", "    model: tiny\n    max_attempts: 1\n")
    _, plain, _ = await tried(tmp_path, status(500), text=text)
    assert plain["failure"]["worker_would_first"] == []


async def test_a_model_in_the_ladder_is_named_and_not_asked(tmp_path: Path) -> None:
    """Another model would be asked before the ladder's own answers."""
    text = SOUND.replace("  small:", "  large:\n    model: big\n    url: http://localhost:8000\n  small:")
    text = text.replace("    ladder:\n", "    ladder:\n      - model: large\n")
    _, plain, server = await tried(tmp_path, answer("no"), text=text)
    assert plain["failure"]["worker_would_first"] == [
        "ask the model once more (asked_again)",
        "ask large (to try it: --model large)",
    ]
    assert (plain["tier"], plain["rung"], len(server.requests)) == ("rules", 1, 1)


LADDER = SOUND.replace("  small:", "  large:\n    model: big\n    url: http://localhost:8000\n  small:").replace(
    "    ladder:\n", "    ladder:\n      - model: large\n"
)


async def test_another_model_of_the_ladder_can_be_asked(tmp_path: Path) -> None:
    """With its own name and settings; when it gives no answer there is no model left, and the ladder answers."""
    code, plain, server = await tried(tmp_path, answer(GOOD), text=LADDER, wanted=Wanted(model="large"))
    assert (code, plain["asked"], len(server.requests)) == (0, {"model": "large", "endpoint": server.url}, 1)
    assert json.loads(server.requests[0].body)["model"] == "big"
    text = LADDER.replace("model: big", "model: big\n    timeout_s: 60\n    max_attempts: 1")
    _, plain, server = await tried(tmp_path, status(401), text=text, wanted=Wanted(model="large"))
    assert "models.large.api_key" in plain["failure"]["todo"]
    _, plain, _ = await tried(tmp_path, status(500), text=text, wanted=Wanted(model="large"))
    assert (plain["failure"]["worker_would_first"], plain["tier"]) == ([], "rules")


async def test_the_model_that_a_route_leads_to_is_asked(tmp_path: Path) -> None:
    """As the worker does; `--model` has the last word."""
    text = LADDER.replace("      - model: large\n", "").replace(
        "    model: small\n",
        "    model: small\n    routes: [{when: {field: text, contains_any: [buy]}, model: large}]\n",
    )
    _, plain, _ = await tried(tmp_path, answer(GOOD), text=text)
    assert plain["asked"]["model"] == "large"
    _, plain, _ = await tried(tmp_path, answer(GOOD), text=text, value=b'{"text": "hi"}')
    assert plain["asked"]["model"] == "small"
    _, plain, _ = await tried(tmp_path, answer(GOOD), text=text, wanted=Wanted(model="small"))
    assert plain["asked"]["model"] == "small"


@pytest.mark.parametrize("endpoint", ["1", "http://localhost:8000", "http://localhost:8000/"])
async def test_an_endpoint_can_be_chosen(endpoint: str, tmp_path: Path) -> None:
    """By its place, as settings count, or by its URL; the others are not asked, and the advice names its setting."""
    nowhere = refused_url()
    text = SOUND.replace(
        "    url: http://localhost:8000", f"    endpoints: [{{url: '{nowhere}'}}, {{url: 'http://localhost:8000'}}]"
    )
    async with FaultServer(answer(GOOD), close(), default=close()) as server:
        there = server.url
        settings = load(write_sound(tmp_path, patient(text).replace("http://localhost:8000", there)), {}).settings
        wanted = Wanted(endpoint=endpoint.replace("http://localhost:8000", there))
        good = await course(settings, "triage", RECORD, None, wanted)
        bad = await course(settings, "triage", RECORD, None, wanted)
    assert (exit_code(good), good.endpoint) == (0, there)
    assert "models.small.endpoints[1].url" in bad.todo
    first = await course(settings, "triage", RECORD, None)
    assert (first.endpoint, "models.small.endpoints[0].url" in first.todo) == (nowhere, True)


async def test_an_endpoint_that_there_is_not(tmp_path: Path) -> None:
    """A mistake on the command line, with what there is; nothing was asked."""
    for endpoint in ("2", "-1", "http://elsewhere:1"):
        with pytest.raises(typer.BadParameter, match=r"http://127\.0\.0\.1"):
            await tried(tmp_path, wanted=Wanted(endpoint=endpoint))


async def test_what_to_do_about_an_unsure_answer(tmp_path: Path) -> None:
    """The threshold, or a larger model: nothing is wrong with server or dialect."""
    text = SOUND.replace("{schema: answer.json}", "{schema: answer.json, confidence: {field: sure, at_least: 0.7}}")
    schema = '{"properties": {"label": {}, "sure": {"type": "number"}}}'
    _, plain, _ = await tried(tmp_path, answer('{"label": "spam", "sure": 0.1}'), text=text, answer__json=schema)
    assert (plain["failure"]["reason"], plain["outcome"]) == ("uncertain", "fallback")
    assert "answer.confidence.at_least, or use a larger model" in plain["failure"]["todo"]


async def test_under_hold_the_worker_would_wait(tmp_path: Path) -> None:
    """No rung answers for a model that is away when the task holds."""
    text = SOUND.replace("    model: small\n", "    model: small\n    when_unavailable: hold\n")
    code, plain, _ = await tried(tmp_path, status(500), text=text)
    assert (code, plain["outcome"], plain["produced"]) == (69, "held", [])


async def test_under_hold_the_worker_would_wait_for_all_its_models(tmp_path: Path) -> None:
    """The next model is asked first; with that away as well nobody leaves, from whichever of them one looks at it."""
    text = LADDER.replace("    model: small\n", "    model: small\n    when_unavailable: hold\n")
    for model in ("small", "large"):
        code, plain, _ = await tried(tmp_path, status(500), text=text, wanted=Wanted(model=model))
        assert (code, plain["outcome"], plain["produced"]) == (69, "held", [])
    assert (await tried(tmp_path, answer("no"), text=text))[1]["outcome"] == "fallback"


DEFERS = SOUND.replace(
    "    model: small\n",
    "    model: small\n    order: none\n    when_unavailable: defer\n    retry_delay_s: 300\n    max_deferrals: 2\n",
)


async def test_a_record_that_the_worker_would_defer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says where to, for how long and how often, and shows what would be written there; no rung answers yet."""
    code, plain, _ = await tried(tmp_path, status(500), text=DEFERS)
    assert (code, plain["outcome"], plain["tier"], plain["rung"]) == (69, "deferred", None, None)
    there = {"topic": "raw.triage.retry", "retry_delay_s": 300.0, "nth": 1, "max_deferrals": 2}
    assert plain["deferral"] == there
    [one] = plain["produced"]
    assert (one["topic"], one["headers"]["__penstock.retry.deferrals"], one["value"]) == (
        "raw.triage.retry",
        "1",
        RECORD.decode(),
    )
    show(plain)
    shown = capsys.readouterr().out
    assert "deferred: for 300 s to raw.triage.retry, deferral 1 of 2 before the ladder answers" in shown


@pytest.mark.parametrize(
    ("step", "more"),
    [(answer("no"), ""), (status(400), ""), (status(500), "    max_age_s: 200\n")],
    ids=["bad answer", "refused", "would come back too old"],
)
async def test_a_record_that_a_later_try_would_not_mend(step: Step, more: str, tmp_path: Path) -> None:
    """The ladder answers at once, though the task defers."""
    text = DEFERS.replace("    order: none\n", f"    order: none\n{more}")
    _, plain, _ = await tried(tmp_path, step, text=text)
    assert (plain["outcome"], plain["deferral"], plain["tier"]) == ("fallback", None, "rules")


@pytest.mark.parametrize(
    ("value", "stage", "reason"),
    [(b"{", "decode", "not_json"), (b"", "decode", "empty"), (b'{"other": 1}', "prompt", "template")],
)
async def test_a_record_that_makes_no_request(value: bytes, stage: str, reason: str, tmp_path: Path) -> None:
    """A dead letter, and no call."""
    code, plain, server = await tried(tmp_path, value=value)
    assert (code, plain["outcome"], len(server.requests)) == (1, "rejected", 0)
    assert (plain["failure"]["stage"], plain["failure"]["reason"]) == (stage, reason)
    assert [one["topic"] for one in plain["produced"]] == ["raw.triage.dlq"]


async def test_an_answer_that_cannot_be_routed(tmp_path: Path) -> None:
    """`merge` into an input that has the name already: the stage is route, the outcome a dead letter."""
    text = SOUND.replace("    model: small\n", "    model: small\n    shape: merge\n")
    code, plain, _ = await tried(tmp_path, answer(GOOD), text=text, value=b'{"text": "a", "enrichment": 1}')
    assert (code, plain["outcome"], plain["failure"]["stage"]) == (1, "rejected", "route")
    assert [one["topic"] for one in plain["produced"]] == ["raw.triage.dlq"]


async def test_a_record_that_the_task_does_not_select(tmp_path: Path) -> None:
    """It is passed on unasked."""
    text = SOUND.replace("    model: small\n", "    model: small\n    only_when: {field: text, contains_any: [help]}\n")
    code, plain, server = await tried(tmp_path, text=text)
    assert (code, plain["outcome"], plain["tier"], plain["rung"]) == (1, "fallback", "skip", None)
    assert (plain["failure"]["reason"], len(server.requests)) == ("only_when", 0)


async def test_no_secret_is_shown(tmp_path: Path) -> None:
    """A key that the server quotes, or that a record happens to hold, is hidden everywhere."""
    text = SOUND.replace("    model: tiny\n", f"    model: tiny\n    api_key: {HIDDEN}\n")
    said = json.dumps({"label": "spam", "why": HIDDEN})
    _, plain, server = await tried(tmp_path, answer(said), text=text, value=json.dumps({"text": HIDDEN}).encode())
    assert HIDDEN in server.requests[0].headers["authorization"]
    assert HIDDEN not in json.dumps(plain)
    _, plain, _ = await tried(tmp_path, status(401, {"error": {"message": f"no key {HIDDEN}"}}), text=text)
    assert HIDDEN not in json.dumps(plain)


async def test_what_only_an_import_can_tell(tmp_path: Path) -> None:
    """A Python rule that cannot be imported ends with 78, as the configuration's other errors do."""
    text = SOUND.replace("rules: rules.yaml", "rules: {python: 'no_such_module:f'}")
    with pytest.raises(Exit) as ended:
        await tried(tmp_path, text=text)
    assert ended.value.code == 78


async def test_what_a_person_sees_is_harmless_to_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An answer's escape sequences are written out, and square brackets are no markup."""
    _, plain, _ = await tried(tmp_path, answer("\x1b[31m [red] no"))
    show(plain)
    seen = capsys.readouterr().out
    assert "\x1b" not in seen
    assert "\\x1b[31m [red] no" in seen
    assert [line.split()[0] for line in seen.splitlines() if not line.startswith(" ")] == [
        "system",
        "user",
        "asked",
        "reply",
        "parse",
        "outcome",
        "produced",
    ]
