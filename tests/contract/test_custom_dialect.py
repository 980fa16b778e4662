"""`dialect: custom`: a server that is described in the configuration is asked and understood as it was described."""

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support import fault_server as http
from tests.support.dialects import CUSTOM, body_of
from tests.support.llm_settings import ASK, Serve, Start, ask, model_settings
from tests.support.settings_files import MARK, SOUND, patient, planted, write_sound
from workers.cli.configuration import examine
from workers.cli.dry_run_models import model_findings
from workers.cli.echo import resolved
from workers.cli.schema import editor_schema
from workers.cli.try_record import course
from workers.errors import AnswerCut, AnswerOffSchema, BadEnvelope, WrongModel
from workers.llm import Client
from workers.llm.dialects.custom import Custom
from workers.ports import Ask
from workers.settings.custom import CustomSettings
from workers.settings.model import Settings
from workers.settings.source import load
from workers.settings.tree import read_tree
from workers.task import compile_task

BODY = """\
      body:
        instructions: <system>
        inputs:
          - {text: <prompt>, lang: en}
        limit: <max_tokens>
        tenant: "${TENANT:acme}"
"""
SERVER = f"""\
    dialect: custom
    custom:
      method: POST
      path: /classify
{BODY}      answer: result
"""
"""Below a model in a configuration; for a server that answers with an object."""

CONFIGURATION = SOUND.replace("    model: tiny\n", f"    model: tiny\n{SERVER}")
GOOD = http.status(200, {"result": {"label": "spam"}})
RECORD = b'{"text": "Buy now"}'


def custom(**changes: Any) -> Custom:
    """Return the dialect of `CUSTOM`, with other settings."""
    return Custom(CustomSettings.model_validate({**CUSTOM, **changes}))


def read(body: object, **changes: Any) -> tuple[str, str, str, int, int]:
    """Return what the dialect finds in the body of a 200."""
    return custom(**changes).read(json.dumps(body).encode())[:5]


def at(text: str, url: str) -> str:
    """Return the configuration of a server that runs."""
    return patient(text).replace("http://localhost:8000", url)


# ------------------------------------------------------------------ what is sent


@given(st.text(), st.text())
@example('say "<prompt>"\n\x00', "<prompt>")
def test_placeholders_keep_their_type_and_texts_are_never_templates(text: str, system: str) -> None:
    """Only the template has holes: a text that looks like one, or like the mark of one, arrives as it is."""
    wanted = Ask(name="t", system=system, schema=ASK.schema, max_tokens=64, temperature=0.5)
    assert json.loads(custom().frame("tiny", wanted).around(text).body) == {
        "instructions": system,
        "inputs": [{"text": text, "lang": "en"}],
        "form": ASK.schema,
        "limits": {"tokens": 64, "heat": 0.5, "stop": ["<eos>", "</s>"]},
        "who": "tiny",
        "stream": False,
    }


def test_a_text_answer_has_no_schema() -> None:
    """Its place holds null: what is not there cannot be left out of a template."""
    body = custom().frame("tiny", Ask(name="t", system="", schema=None, max_tokens=1, temperature=0.0)).around("x").body
    assert json.loads(body)["form"] is None


def test_a_body_may_be_a_list() -> None:
    """As servers of several texts want it."""
    assert custom(body=["<prompt>", 1]).frame("tiny", ASK).around("x").body == b'["x",1]'


async def test_method_and_path(serve: Serve, start: Start) -> None:
    """Both are the configuration's, a query included; the root may be given with a slash."""
    server = await serve(http.status(200, body_of("custom", "hi")))
    changed = {**CUSTOM, "method": "PUT", "path": "/v1/classify?mode=one"}
    assert (await ask(await start(f"{server.url}/", dialect="custom", custom=changed))).text == "hi"
    assert (server.requests[0].method, server.requests[0].path) == ("PUT", "/v1/classify?mode=one")


async def test_the_stale_connection_is_replaced_for_put_as_well(serve: Serve, start: Start) -> None:
    """The retry on a fresh connection sends what the first try sent (aiohttp has one of its own before, for PUT)."""
    fine = http.status(200, body_of("custom", "hi"))
    server = await serve(fine, http.close(), http.close(), default=fine)
    client = await start(server.url, dialect="custom", custom={**CUSTOM, "method": "PUT"}, max_attempts=2)
    assert [(await ask(client)).text for _ in range(2)] == ["hi", "hi"]
    assert [seen.method for seen in server.requests] == ["PUT"] * 4


# ------------------------------------------------------------------ what comes back


def test_an_object_is_an_answer() -> None:
    """It goes on as JSON, as if the model had written it; so does a list, and the whole body where the path says so."""
    assert read(body_of("custom", {"label": "späm"}))[0] == '{"label":"späm"}'
    assert read(body_of("custom", [1, None]))[0] == "[1,null]"
    assert read({"label": "spam"}, answer=".") == ('{"label":"spam"}', "", "", 0, 0)


def test_optional_paths() -> None:
    """What has no path, and what is not there, is left out."""
    assert read(body_of("custom", "hi")) == ("hi", "tiny", "stop", 11, 7)
    assert read({"text": "hi"}, answer="text") == ("hi", "", "", 0, 0)
    bare = {"path": "/", "body": ["<prompt>"], "answer": "result.0.text"}
    silent = Custom(CustomSettings.model_validate(bare)).read(json.dumps(body_of("custom", "hi")).encode())
    assert silent[:5] == ("hi", "", "", 0, 0)


@pytest.mark.parametrize(
    "body", [{}, [], "x", 7, None, {"result": []}, {"result": {"0": "x"}}, {"result": [{"tex": "x"}]}]
)
async def test_an_answer_that_is_not_there(serve: Serve, start: Start, body: object) -> None:
    """A 200 without it is no completion; the error names the endpoint and the path, and quotes nothing."""
    server = await serve(default=http.status(200, body if body is not None else "null"))
    with pytest.raises(BadEnvelope) as raised:
        await ask(await start(server.url, dialect="custom", custom=CUSTOM))
    assert str(raised.value).startswith(f"{server.url}: 200 without an answer at `result.0.text` (custom.answer)")


@pytest.mark.parametrize("said", [7, 0.5, True, False])
def test_an_answer_that_is_neither_text_nor_object(said: object) -> None:
    """The path leads elsewhere: an answer is never a bare number."""
    with pytest.raises(BadEnvelope, match=r"`result\.0\.text` \(custom\.answer\): a number, true or false"):
        read(body_of("custom", said))


def test_an_object_too_deep_to_be_written() -> None:
    """More levels can be read than written: the answer is refused, the server is not blamed."""
    deep: Any = 1
    for _ in range(300):
        deep = [deep]
    with pytest.raises(AnswerOffSchema):
        read(body_of("custom", deep))


async def test_the_name_of_the_model_can_be_demanded(serve: Serve, start: Start) -> None:
    """`strict_model` looks where `custom.model` says."""
    server = await serve(http.status(200, {**body_of("custom", "hi"), "served_by": "other"}))
    with pytest.raises(WrongModel):
        await ask(await start(server.url, dialect="custom", custom=CUSTOM, strict_model=True))


# ------------------------------------------------------------------ the configuration

# What is replaced in the configuration, by what (with a mark), and what must be said there.
MISTAKES = {
    "no prompt": (
        "      body:\n        instructions: <system>\n        inputs:\n          - {text: <prompt>, lang: en}\n",
        "      body:\n        «instructions: <system>\n",
        "`models.small.custom.body` must hold `<prompt>` as the value where the user's text goes",
    ),
    "two prompts": ("lang: en", "lang: «<prompt>", "`models.small.custom.body.inputs[0].lang` must not be a second"),
    "unknown placeholder": (
        "instructions: <system>",
        "instructions: «<sytem>",
        "plain text: no `<sytem>`; did you mean `<system>`? (write `<<sytem>` to send that text)",
    ),
    "placeholder inside a text": (
        "instructions: <system>",
        "instructions: «Be brief. <system>",
        "`models.small.custom.body.instructions` must be `<system>` alone",
    ),
    "number that JSON has not": ("limit: <max_tokens>", f"limit: {10**30}", "must be what JSON can say"),
    "body that is a text": (
        BODY,
        "      body: «<prompt>\n",
        "`models.small.custom.body` must be a mapping or a list",
    ),
    "no such method": ("method: POST", "method: «GET", "must be one of 'POST' or 'PUT'"),
    "path without a slash": ("path: /classify", "path: «classify", "must begin with `/`"),
    "path with a blank": ("path: /classify", "path: «/a b", "must begin with `/`, and have neither spaces nor `#`"),
    "empty path": ("path: /classify", "path: «''", "must begin with `/`"),
    "empty answer": ("answer: result", "answer: «''", "`.` is the whole body"),
    "hole in a path": ("answer: result", "answer: «a..b", "must name members with a `.` between them"),
    "no answer": ("      answer: result\n", "", "`answer` is missing in `models.small.custom`"),
    "typo": ("answer: result", "«anwser: result\n      answer: x", "did you mean `answer`?"),
    "not described": (SERVER, "    dialect: custom\n", "`dialect: custom` wants `custom`, with `path`, `body`"),
    "another dialect": (
        "    dialect: custom\n    custom:\n      method: POST",
        "    dialect: vllm\n    custom:\n      «method: POST",
        "`models.small.custom` must stand beside `dialect: custom`",
    ),
    "strict without a name": (
        "    model: tiny\n",
        "    model: tiny\n    strict_model: «true\n",
        "must have `custom.model`",
    ),
    "root that is cut": ("url: http://localhost:8000", "url: «http://localhost:8000/v1/", "beginning of `custom.path`"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_the_description(name: str, tmp_path: Path) -> None:
    """One error, at the value that has to be changed, with what to write there."""
    old, new, what = MISTAKES[name]
    if MARK in new:
        text, place = planted(old, new, CONFIGURATION)
    else:
        text, place = CONFIGURATION.replace(old, new), None
    _, problems = examine(write_sound(tmp_path, text), {})
    [error] = [problem for problem in problems if problem.severity == "error"]
    assert what in error.what
    if place is not None:
        assert (error.line, error.column) == place


def test_a_sound_description(tmp_path: Path) -> None:
    """Nothing is wrong with it, variables are replaced, and what `echo` prints of it reads back as the same."""
    path = write_sound(tmp_path, CONFIGURATION)
    loaded, problems = examine(path, {"TENANT": "initech"})
    assert (problems, loaded is not None) == ([], True)
    assert loaded is not None
    described = loaded.settings.models["small"].custom
    assert described is not None
    assert isinstance(described.body, dict)
    assert described.body["tenant"] == "initech"
    again = tmp_path / "again.yaml"
    again.write_text(resolved(loaded))
    assert load(again, {}).settings == loaded.settings


def test_editors_know_it() -> None:
    """The schema takes the description, and refuses a method that it has not."""
    validator = jsonschema_rs.validator_for(editor_schema())
    written = read_tree(CONFIGURATION, None).root
    validator.validate(written)
    written["models"]["small"]["custom"]["method"] = "GET"
    assert not validator.is_valid(written)


# ------------------------------------------------------------------ the whole way


async def test_try(serve: Serve, tmp_path: Path) -> None:
    """One record: the server is asked as described, and its object becomes the enrichment."""
    server = await serve(GOOD)
    loaded = load(write_sound(tmp_path, at(CONFIGURATION, server.url)), {})
    trial = await course(loaded.settings, "triage", RECORD, None)
    assert trial.failure is None
    [outgoing] = trial.outgoing
    assert json.loads(outgoing.value or b"")["enrichment"] == {"label": "spam"}
    body: Any = server.bodies[0]
    assert body == {
        "instructions": "Sort it.",
        "inputs": [{"text": "Buy now", "lang": "en"}],
        "limit": 256,
        "tenant": "acme",
    }


async def test_dry_run(serve: Serve, tmp_path: Path) -> None:
    """A good answer is fine without a finish reason; a bad one names the settings that describe the server."""
    server = await serve(default=GOOD)
    settings = load(write_sound(tmp_path, at(CONFIGURATION, server.url)), {}).settings
    [fine] = await model_findings(settings, "triage", settings.tasks["triage"])
    assert (fine.state, "finish_reason" in fine.what) == ("ok", False)
    assert "the answer is JSON by the schema" in fine.what
    server.default = http.status(200, {"results": {}})
    [failed] = await model_findings(settings, "triage", settings.tasks["triage"])
    assert "no such member" in failed.what
    assert failed.todo.startswith("mend models.small.url and models.small.custom:")


def compiled(settings: Settings) -> Any:
    """Return the task, compiled on its model."""
    model = settings.models["small"]
    return compile_task("triage", settings.tasks["triage"], Client("small", model), model)


def test_a_larger_budget_is_asked_for_only_where_the_body_has_one(tmp_path: Path) -> None:
    """Without `<max_tokens>` the second ask after a cut answer would be the same request again."""
    with_limit = load(write_sound(tmp_path / "a", CONFIGURATION), {}).settings
    without = load(write_sound(tmp_path / "b", CONFIGURATION.replace("<max_tokens>", "9")), {}).settings
    assert compiled(with_limit).wide_frame is not None
    assert compiled(without).wide_frame is None


async def test_length_means_cut(serve: Serve, tmp_path: Path) -> None:
    """Where `finish_reason` says so, half an object is a cut answer."""
    server = await serve(http.status(200, {"result": '{"label": "sp', "why": "length"}))
    text = at(CONFIGURATION, server.url).replace("answer: result", "answer: result\n      finish_reason: why")
    trial = await course(load(write_sound(tmp_path, text), {}).settings, "triage", RECORD, None)
    assert isinstance(trial.failure, AnswerCut)


def test_the_template_itself_stays_as_it_was() -> None:
    """Frames are made from it again and again."""
    settings = model_settings("http://h", dialect="custom", custom=CUSTOM)
    assert settings.custom is not None
    before = json.dumps(settings.custom.body)
    Custom(settings.custom).frame("tiny", ASK)
    assert json.dumps(settings.custom.body) == before
