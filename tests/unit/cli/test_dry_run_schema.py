"""Whether a server enforces the answer schema: asked for prose, what it answers says."""

import json
from pathlib import Path

import pytest

from tests.support.fault_server import FaultServer, Seen, Step, answer, status
from tests.support.settings_files import SOUND, patient, write_sound
from tests.support.wire import make_reply
from workers.cli.dry_run_models import model_findings
from workers.cli.dry_run_schema import judged
from workers.cli.findings import Finding, failed
from workers.demo.processes import SimulatedModel
from workers.settings.source import load

GOOD = '{"label": "spam"}'
POEM = "The sea is wide,\nthe sea is deep."


async def asked(folder: Path, *script: Step, text: str = SOUND) -> tuple[list[Finding], FaultServer]:
    """Look at the models of the sound configuration, before a scripted server."""
    async with FaultServer(*script) as server:
        settings = load(write_sound(folder, patient(text).replace("http://localhost:8000", server.url)), {}).settings
        return await model_findings(settings, "triage", settings.tasks["triage"]), server


# What the server answers to a request for prose, and what is said of it.
ANSWERS: dict[str, tuple[Step, str]] = {
    "by the schema": (answer(GOOD), "; enforces the answer schema: asked for prose, it answered by the schema"),
    "prose": (answer(POEM), "does NOT enforce the answer schema: asked for prose, it did not answer with JSON"),
    "other JSON": (answer('{"label": "poem"}'), "does not enforce all of the answer schema"),
    "JSON in a fence": (answer(f"```json\n{GOOD}\n```"), "does NOT enforce the answer schema"),
    "an object that was cut": (answer('{"label": "sp', "length"), "seems to enforce the answer schema"),
    "prose that was cut": (answer(POEM, "length"), "does NOT enforce the answer schema"),
    "nothing": (answer(""), "could not be told (answer_empty when it was asked for prose)"),
    "an error": (status(500), "could not be told (server_error when it was asked for prose)"),
}


def questions(server: FaultServer) -> list[Seen]:
    """Return what was asked of the model: not what the server was asked of itself."""
    return [request for request in server.requests if request.method == "POST"]


@pytest.mark.parametrize("name", ANSWERS)
async def test_what_is_said_of_enforcement(name: str, tmp_path: Path) -> None:
    """A remark in the finding that the server answers; it fails nothing, whatever comes of the second question."""
    step, what = ANSWERS[name]
    [one], server = await asked(tmp_path, answer(GOOD), step)
    assert (one.state, one.todo, len(questions(server))) == ("ok", "", 2)
    assert what in one.what


async def test_the_second_question_has_the_schema_and_does_not_tell_it(tmp_path: Path) -> None:
    """Same schema, none of the task's own text, and no word of what the answer should be."""
    _, server = await asked(tmp_path, answer(GOOD), answer(POEM))
    first, second = (json.loads(request.body) for request in questions(server))
    assert second["response_format"] == first["response_format"]
    assert second["max_tokens"] > first["max_tokens"]
    spoken = json.dumps(second["messages"])
    assert "Sort it." not in spoken
    assert "label" not in spoken


async def test_a_text_answer_and_a_failure_ask_no_second_question(tmp_path: Path) -> None:
    """Without a schema there is nothing to enforce; of a server that does not answer nothing can be told."""
    text = SOUND.replace("{schema: answer.json}", "{text: {}}")
    [one], server = await asked(tmp_path, answer("hello"), text=text)
    assert (one.state, len(questions(server)), "schema" in one.what) == ("ok", 1, False)
    [one], server = await asked(tmp_path, answer("no"))
    assert (one.state, len(questions(server))) == ("failed", 1)


async def test_an_unsure_answer_to_a_test_fails_nothing(tmp_path: Path) -> None:
    """There was no record to be sure of; the advice is there all the same."""
    text = SOUND.replace("{schema: answer.json}", "{schema: answer.json, confidence: {at_least: 0.7}}")
    schema = '{"properties": {"label": {}, "confidence": {"type": "number"}}}'
    async with FaultServer(answer('{"label": "spam", "confidence": 0.1}')) as server:
        path = write_sound(tmp_path, patient(text).replace("http://localhost:8000", server.url), answer__json=schema)
        settings = load(path, {}).settings
        [one] = await model_findings(settings, "triage", settings.tasks["triage"])
    assert (one.state, failed([one])) == ("unknown", False)
    assert "answer.confidence.at_least" in one.todo


async def test_the_simulated_model_enforces_it(tmp_path: Path) -> None:
    """It stands in for a server with a grammar."""
    with SimulatedModel(latency="zero", wrap_ratio=0.0) as model:
        text = (
            patient(SOUND)
            .replace("http://localhost:8000", model.url)
            .replace("    model: tiny\n", "    model: simulated\n")
        )
        settings = load(write_sound(tmp_path, text), {}).settings
        [one] = await model_findings(settings, "triage", settings.tasks["triage"])
    assert "; enforces the answer schema" in one.what


def test_white_space_around_the_answer_does_not_matter() -> None:
    """Grammars allow blanks."""
    assert judged(make_reply(text=f"\n {GOOD}\n"), lambda _: None).startswith("enforces")
