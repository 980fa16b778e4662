"""Logging: what a line looks like, what it never tells, and that it never makes anyone wait."""

import base64
import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any
from urllib.parse import quote

import pytest
import structlog

from tests.support.wire import make_record, make_task, route_at_now
from workers import log
from workers.llm.status import error_for
from workers.outcome import Rejected
from workers.settings.secret_file import SecretFile, reread

CANARY = 'c4n"ry/p@ss\\wörd+&='


@dataclass
class Output:
    """A pipe that stands for stdout, and what the chain said it dropped."""

    reader: IO[bytes]
    stream: IO[bytes]
    dropped: list[int] = field(default_factory=list)

    def configure(self, level: str = "info", secrets: tuple[str, ...] = (CANARY,), **more: Any) -> None:
        """Point the process's logging at the pipe."""
        log.configure(level, more.pop("fmt", "json"), secrets, self.stream, on_drop=self.dropped.append, **more)

    def text(self) -> str:
        """Everything written so far."""
        assert log.flush(10)
        os.set_blocking(self.reader.fileno(), False)
        return (self.reader.read() or b"").decode()

    def lines(self) -> list[dict[str, Any]]:
        """Everything written so far, parsed."""
        return [json.loads(line) for line in self.text().splitlines()]


@pytest.fixture
def output() -> Iterator[Output]:
    """A pipe in the place of stdout; the process's logging is put back afterwards."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level, structlog.get_config())
    read_end, write_end = os.pipe()
    with open(read_end, "rb") as reader, open(write_end, "wb", buffering=0) as stream:  # noqa: PTH123 - descriptors
        yield Output(reader, stream)
        os.set_blocking(reader.fileno(), False)
        _drain(reader)
        assert log._chain is not None
        log._chain.writer.close(10)
    log._chain = None
    root.handlers[:], root.level, config = before
    structlog.configure(**config)


def _drain(reader: IO[bytes]) -> None:
    while reader.read():
        pass


def _fail(text: str) -> None:
    raise ConnectionError(text)


def _fill(stream: IO[bytes]) -> None:
    """Write dashes until the pipe takes no more."""
    os.set_blocking(stream.fileno(), False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(stream.fileno(), b"-" * 4_096)
    os.set_blocking(stream.fileno(), True)


def _until(condition: Callable[[], bool], limit_s: float = 20.0) -> None:
    ends_at_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < ends_at_s, "the condition never came true"
        time.sleep(0.01)


def test_a_line_has_its_fields_in_order_and_the_bound_ones_after(output: Output) -> None:
    """A JSON line begins with timestamp, level, logger and event; what was bound follows."""
    output.configure()
    log.get_logger("workers.stream").bind(task="triage", topic="tickets.raw", partition=3, offset=9).info("taken over")
    (line,) = output.lines()
    assert list(line) == ["timestamp", "level", "logger", "event", "task", "topic", "partition", "offset"]
    assert line["timestamp"].endswith("Z")
    assert line | {"timestamp": ""} == {
        "timestamp": "",
        "level": "info",
        "logger": "workers.stream",
        "event": "taken over",
        "task": "triage",
        "topic": "tickets.raw",
        "partition": 3,
        "offset": 9,
    }


def test_a_logger_made_before_configure_uses_it(output: Output) -> None:
    """Modules make their loggers at import; what is configured later counts."""
    logger = log.get_logger("workers.early")
    output.configure(level="warning")
    logger.info("not shown")
    logger.warning("shown")
    assert [line["event"] for line in output.lines()] == ["shown"]


@pytest.mark.parametrize(
    "form",
    [
        CANARY,
        quote(CANARY, safe=""),
        json.dumps(CANARY),
        repr(CANARY),
        repr(CANARY.encode()),
        base64.b64encode(CANARY.encode()).decode(),
        base64.b64encode(b"u:" + CANARY.encode()).decode(),
        base64.b64encode(b"user:" + CANARY.encode()).decode(),
        base64.urlsafe_b64encode(b"me:" + CANARY.encode()).decode(),
        f"https://someone:{quote(CANARY)}@kafka:9092/",
    ],
)
def test_no_form_of_a_secret_gets_into_a_line(output: Output, form: str) -> None:
    """A known secret is masked in the text, in fields, keys, nested values, bytes and exceptions, in every form."""
    output.configure()
    logger = log.get_logger("workers.test")
    text = f"text {form} more"
    logger.info(text)
    logger.info("fields", a=form, b={"deep": [{form: (form, 1)}]}, c=form.encode(), d=ValueError(form), e={form})
    try:
        _fail(form)
    except ConnectionError:
        logger.exception("failed")
        logging.getLogger("aiokafka.conn").exception("cannot reach %s", form)
    text = output.text()
    assert text.count("\n") == 4
    kernel = form.strip("'\"b")
    for told in (CANARY, kernel, kernel[4:-4], json.dumps(CANARY)[1:-1], json.dumps(kernel)[1:-1]):
        assert told not in text
    assert log.redact.MASK in text


def test_a_secret_that_was_read_again_is_hidden_as_well(output: Output) -> None:
    """After a rotation neither the old key nor the new one shows, in lines and in texts that leave by other ways."""
    output.configure()
    secret = SecretFile(CANARY, lambda: "canary-of-june")
    log.get_logger("penstock.test").warning("before", said="canary-of-june")
    assert reread(secret).get_secret_value() == "canary-of-june"
    log.get_logger("penstock.test").warning("after", said=f"{CANARY} canary-of-june")
    before, after = output.lines()
    assert (before["said"], after["said"]) == ("canary-of-june", f"{log.redact.MASK} {log.redact.MASK}")
    assert log.scrub("canary-of-june") == log.redact.MASK


def test_userinfo_of_a_url_goes_even_when_unknown(output: Output) -> None:
    """A password inside a URL is masked although nobody declared it."""
    output.configure(secrets=())
    log.get_logger("workers.test").info("GET http://bob:hunter2@host:8000/x failed", url="sasl://a:p@ss@broker:1")
    (line,) = output.lines()
    assert line["event"] == "GET http://**********@host:8000/x failed"
    assert line["url"] == "sasl://**********@broker:1"


def test_scrub_knows_the_loaded_secrets(output: Output) -> None:
    """Texts that leave by other ways (dead-letter headers) are scrubbed with the same knowledge."""
    assert log.scrub("http://u:p@host") == "http://**********@host"
    output.configure()
    assert log.scrub(f"refused {CANARY}") == "refused **********"


def test_a_dead_letter_holds_no_secret(output: Output) -> None:
    """A server may send the key back as its error's code, which our error quotes."""
    output.configure(secrets=("sk-canary",))
    error = error_for(400, {}, b'{"error": {"message": "no", "code": "sk-canary"}}', "http://m:8000")
    assert "sk-canary" in str(error)
    [outgoing] = route_at_now(make_record(), Rejected(error), make_task())
    message = dict(outgoing.headers)["__penstock.errors.exception.message"] or b""
    assert message.startswith(b"400 from http://m:8000: ")
    assert b"sk-canary" not in message


def test_numbers_and_long_texts(output: Output) -> None:
    """Numbers stay numbers unless they are the secret; a long text is cut in the middle."""
    output.configure(secrets=("123456",))
    log.get_logger("workers.test").info("x", a=7, b=123456, c=None, d=True, e="y" * 100_000)
    (line,) = output.lines()
    assert (line["a"], line["b"], line["c"], line["d"]) == (7, log.redact.MASK, None, True)
    assert len(line["e"]) < 9_000


def test_library_lines_pass_the_same_chain(output: Output) -> None:
    """Stdlib logging arrives as the same JSON, with its arguments filled in; its debug lines never do."""
    output.configure(level="debug")
    foreign = logging.getLogger("aiokafka.consumer")
    foreign.debug("request with values")
    foreign.warning("partition %d gone", 4)
    foreign.error("does not fit %d", "x")
    lines = output.lines()
    assert [(line["level"], line["logger"], line["event"]) for line in lines] == [
        ("warning", "aiokafka.consumer", "partition 4 gone"),
        ("error", "aiokafka.consumer", "does not fit %d"),
    ]


def test_a_library_that_repeats_itself_is_cut_short_and_counted(output: Output) -> None:
    """Of one template five lines pass, then one line says how many did not; other templates are not affected."""
    output.configure()
    foreign = logging.getLogger("aiokafka.client")
    for attempt in range(105):
        foreign.error("no connection, attempt %d", attempt)
    foreign.error("something else")
    lines = output.lines()
    assert [line["event"] for line in lines[:6]] == [
        *(f"no connection, attempt {n}" for n in range(5)),
        "something else",
    ]
    assert [(line["event"], line["of"], line["count"]) for line in lines[6:]] == [
        ("lines suppressed", "no connection, attempt %d", 100)
    ]


def test_console_format_is_for_people(output: Output) -> None:
    """The console format is plain text, redacted as well."""
    output.configure(fmt="console")
    log.get_logger("workers.test").info("started", port=9464, key=CANARY)
    text = output.text()
    assert "started" in text
    assert "port=9464" in text
    assert CANARY not in text


@pytest.mark.fault("P8")
def test_a_blocked_pipe_drops_lines_and_never_waits(output: Output) -> None:
    """With nobody reading stdout every call returns, lost lines are counted; what was queued arrives later, whole."""
    _fill(output.stream)
    output.configure()
    done = threading.Event()
    calls = log.writer.QUEUE_LINES + 2_000

    def write_much() -> None:
        # Loggers of their own: the rate limit is not what is tested here.
        for number in range(calls):
            log.get_logger(f"workers.{number % 200}").info("working", number=number)
        done.set()

    threading.Thread(target=write_much, daemon=True).start()
    assert done.wait(60), "logging waited for the blocked pipe"
    assert log.flush(0.2) is False
    assert sum(output.dropped) >= 1_000  # of the 2,000 too many the writer itself holds a batch: 64 KiB, some 600 lines
    assert sum(output.dropped) < calls
    kept = bytearray()
    os.set_blocking(output.reader.fileno(), False)

    def all_arrived() -> bool:
        kept.extend(output.reader.read() or b"")
        return kept.count(b"\n") >= calls - sum(output.dropped)

    _until(all_arrived)
    numbers = [json.loads(line)["number"] for line in kept.lstrip(b"-").splitlines() if b'"working"' in line]
    assert numbers == sorted(set(numbers))


@pytest.mark.fault("P8")
def test_a_reader_that_went_away_costs_lines_not_the_worker(output: Output) -> None:
    """A closed pipe is an error for nobody; its lines count as dropped."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    with open(write_end, "wb", buffering=0) as stream:  # noqa: PTH123 - a descriptor
        dropped: list[int] = []
        log.configure("info", "json", (), stream, on_drop=dropped.append)
        log.get_logger("workers.test").info("into the void")
        assert log.flush(10)
        assert sum(dropped) == 1
        output.configure()


def test_a_non_blocking_stdout_loses_nothing(output: Output) -> None:
    """A stdout that somebody made non-blocking is written to the end."""
    os.set_blocking(output.stream.fileno(), False)
    output.configure()
    logger = log.get_logger("workers.test")
    for number in range(40):
        name = f"line {number}"
        logger.info(name, text="x" * 8_000)
    kept = bytearray()
    os.set_blocking(output.reader.fileno(), False)

    def all_arrived() -> bool:
        with contextlib.suppress(BlockingIOError):
            kept.extend(output.reader.read() or b"")
        return kept.count(b"\n") >= 40

    _until(all_arrived)
    assert output.dropped == []
