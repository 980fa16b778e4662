"""Reading a configuration: what is refused, where that is said, and what variables become."""

from pathlib import Path

import pytest

from tests.support.settings_files import SOUND, planted, write_sound
from workers.settings.problems import SettingsInvalid
from workers.settings.source import load

OTHER_TASK = "{input: a, model: small, prompt: {system: s, user: u}, answer: {text: {}}, ladder: [skip]}"

# What is replaced in the sound configuration, by what, and what must be said at the mark.
SHAPE_MISTAKES = {
    "unknown key": (
        "  group_id: triage",
        "  group_id: triage\n  «grup_id: x",
        "unknown key `grup_id` in `kafka`; did you mean `group_id`?",
    ),
    "unknown key at the top": ("worker:", "«workers: {}\nworker:", "unknown key `workers`; did you mean `worker`?"),
    "unknown key in a dictionary of models": (
        "    model: tiny",
        "    model: tiny\n    «timeot_s: 1",
        "did you mean `timeout_s`?",
    ),
    "duplicate key": (
        "  group_id: triage",
        "  group_id: triage\n  «group_id: again",
        "duplicate key `group_id`, first in line 3",
    ),
    "duplicate task": ("tasks:", f"tasks:\n  other: &t {OTHER_TASK}\n  «other: *t", "duplicate key `other`"),
    "missing key": ("  group_id: triage\n", "", "`group_id` is missing in `kafka`"),
    "word for a number": ("  drain_s: 20", "  drain_s: «long", "`worker.drain_s` must be a number, not text"),
    "quoted number": ("  drain_s: 20", "  drain_s: «'20'", "must be a number, not text"),
    "true for a number": ("  drain_s: 20", "  drain_s: «true", "must be a number, not true or false"),
    "zero seconds": ("  drain_s: 20", "  drain_s: «0", "must be greater than 0"),
    "endless seconds": ("  drain_s: 20", "  drain_s: «.inf", "must be a finite number"),
    "no is a word (YAML 1.2)": (
        "    input: raw",
        "    input: raw\n    decode_guard: «no",
        "must be true or false, not text",
    ),
    "yes is a word (YAML 1.2)": (
        "    input: raw",
        "    input: raw\n    decode_guard: «yes",
        "must be true or false, not text",
    ),
    "number for a text": ("  group_id: triage", "  group_id: «7", "must be text, not a number"),
    "nothing for a text": ("  group_id: triage", "  group_id:« ", "must be text, not empty"),
    "half a record": (
        "    url: http://localhost:8000",
        "    url: http://localhost:8000\n    max_in_flight: «1.5",
        "must be a whole number, not a fraction",
    ),
    "slots in words": (
        "    url: http://localhost:8000",
        "    url: http://localhost:8000\n    max_in_flight: «many",
        "must be a whole number, or `auto`",
    ),
    "no slots": (
        "    url: http://localhost:8000",
        "    url: http://localhost:8000\n    max_in_flight: «0",
        "must be greater than 0",
    ),
    "ceiling of given slots": (
        "    url: http://localhost:8000",
        "    url: http://localhost:8000\n    latency_ceiling_s: «2",
        "`models.small.latency_ceiling_s` must stand beside `max_in_flight: auto`",
    ),
    "most of given slots": (
        "    url: http://localhost:8000",
        "    endpoints: [{url: http://localhost:8000, max_in_flight: 64, auto_max: «100}]",
        "`models.small.endpoints[0].auto_max` must stand beside `max_in_flight: auto`",
    ),
    "keep_alive of another server": (
        "    model: tiny",
        "    model: tiny\n    keep_alive: «30m",
        "`models.small.keep_alive` must stand beside `dialect: ollama`",
    ),
    "keep_alive without a unit": (
        "    model: tiny",
        "    model: tiny\n    dialect: ollama\n    keep_alive: «30 minutes",
        "`models.small.keep_alive` must be seconds, or a text such as 30m",
    ),
    "keep_alive that is no duration": (
        "    model: tiny",
        "    model: tiny\n    dialect: ollama\n    keep_alive: «true",
        "`models.small.keep_alive` must be seconds, or a text such as 30m",
    ),
    "unknown unit": ("  drain_s: 20", "  max_in_flight_bytes: «64MB", "must be a size such as 64MiB"),
    "unknown choice": (
        "    input: raw",
        "    input: raw\n    order: «keys",
        "must be one of 'key', 'partition' or 'none'",
    ),
    "port": ("  drain_s: 20", "  http: {port: «70000}", "must be at most 65535"),
    "topic name": ("    input: raw", "    input: [a, «b c]", "`tasks.triage.input[1]` must match"),
    "no input": ("    input: raw", "    input: «[]", "must not be empty"),
    "no tasks": (SOUND[SOUND.index("tasks:") :], "tasks: «{}\n", "`tasks` must not be empty"),
    "url and endpoints": (
        "    url: http://localhost:8000",
        "    url: x\n    endpoints: [{url: y}]",
        "give either `url` or `endpoints`",
    ),
    "two kinds of answer": (
        "    answer: {schema: answer.json}",
        "    answer: «{schema: answer.json, text: {}}",
        "give either `schema` or `text`",
    ),
    "unknown rung": (
        "      - default: {label: other}",
        "      - «ask: {}",
        "must be one of model, rules, review, skip, default",
    ),
    "two rungs in one": (
        "      - default: {label: other}",
        "      - review: {}\n        «skip: {}",
        "`skip` does not belong beside the other keys",
    ),
    "misspelt inside a rung": (
        "      - rules: rules.yaml",
        "      - rules: {«pyhton: 'a:b', python: 'a:b'}",
        "did you mean `python`?",
    ),
    "number for a rung's default": (
        "      - default: {label: other}",
        "      - default: «3",
        "must be text, not a number",
    ),
    "list for a section": ("worker:\n  drain_s: 20", "worker: «[]", "`worker` must be a mapping, not a list"),
    "unset variable": (
        "  group_id: triage",
        "  group_id: «${NOT_SET}",
        "the environment variable `NOT_SET` is not set",
    ),
    "unset variable in a text": (
        "  group_id: triage",
        "  group_id: «a-${NOT_SET}-b",
        "the environment variable `NOT_SET` is not set",
    ),
    "broken variable": ("  group_id: triage", "  group_id: «${1x}", "starts no variable"),
    "no secret file": ("  group_id: triage", "  group_id: «${file:nowhere}", "is not there"),
    "foreign tag": ("  group_id: triage", "  group_id: «!secret x", "the tag `!secret` is not read here"),
    "tag that does not fit": ("  drain_s: 20", "  drain_s: «!!int abc", "does not fit its value"),
    "key that is a list": ("  drain_s: 20", "  drain_s: 20\n  ? «[a]\n  : 1", "a key must be plain text"),
    "merge key (YAML 1.1)": ("  drain_s: 20", "  drain_s: 20\n  «<<: {}", "unknown key `<<`"),
    "tab": ("  drain_s: 20", "«\tdrain_s: 20", "found character '\\t'"),
    "unclosed": ("  drain_s: 20", "  drain_s: [20\nmodels2«: x", "not YAML:"),
    "unknown alias": ("  drain_s: 20", "  drain_s: «*x", "not YAML: found undefined alias"),
    "control character": ("  group_id: triage", "  group_id: «\x07", "the character U+0007 is not allowed"),
    "half a surrogate": ("  group_id: triage", '  group_id: «"\\ud800"', "half a surrogate pair is no character"),
}

# Where there is no place to mark: the key above what is missing, the whole model.
UNMARKED = {"missing key": (1, 1), "url and endpoints": (8, 5)}


@pytest.mark.parametrize("name", SHAPE_MISTAKES)
def test_each_mistake_of_shape_is_one_line_at_its_place(name: str, tmp_path: Path) -> None:
    """A mistake is reported once, at the line and column where it was written, in words that say what to do."""
    old, new, what = SHAPE_MISTAKES[name]
    if name in UNMARKED:
        assert old in SOUND
        text, place = SOUND.replace(old, new), UNMARKED[name]
    else:
        text, place = planted(old, new)
    with pytest.raises(SettingsInvalid) as refused:
        load(write_sound(tmp_path, text), environ={})
    problems = refused.value.problems
    assert [(one.line, one.column) for one in problems] == [place], problems
    assert what in problems[0].what
    assert "\n" not in str(problems[0])
    assert str(problems[0]).startswith(f"{tmp_path}/penstock.yaml({place[0]},{place[1]}) ")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "the file is empty"),
        (b"# nothing\n", "the file is empty"),
        (b"- a\n", "this is a list"),
        (b"text\n", "this is a single value"),
        (b"kafka: \xff\n", "not UTF-8"),
        (b"a: 1\n---\nb: 2\n", "expected a single document"),
        (b"[" * 5_000, "nested too deeply"),
        (b"x: &a [*a]\n", "contains itself"),
        (b'"\\UFFFFFFFF"', "an escape stands for no character"),
        (b"x" * (2 << 20), "this is no configuration"),
        (
            b"a: &a [x,x,x,x,x,x,x,x,x]\n"
            + b"".join(b"%c: &%c [%s]\n" % (98 + n, 98 + n, b",".join([b"*%c" % (97 + n)] * 9)) for n in range(8)),
            "far too many values",
        ),
    ],
)
def test_what_is_no_configuration_is_refused_in_one_line(content: bytes, what: str, tmp_path: Path) -> None:
    """Whatever the file holds, the answer is a line that says what is wrong, never a traceback."""
    path = tmp_path / "penstock.yaml"
    path.write_bytes(content)
    with pytest.raises(SettingsInvalid) as refused:
        load(path, environ={})
    assert any(what in problem.what for problem in refused.value.problems)


def test_a_file_that_is_not_there_is_refused_in_one_line(tmp_path: Path) -> None:
    """A missing file and a directory are told apart."""
    with pytest.raises(SettingsInvalid, match=r"nowhere\.yaml\(1,1\) no such file"):
        load(tmp_path / "nowhere.yaml")
    with pytest.raises(SettingsInvalid, match=r"\(1,1\) this is a directory"):
        load(tmp_path)


def test_every_problem_is_reported_at_once(tmp_path: Path) -> None:
    """A person mends a file in one round: unknown, duplicate, missing, mistyped and unset things come together."""
    text = SOUND.replace("  drain_s: 20", "  drain_s: soon\n  drain_s: 20\n  x: 1").replace(
        "triage\nworker", "${A}\nworker"
    )
    text = text.replace("    model: tiny\n", "")
    with pytest.raises(SettingsInvalid) as refused:
        load(write_sound(tmp_path, text), environ={})
    said = "\n".join(problem.what for problem in refused.value.problems)
    for what in (
        "`A` is not set",
        "must be a number",
        "duplicate key `drain_s`",
        "unknown key `x`",
        "`model` is missing",
    ):
        assert what in said
    assert len(refused.value.problems) == 5


def test_a_variable_is_replaced_and_typed_again(tmp_path: Path) -> None:
    """A scalar that is one variable becomes what plain YAML would have made of its value; quotes do not matter."""
    text = SOUND.replace("  drain_s: 20", '  drain_s: "${DRAIN}"\n  http: {port: "${PORT:8080}", host: "${HOST:h}-x"}')
    settings = load(write_sound(tmp_path, text), environ={"DRAIN": "7.5", "HOST": "y"}).settings
    assert settings.worker.drain_s == 7.5
    assert settings.worker.http.port == 8080
    assert settings.worker.http.host == "y-x"


@pytest.mark.parametrize("value", ["123", "true", "1e3", "0x10", ".5", "007"])
def test_a_variable_stays_text_where_text_is_wanted(value: str, tmp_path: Path) -> None:
    """A group or a password that looks like a number is text as it was given: `007` does not become 7."""
    security = "security: {protocol: SASL_SSL, sasl_mechanism: PLAIN, username: u, password: '${PW}'}"
    text = SOUND.replace("  group_id: triage", f"  group_id: ${{ID}}\n  {security}")
    kafka = load(write_sound(tmp_path, text), environ={"ID": value, "PW": value}).settings.kafka
    assert kafka.group_id == value
    assert kafka.security.password is not None
    assert kafka.security.password.get_secret_value() == value


@pytest.mark.parametrize(
    ("written", "environ", "value"),
    [
        ("${A}", {"A": "x"}, "x"),
        ("${A:y}", {}, "y"),
        ("${A:y}", {"A": ""}, "y"),
        ("${A:http://h:1}", {}, "http://h:1"),
        ("a${A:}b", {}, "ab"),
        ("$${A}", {}, "${A}"),
        ("$A", {}, "$A"),
        ("${A}${A}", {"A": "${B}"}, "${B}${B}"),
        ("${file:secret.txt}", {}, "line one\nline two"),
        ("x-${file:secret.txt}", {}, "x-line one\nline two"),
    ],
)
def test_variables_in_a_text(written: str, environ: dict[str, str], value: str, tmp_path: Path) -> None:
    """Unset or empty takes the default, `$${` is literal, a value is not expanded again, a file loses its line end."""
    (tmp_path / "secret.txt").write_text("line one\nline two\n")
    path = write_sound(tmp_path, SOUND.replace("  group_id: triage", f"  group_id: '{written}'"))
    assert load(path, environ).settings.kafka.group_id == value


def test_a_secret_file_stays_text(tmp_path: Path) -> None:
    """What comes out of a file is never typed again."""
    (tmp_path / "key").write_text("12345\n")
    path = write_sound(tmp_path, SOUND.replace("    model: tiny", "    model: tiny\n    api_key: ${file:key}"))
    loaded = load(path)
    key = loaded.settings.models["small"].api_key
    assert key is not None
    assert key.get_secret_value() == "12345"
    assert "12345" in loaded.secrets


def test_paths_are_relative_to_the_configuration(tmp_path: Path) -> None:
    """Files are found wherever the worker is started."""
    task = load(write_sound(tmp_path)).settings.tasks["triage"]
    assert task.prompt.user == tmp_path / "user.j2"
    assert task.answer.schema_file == tmp_path / "answer.json"


@pytest.mark.parametrize("short", ["skip", "skip:", "skip: {}", "review", "review:"])
def test_short_rungs(short: str, tmp_path: Path) -> None:
    """`- skip` and `- review` are rungs with their defaults."""
    path = write_sound(tmp_path, SOUND.replace("- default: {label: other}", f"- {short}"))
    rung = load(path).settings.tasks["triage"].ladder[1]
    assert hasattr(rung, short.partition(":")[0])


def test_the_environment_of_the_process_is_the_default(tmp_path: Path) -> None:
    """Without `environ`, variables come from the process: every process has a PATH."""
    path = write_sound(tmp_path, SOUND.replace("  group_id: triage", "  group_id: ${PATH}"))
    assert load(path).settings.kafka.group_id
