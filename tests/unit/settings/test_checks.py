"""What a configuration's shape cannot say: each check finds its mistake, at its place, and nothing else."""

from pathlib import Path

import pytest

from tests.support.settings_files import SOUND, planted, write_sound
from workers.settings.checks import check
from workers.settings.checks.endpoints import url_fault
from workers.settings.checks.host import Host, this_host
from workers.settings.problems import Problem
from workers.settings.source import load

HOST = Host(memory_bytes=1 << 30, open_files=1024)
GROUP = "  group_id: triage"
TASK = "    input: raw"
URL = "    url: http://localhost:8000"
LADDER = "    ladder:\n      - rules: rules.yaml\n      - default: {label: other}\n"
SHARED = "    topics: {dlq: dead}\n"
DEFER = "    order: none\n    when_unavailable: defer\n"
SECOND = (
    "    model: small\n    prompt: {system: system.txt, user: user.j2}\n    answer: {text: {}}\n    ladder: [skip]\n"
)


def security(settings: str) -> str:
    """The group's line with security settings below it."""
    return f"{GROUP}\n  security: {{{settings}}}"


# What is replaced in the sound configuration, by what, and what must be said at the mark.
ERRORS = {
    "unknown model": ("    model: small", "    model: «smal", "no model is called `smal`; did you mean `small`?"),
    "unknown model in a route": (
        "    model: small",
        "    model: small\n    routes: [{when: {field: text, longer_than: 9}, model: «lrge}]",
        "no model is called `lrge`",
    ),
    "unknown model in the ladder": (
        "      - rules: rules.yaml",
        "      - model: «lrge\n      - rules: rules.yaml",
        "no model is called `lrge`",
    ),
    "the same model twice": (
        "      - rules: rules.yaml",
        "      - model: «small\n      - rules: rules.yaml",
        "is asked already: several servers of one model are its `endpoints`",
    ),
    "a model below a rung": (
        (
            "tasks:\n  triage:\n    input: raw\n    model: small\n    prompt: {system: system.txt, user: user.j2}\n"
            "    answer: {schema: answer.json}\n    ladder:\n      - rules: rules.yaml\n"
        ),
        (
            "  large: {model: huge, url: http://localhost:8001}\n"
            "tasks:\n  triage:\n    input: raw\n    model: small\n    prompt: {system: system.txt, user: user.j2}\n"
            "    answer: {schema: answer.json}\n    ladder:\n      - rules: rules.yaml\n      - «model: large\n"
        ),
        "models come before the other rungs",
    ),
    "defer and an order": (
        TASK,
        f"{TASK}\n    when_unavailable: «defer",
        "needs `order: none`, not `key`",
    ),
    "a delay that outlasts the retry topic": (
        TASK,
        f"{TASK}\n    order: none\n    when_unavailable: defer\n    retry_delay_s: «86401",
        "longer than a day: the retry topic keeps records for 7",
    ),
    "a retry topic that is an input": (
        TASK,
        f"{TASK}\n    order: none\n    when_unavailable: defer\n    topics: {{retry: «raw}}",
        "the retry topic `raw` is also an input: a loop",
    ),
    "a retry topic for dead letters as well": (
        TASK,
        f"{TASK}\n    order: none\n    when_unavailable: defer\n    topics: {{dlq: again, retry: «again}}",
        "the retry topic `again` is also a topic for dlq",
    ),
    "a retry topic of two tasks": (
        "tasks:\n",
        (
            f"tasks:\n  b:\n    topics: {{retry: again}}\n    input: b\n{DEFER}{SECOND}"
            f"  c:\n    topics: {{retry: «again}}\n    input: c\n{DEFER}{SECOND}"
        ),
        "the retry topic `again` is that of task `b` already",
    ),
    "no system prompt": ("system: system.txt", "system: «system.tx", "no such file: `"),
    "no template": ("user: user.j2", "user: «nowhere/user.j2", "no such file: `"),
    "template is a directory": ("user: user.j2", "user: «.", "is a directory"),
    "no schema": ("schema: answer.json", "schema: «answer.jsn", "no such file: `"),
    "no rules": ("rules: rules.yaml", "rules: «rule.yaml", "no such file: `"),
    "no CA of a model": (URL, f"{URL}\n    ca_file: «ca.pem", "no such file: `"),
    "no CA of the cluster": (GROUP, security("protocol: SSL, ca_file: «ca.pem"), "no such file: `"),
    "no certificate": (GROUP, security("protocol: SSL, key_file: user.j2, cert_file: «c.pem"), "no such file: `"),
    "no token": (
        GROUP,
        security("protocol: SASL_SSL, sasl_mechanism: OAUTHBEARER, oauth_token_file: «token"),
        "no such file: `",
    ),
    "CA that is none": (GROUP, security("protocol: SSL, ca_file: «user.j2"), "not a PEM file"),
    "key that is none": (
        GROUP,
        security("protocol: SSL, cert_file: user.j2, key_file: «user.j2"),
        "do not fit together",
    ),
    "certificate without key": (GROUP, security("protocol: SSL, cert_file: «user.j2"), "needs its `key_file`"),
    "key without certificate": (GROUP, security("protocol: SSL, key_file: «user.j2"), "needs its `cert_file`"),
    "TLS files without TLS": (
        GROUP,
        security(
            "protocol: SASL_PLAINTEXT, sasl_mechanism: SCRAM-SHA-256, username: u, password: secret, ca_file: «user.j2"
        ),
        "does not use TLS",
    ),
    "SASL without mechanism": (GROUP, security("protocol: «SASL_SSL"), "needs a `sasl_mechanism`"),
    "mechanism without SASL": (
        GROUP,
        security("protocol: SSL, username: u, password: secret, sasl_mechanism: «PLAIN"),
        "SSL does not use it",
    ),
    "PLAIN in clear": (
        GROUP,
        security("protocol: SASL_PLAINTEXT, sasl_mechanism: «PLAIN, username: u, password: secret"),
        "sends the password in clear",
    ),
    "SCRAM without user": (
        GROUP,
        security("protocol: SASL_SSL, sasl_mechanism: «SCRAM-SHA-512, password: secret"),
        "needs a `username`",
    ),
    "SCRAM without password": (
        GROUP,
        security("protocol: SASL_SSL, sasl_mechanism: «SCRAM-SHA-512, username: u, password: ''"),
        "needs a `password`",
    ),
    "token for nobody": (
        GROUP,
        security("protocol: SASL_SSL, sasl_mechanism: «OAUTHBEARER"),
        "needs an `oauth_token_file`",
    ),
    "password for nobody": (GROUP, security("password: «secret"), "unused"),
    "short password": (
        GROUP,
        security("protocol: SASL_SSL, sasl_mechanism: PLAIN, username: u, password: «abc"),
        "fewer than 4 characters",
    ),
    "API key with a line end": (URL, URL + '\n    api_key: «"sk-1\\n2"', "an API key is printable ASCII"),
    "static member id": (GROUP, f"{GROUP}\n  group_instance_id: «my worker", "a static member id is"),
    "broker without port": ("bootstrap_servers: localhost:9092", "bootstrap_servers: «localhost", "host:port"),
    "broker as URL": ("bootstrap_servers: localhost:9092", "bootstrap_servers: «kafka://u:p@h:9092", "host:port"),
    "broker's port": ("bootstrap_servers: localhost:9092", "bootstrap_servers: «a:9092,b:99999", "host:port"),
    "URL of one endpoint": (URL, "    url: «localhost:8000", "begins with http://"),
    "URL of several": (URL, "    endpoints: [{url: http://a}, {url: «ftp://b}]", "begins with http://"),
    "prompt version": ("user: user.j2", "user: user.j2, version: «a b", "a prompt version is"),
    "task name": ("  triage:\n", "  «tri age:\n", "a task's name is 1-64 letters"),
    "input of two tasks": (
        "tasks:\n",
        f"tasks:\n  other:\n    input: raw\n{SECOND}",
        "`raw` is read by task `other` already",
    ),
    "input twice": (TASK, "    input: [raw, «raw]", "`raw` is read by task `triage` already"),
    "no topic": (TASK, "    input: [«..]", "`..` is no topic name"),
    "loop": (TASK, f"{TASK}\n    topics: {{enriched: «raw}}", "the enriched topic `raw` is also an input: a loop"),
    "loop over another task": (
        "tasks:\n",
        f"tasks:\n  other:\n    input: out\n    topics: {{fallback: «raw}}\n{SECOND}",
        "the fallback topic `raw` is also an input",
    ),
    "two kinds in one topic": (
        TASK,
        f"{TASK}\n    topics: {{enriched: out, dlq: «out}}",
        "the dlq topic `out` is also a topic for enriched",
    ),
    "topic name too long": (TASK, f"    input: «{'x' * 240}", "is no topic name: name it in `topics`"),
    "rung after a default": (LADDER, f"{LADDER}      - «review: {{}}\n", "`default` above it always answers"),
    "rung after a skip": (LADDER, "    ladder: [skip, «rules: rules.yaml]\n", "`skip` above it always answers"),
    "no such module": ("rules: rules.yaml", "rules: {python: «'no_such_module:f'}", "cannot import `no_such_module`"),
    "no such function": ("rules: rules.yaml", "rules: {python: «'json:classify'}", "`json` has no function `classify`"),
}

PLACES = {"input of two tasks": (18, 12)}


@pytest.mark.parametrize("name", ERRORS)
def test_each_error_is_one_line_at_its_place(name: str, tmp_path: Path) -> None:
    """A mistake that would only show at run time is reported once, at the value that it is about."""
    old, new, what = ERRORS[name]
    text, place = (SOUND.replace(old, new), PLACES[name]) if name in PLACES else planted(old, new)
    problems = [one for one in check(load(write_sound(tmp_path, text), environ={}), HOST) if one.severity == "error"]
    assert problems, "not found"
    assert {(one.line, one.column) for one in problems} == {place}, problems
    assert all(what in one.what for one in problems), problems
    assert len({one.what for one in problems}) == len(problems)


WARNINGS = {
    "call longer than the deadline": (TASK, f"{TASK}\n    deadline_s: «0.5", "shorter than one call of its model"),
    "connecting longer than the call": (URL, f"{URL}\n    connect_timeout_s: «3", "longer than the whole call"),
    "window too small": (TASK, f"{TASK}\n    max_in_flight: «255", "255, less than 4 x the 64 slots"),
    "memory": ("  drain_s: 20", "  drain_s: 20\n  max_in_flight_bytes: «513MiB", "more than half of the 1024 MiB"),
    "one record too large": (TASK, f"{TASK}\n    max_input_bytes: «65MiB", "the task's share"),
    "slow revoke": ("  drain_s: 20", "  drain_s: 20\n  revoke_wait_s: «29.5", "not below the rebalance timeout"),
    "short session": (GROUP, f"{GROUP}\n  session_timeout_s: «5", "brokers refuse less than 6 s"),
    "a delay without defer": (TASK, f"{TASK}\n    «retry_delay_s: 5", "only `when_unavailable: defer` looks at it"),
    "deferrals without defer": (TASK, f"{TASK}\n    «max_deferrals: 5", "only `when_unavailable: defer` looks at it"),
    "a retry topic without defer": (
        TASK,
        f"{TASK}\n    topics: {{«retry: again}}",
        "only `when_unavailable: defer` looks at it",
    ),
    "nothing young enough to defer": (TASK, f"{TASK}\n{DEFER}    max_age_s: «60", "no record is ever deferred"),
    "no ladder below defer": (LADDER, f"{DEFER}    «ladder: []\n", "`when_unavailable: defer`: an outage of the model"),
    "rare commits": (GROUP, f"{GROUP}\n  commit_interval_s: «6", "a crash repeats everything"),
    "short drain": ("  drain_s: 20", "  drain_s: «0.5", "shorter than one call"),
    "no ladder": (LADDER, "    «ladder: []\n", "an outage of the model would fill the dead-letter topic"),
    "review at the end": ("      - default: {label: other}", "      - «review: {}", "records become dead letters"),
    "exposed probes": ("  drain_s: 20", "  drain_s: 20\n  http: {host: «0.0.0.0}", "open to every network"),
    "key in clear": (URL, "    url: «http://llm:8000\n    api_key: sk-12345", "would cross the network in clear"),
    "token in clear": (
        GROUP,
        security("sasl_mechanism: OAUTHBEARER, oauth_token_file: user.j2, protocol: «SASL_PLAINTEXT"),
        "crosses the network in clear",
    ),
    "unused model": (
        "models:\n",
        "models:\n  spare: «{model: m, url: http://localhost:1}\n",
        "no task uses this model",
    ),
    "partition order": (
        TASK,
        f"{TASK}\n    order: partition\n    max_in_flight: «1000",
        "works on one record of a partition at a time",
    ),
    "open files": (
        "    url: http://localhost:8000\n",
        "    url: http://localhost:8000\n    max_in_flight: 961\n",
        "ulimit",
    ),
}


@pytest.mark.fault("P3", "P9")
@pytest.mark.parametrize("name", WARNINGS)
def test_each_warning_is_one_line_at_its_place(name: str, tmp_path: Path) -> None:
    """Arithmetic that cannot hold is said, but does not stop a worker."""
    old, new, what = WARNINGS[name]
    text, place = (SOUND.replace(old, new), (7, 3)) if name == "open files" else planted(old, new)
    if name == "open files":
        text = text.replace(TASK, f"{TASK}\n    max_in_flight: 4000")
    problems = check(load(write_sound(tmp_path, text), environ={}), HOST)
    assert [(one.severity, one.line, one.column) for one in problems] == [("warning", *place)], problems
    assert what in problems[0].what
    assert f"({place[0]},{place[1]}) warning: " in str(problems[0])


SOUND_CHANGES = {
    "nothing": ("", ""),
    "defer": (TASK, f"{TASK}\n{DEFER}    retry_delay_s: 86400\n    max_deferrals: 5\n    topics: {{retry: again}}"),
    "defer with two inputs and one retry topic": (TASK, f"    input: [raw, b]\n{DEFER}    topics: {{retry: again}}"),
    "window just large enough": (TASK, f"{TASK}\n    max_in_flight: 256"),
    "slots that are found": (URL, f"{URL}\n    max_in_flight: auto\n    auto_max: 200\n    latency_ceiling_s: 2"),
    "short window of a partition order": (TASK, f"{TASK}\n    order: partition\n    max_in_flight: 10"),
    "no ladder but hold": (LADDER, "    when_unavailable: hold\n"),
    "secured cluster": (
        GROUP,
        security("protocol: SASL_SSL, sasl_mechanism: SCRAM-SHA-256, username: u, password: secret"),
    ),
    "several brokers": ("localhost:9092", "a:1, 10.0.0.1:9092,[::1]:9092"),
    "key over TLS": (URL, "    url: https://llm/v1\n    api_key: sk-12345"),
    "key to this host": (URL, "    url: http://127.0.0.2:8000\n    api_key: sk-12345"),
    "shared dead letters": (
        "tasks:\n",
        f"tasks:\n  b:\n{SHARED}    input: b\n{SECOND}  c:\n{SHARED}    input: c\n{SECOND}",
    ),
    "a rules callable": ("rules: rules.yaml", "rules: {python: 'json:loads'}"),
    "an empty member id": (GROUP, f"{GROUP}\n  group_instance_id: ''"),
}


@pytest.mark.parametrize("name", SOUND_CHANGES)
def test_what_is_sound_is_left_alone(name: str, tmp_path: Path) -> None:
    """Lint that cries wolf is not read: nothing is said about what works."""
    old, new = SOUND_CHANGES[name]
    assert check(load(write_sound(tmp_path, SOUND.replace(old, new, 1)), environ={}), HOST) == []


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest",
        "http://0xa9fea9fe",
        "http://2852039166",
        "http://0251.0376.0251.0376",
        "http://169.254.43518",
        "http://[fe80::1]",
        "http://[fe80::1%25eth0]",
        "http://[::ffff:169.254.169.254]",
        "http://[2002:a9fe:a9fe::1]",
        "http://[fd00:ec2::254]",
        "http://[64:ff9b::a9fe:a9fe]",
        "http://[64:ff9b:1::a9fe:a9fe]",
        "http://[::a9fe:a9fe]",
        "http://[::ffff:0:a9fe:a9fe]",
        "http://metadata.google.internal",
        "http://METADATA.google.internal.:80",
    ],
)
def test_metadata_services_are_no_model_servers(url: str) -> None:
    """An address that hands out credentials is refused however it is spelt."""
    assert "link-local or cloud metadata" in (url_fault(url) or "")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8000",
        "http://10.0.0.5",
        "https://llm.example.com/v1",
        "http://[::1]:8000",
        "http://vllm-0:8000",
    ],
)
def test_private_addresses_are_where_models_are_served(url: str) -> None:
    """Loopback, private ranges and names are normal."""
    assert url_fault(url) is None


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("http://user:hunter22@host", "no user name or password"),
        ("http://hunter22@host", "no user name or password"),
        ("http://host/?key=hunter22", "no `?`"),
        ("http://host/#hunter22", "no `?`"),
        ("http://host:hunter22", "not a URL"),
        ("http://[hunter22", "not a URL"),
        ("http://:80", "not a URL"),
        ("http://host:0", "not a URL"),
        ("file:///hunter22", "begins with http"),
        ("hunter22", "begins with http"),
        ("", "begins with http"),
        ("http://ho st/hunter22", "no spaces"),
        ("http://host\n", "no spaces"),
        ("http://\uff11\uff16\uff19.254.169.254", "not ASCII"),
        ("http://169\u3002254\u3002169\u3002254", "not ASCII"),
        ("http://169.254.169.254.", "all four numbers"),
        ("http://127.1:8000", "all four numbers"),
        ("http://2130706433", "all four numbers"),
        ("http://017700000001", "all four numbers"),
    ],
)
def test_a_url_says_where_and_nothing_else(url: str, what: str) -> None:
    """What may carry a secret or a second meaning is refused, and is not repeated."""
    said = url_fault(url)
    assert said is not None
    assert what in said
    assert "hunter22" not in said


def test_this_host_has_limits() -> None:
    """The limits of the process that lints are numbers one can compare with."""
    host = this_host()
    assert host.memory_bytes > 1 << 20
    assert host.open_files > 0


def test_problems_come_in_reading_order(tmp_path: Path) -> None:
    """A person works through a file from top to bottom."""
    text = SOUND.replace("user.j2", "gone.j2").replace("model: small", "model: big").replace("http://", "ftp://")
    problems: list[Problem] = check(load(write_sound(tmp_path, text)), HOST)
    lines = [one.line for one in problems]
    assert lines == sorted(lines)
    assert len(lines) >= 3
