"""Secrets and records stay where they belong: canaries everywhere, every kind of failure, a search of everything."""

import asyncio
import base64
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
import pytest

from tests.support.deployment import DEFAULT, PENSTOCK, WorkerProcess, wait_for
from tests.support.fault_server import FaultServer, Step, answer, reset, status
from tests.support.leaks import leaks, texts_of
from tests.support.least_rights import rights
from tests.support.secured_kafka import SecuredKafka, make_client_certificate
from tests.support.stand import TASK, Stand
from tests.support.topics import New, fresh_name
from topics.spec import output_names
from workers.errors import EX_CONFIG, EX_SOFTWARE, EX_UNAVAILABLE

API_KEY, SASL, PASSPHRASE, USERINFO = "canary-api+key/1", "canary-sasl=word", "canary-passphrase", "canary-userinfo"
SECRETS = (API_KEY, SASL, PASSPHRASE, USERINFO)
KEY, VALUE, HEADER = "marker-of-key", "marker-of-value", "marker-of-header"
MARKERS = (KEY, VALUE, HEADER)
GOOD = orjson.dumps(DEFAULT | {"category": "bug"}).decode()

LOUD = """
import logging
for name in ("aiokafka", "faust", "mode", "aiohttp", "asyncio"):
    logging.getLogger(name).setLevel(logging.DEBUG)
"""
RULES = """
def failing(*_):
    raise ConnectionError("no rule service at http://u:{userinfo}@rules, tried {api_key}")
"""
BROKEN_PART = """
from workers.{module} import {owner}
async def broken(*_):
    raise RuntimeError("a bug, with {sasl} and {passphrase} in its text")
{owner}.{method} = broken
"""


@dataclass
class Place:
    """Where the canaries live: the secured broker, a model server, the files of one deployment."""

    broker: SecuredKafka
    folder: Path
    user: str = field(default_factory=lambda: fresh_name("user"))
    shown: dict[str, str | bytes] = field(default_factory=dict)
    """What anybody can see, by the place."""

    def __post_init__(self) -> None:
        self.broker.set_password(self.user, SASL)
        self.stand = Stand(self.broker, self.folder)
        for name, secret in (("api_key", API_KEY), ("sasl", SASL), ("passphrase", PASSPHRASE)):
            (self.folder / name).write_text(f"{secret}\n")
        self.certificate = make_client_certificate(self.broker.ca_file.parent, self.user, PASSPHRASE)

    def kafka(self, listener: str = "SECURE", startup_timeout_s: float = 60, **more: Any) -> dict[str, Any]:
        """Return the cluster's settings, every secret in a file."""
        certificate, key = self.certificate
        security = {
            "protocol": "SASL_SSL",
            "sasl_mechanism": "SCRAM-SHA-512",
            "ca_file": str(self.broker.ca_file),
            "cert_file": str(certificate),
            "key_file": str(key),
            "key_password": f"${{file:{self.folder / 'passphrase'}}}",
            "username": self.user,
            "password": f"${{file:{self.folder / 'sasl'}}}",
        }
        servers = self.broker.servers(listener)
        return {"bootstrap_servers": servers, "startup_timeout_s": startup_timeout_s, "security": security | more}

    def worker(self, task: dict[str, Any], url: str, *, before: str = "", **kafka: Any) -> WorkerProcess:
        """Return a worker whose libraries are as loud as they can be; `before` runs before it starts."""
        settings = {
            "kafka": self.kafka(**kafka),
            "model": {"api_key": f"${{file:{self.folder / 'api_key'}}}"},
            "worker": {"log": {"level": "debug"}},
        }
        worker = self.stand.worker({TASK: task}, url, **settings)
        script = worker.log.with_suffix(".py")
        script.write_text(f"{LOUD}\n{before}\nfrom workers.cli import main\nmain()\n")
        worker.program = (sys.executable, script)
        worker.env = {"PYTHONPATH": str(self.folder)}
        return worker

    async def see(self, worker: WorkerProcess, *paths: str) -> None:
        """Keep what the probes say now."""
        for path in paths:
            self.shown[f"{worker.log.stem} {path} {len(self.shown)}"] = (await asyncio.to_thread(worker.get, path))[1]

    async def say(self, config: Path, *words: str, code: int = 0) -> str:
        """Keep what a verb says."""
        command = [PENSTOCK, *words, *([config] if words != ("schema",) else [])]
        environ = os.environ | {"PYTHONPATH": str(self.folder)}
        done = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, timeout=120, check=False, env=environ
        )
        assert done.returncode == code, done.stdout + done.stderr
        self.shown[f"{' '.join(words)} {len(self.shown)}"] = done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture
def place(secured: SecuredKafka, tmp_path: Path) -> Place:
    """A place with all canaries in it."""
    return Place(secured, tmp_path)


class Gate:
    """A model server that knows no key at first, then answers by what is in the prompt, quoting what it got."""

    def __init__(self) -> None:
        self.knows_the_key = False
        self.server = FaultServer(default=self._answer)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        return await self._step()(reader, writer)

    def _step(self) -> Step:
        seen = self.server.requests[-1]
        quoted = {"error": {"message": f"{seen.headers['authorization']} may not ask {seen.body.decode()}"}}
        if not self.knows_the_key:
            return status(401, quoted)
        for word, step in {
            "refuse": status(422, quoted, f"X-Quote: {seen.headers['authorization']}"),
            "break": status(500, quoted),
            "reset": reset(),
            "prose": answer(f"I think that {VALUE} is about {KEY}"),
            "cut": answer(f'{{"category": "{VALUE}', "length"),
        }.items():
            if word in seen.body.decode():
                return step
        return answer(GOOD)


WORDS = ("good", "refuse", "break", "reset", "prose", "cut")


def records() -> list[New]:
    """Return records of every fate, each with markers in key, value and header (also in the header's name)."""
    headers = [(f"ce_{HEADER}", HEADER.encode()), (HEADER, b"x"), (f"__penstock.{HEADER}", b"x")]
    values = [orjson.dumps({"text": f"{word} {VALUE}", "url": f"http://{VALUE}.invalid/"}) for word in WORDS]
    values += [f"not json {VALUE}".encode(), orjson.dumps({VALUE: "no text"}), VALUE.encode() + b"\xff"]
    return [New(key=f"{KEY}-{n}".encode(), value=value, headers=headers) for n, value in enumerate(values)]


async def provoke(place: Place, gate: Gate) -> str:
    """Let a worker meet every failure, and others that cannot start; return the topic."""
    stand = place.stand
    topic = await stand.create()
    place.broker.allow(place.user, rights(topic, stand.group, TASK))
    (place.folder / "canary_rules.py").write_text(RULES.format(userinfo=USERINFO, api_key=API_KEY))
    task = {
        "input": topic,
        "deadline_s": 6,
        "prompt": {"system": "system.txt", "user": "strict.j2"},
        "ladder": [{"rules": {"python": "canary_rules:failing"}}, {"default": DEFAULT}],
    }
    (place.folder / "config").mkdir()
    (place.folder / "config" / "strict.j2").write_text("{{ record.text }} {{ key }} {{ headers }}\n")
    url = gate.server.url
    await _verbs(place, place.worker(task, url))
    await stand.put(topic, records())
    with place.worker(task, url) as worker:
        await asyncio.to_thread(wait_for, lambda: "misconfigured" in worker.not_ready(), 60, worker.tail)
        await place.see(worker, "/readyz", "/metrics", "/version", "/livez", f"/{API_KEY}")
        gate.knows_the_key = True
        await asyncio.to_thread(worker.wait_finished, len(records()))
        await place.see(worker, "/readyz", "/metrics")
        assert (await asyncio.to_thread(worker.terminate))[0] == 0
    (place.folder / "wrong").write_text(f"{USERINFO}\n")
    bug = {"sasl": SASL, "passphrase": PASSPHRASE}
    early = BROKEN_PART.format(module="stream.lag", owner="Lag", method="run", **bug)
    late = BROKEN_PART.format(module="stream.worker", owner="Worker", method="run", **bug)
    wrong = f"${{file:{place.folder / 'wrong'}}}"
    failing: list[tuple[dict[str, Any], int]] = [
        ({"password": wrong, "startup_timeout_s": 0.5}, EX_UNAVAILABLE),
        ({"listener": "EXPIRED", "startup_timeout_s": 0.5}, EX_UNAVAILABLE),
        ({"key_password": wrong}, EX_CONFIG),
        ({"before": early}, EX_SOFTWARE),
        ({"before": late}, EX_SOFTWARE),
    ]
    for settings, code in failing:
        with place.worker(task, url, **settings) as worker:
            assert await asyncio.to_thread(worker.exit_code) == code, worker.tail()
    return topic


async def _verbs(place: Place, worker: WorkerProcess) -> None:
    """Run every verb that looks at the configuration, the last one with a URL that lint must refuse."""
    config = worker.config
    for words in (("lint",), ("schema",)):
        await place.say(config, *words)
    assert "**********" in await place.say(config, "echo")
    text = config.read_text()
    assert "401" in await place.say(config, "dry-run", code=1)
    config.write_text(text.replace("url: http://", f"url: http://u:{USERINFO}@"))
    await place.say(config, "lint", code=1)
    await place.say(config, "run", code=EX_CONFIG)
    config.write_text(text)


@pytest.fixture
async def gate() -> AsyncIterator[Gate]:
    """The model server of one test."""
    made = Gate()
    async with made.server:
        yield made


@pytest.mark.timeout(600)  # twenty processes, one after the other, and the broker's own start
async def test_no_secret_and_no_record_gets_where_it_does_not_belong(place: Place, gate: Gate) -> None:
    """I10, I14. After every kind of failure no output, log line, metric or verb shows a secret.

    And nothing of a record, nor of an answer, is in a log line, a metric, a URL, an HTTP header, a topic's name or in
    what a dead letter says of its error.
    """
    topic = await provoke(place, gate)
    shown, requests = place.shown, gate.server.requests
    shown |= {file.name: file.read_bytes() for file in place.folder.glob("worker-*.log")}
    outputs = {kind: await place.stand.read(topic, kind) for kind in output_names(topic, TASK)}
    added: dict[str, bytes] = {}
    for kind, written in outputs.items():
        shown |= texts_of(kind, written)
        if kind == "dlq":
            added |= texts_of(kind, written, headers_alone=True)
    asked = {f"request {n}": _without_authorization(seen.path, seen.headers) for n, seen in enumerate(requests)}
    bodies = {f"request {n} body": seen.body for n, seen in enumerate(requests)}
    topics = {"topics": "\n".join(place.broker.admin.list_topics(timeout=60).topics)}
    assert leaks(shown | asked | bodies | topics, SECRETS) == []
    told = {name: text for name, text in shown.items() if not name.startswith(tuple(outputs))}
    assert leaks(told | asked | topics | added, MARKERS) == []
    _assert_provoked(shown, requests, outputs)
    assert leaks(bodies, MARKERS)


def _without_authorization(path: str, headers: dict[str, str]) -> str:
    return "\n".join([path, *(f"{name}: {value}" for name, value in headers.items() if name != "authorization")])


def _assert_provoked(shown: dict[str, Any], requests: list[Any], outputs: dict[str, list[Any]]) -> None:
    """A search finds nothing where nothing was: the secrets were used, and the failures happened."""
    assert all(seen.headers["authorization"] == f"Bearer {API_KEY}" for seen in requests)
    logs = b"".join(text for name, text in shown.items() if name.endswith(".log"))
    for said in (
        b"misconfigured",
        b"python rule failed",
        b"Authentication failed",
        b"certificate has expired",
        b"RuntimeError: a bug, with **********",
    ):
        assert said in logs, said
    assert len(outputs["enriched"]) == 1
    assert len(outputs["fallback"]) == 5
    assert len(outputs["dlq"]) == 3


@pytest.mark.parametrize("form", ["{}", "Basic {}", "x={}&y"])
def test_the_search_finds_a_planted_canary(form: str) -> None:
    """In every form, in every kind of place; a search that finds nothing anywhere would prove nothing."""
    for written in (API_KEY, quote(API_KEY, safe=""), orjson.dumps(API_KEY).decode(), repr(API_KEY.encode())):
        assert leaks({"log": form.format(written)}, SECRETS) == [f"log: {API_KEY}"]
    packed = base64.b64encode(f"user:{SASL}".encode()).decode()
    assert leaks({"header": form.format(packed)}, SECRETS) == [f"header: {SASL}"]
    assert leaks({"clean": form.format("nothing")}, SECRETS) == []
