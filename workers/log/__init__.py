"""Logging: one line per happening, to stdout, through one chain that cannot block and cannot tell a secret.

A line has `timestamp` (RFC 3339, UTC), `level`, `logger`, `event` (what happened, a constant text) and, when bound,
`task`, `topic`, `partition`, `offset`; everything variable goes into fields of its own. Values, keys, prompts and
answers are never logged. Lines of libraries (stdlib logging) pass the same chain.
"""

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any, Literal

import orjson
import structlog

from workers.log.rate_limit import RateLimit
from workers.log.redact import Redactor
from workers.log.writer import Writer

OWN_BURST = 50
"""Lines of one `event` of ours within a period: as many as partitions that come and go at once."""
FOREIGN_BURST = 5
"""Lines of one template of a library: aiokafka writes about 100 per second while its broker is away."""
PERIOD_S = 10.0

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_FIRST = ("timestamp", "level", "logger", "event")

_stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)


class _Chain:
    """What every line passes, whoever wrote it."""

    def __init__(self, writer: Writer, redactor: Redactor, render: Callable[[Any, str, Any], str | bytes]) -> None:
        self.writer = writer
        self.redactor = redactor
        self._render = render
        self._limit = RateLimit(period_s=PERIOD_S, clock=time.monotonic)

    def admit(self, logger: str, template: str, burst: int) -> bool:
        """Report what earlier periods suppressed; return whether this line may pass."""
        self.report(everything=False)
        return self._limit.admit((logger, template), burst)

    def report(self, *, everything: bool) -> None:
        """Write how many lines were suppressed: of ended periods, or of all."""
        for (logger, template), count in self._limit.suppressed(everything=everything):
            self.write(
                {"level": "warning", "logger": logger, "event": "lines suppressed", "of": template, "count": count}
            )

    def write(self, fields: dict[str, Any]) -> None:
        """Stamp, redact, render and hand over."""
        fields = structlog.processors.format_exc_info(None, "", _stamp(None, "", fields))  # type: ignore[assignment]
        fields = self.redactor.fields({name: fields.pop(name) for name in _FIRST if name in fields} | fields)
        line = self._render(None, "", fields)
        self.writer.put(line if isinstance(line, bytes) else line.encode("utf-8", "backslashreplace"))


_chain: _Chain | None = None


def configure(
    level: str,
    fmt: Literal["json", "console"],
    secrets: Iterable[str],
    stream: IO[Any] | None = None,
    *,
    on_drop: Callable[[int], None],
) -> None:
    """Send all logging of this process to `stream` (stdout; needs a file descriptor).

    `secrets` are the loaded secret values. `on_drop` is called with a number of lines that were dropped because the
    stream was blocked, from the thread that logged or from the writer's. A second call replaces the first.
    """
    global _chain  # noqa: PLW0603 - logging is the process's, there is one
    if _chain is not None:
        _chain.writer.close(timeout_s=1.0)
    writer = Writer((stream or sys.stdout).fileno(), on_drop)
    _chain = _Chain(writer, Redactor(secrets), _renderer(fmt))
    structlog.configure(
        processors=[structlog.processors.add_log_level, _ours],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=_Named,
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    # Debug lines of libraries show whole requests, and with them values and keys: never, whatever level a library sets.
    least = max(_LEVELS[level], logging.INFO)
    root.handlers[:] = [_Bridge(least)]
    root.setLevel(least)


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Write no log inside: for commands that say in their own words what went wrong."""
    before, disabled = structlog.get_config(), logging.root.manager.disable
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        structlog.configure(**before)
        logging.disable(disabled)


def get_logger(name: str) -> structlog.typing.FilteringBoundLogger:
    """Return a logger; may be called at import, before `configure`. Name it after its module."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(name)
    return logger


def flush(timeout_s: float) -> bool:
    """Wait for what is queued; return False when the stream would not take it in time. Blocks: for the way out only."""
    if _chain is None:
        return True
    _chain.report(everything=True)
    return _chain.writer.flush(timeout_s)


def scrub(text: str) -> str:
    """Return `text` without known secrets and URL userinfo: for exception texts that leave by other ways."""
    return (_chain.redactor if _chain is not None else _NO_SECRETS).text(text)


def hide(secret: str) -> None:
    """Keep one more secret out of every later line: a key that was read again after a rotation."""
    if _chain is not None:
        _chain.redactor.learn(secret)


_NO_SECRETS = Redactor(())


def _renderer(fmt: str) -> Callable[[Any, str, Any], str | bytes]:
    if fmt == "console":
        return structlog.dev.ConsoleRenderer(colors=False)
    return structlog.processors.JSONRenderer(serializer=_dumps)


def _dumps(fields: dict[str, Any], **_: Any) -> bytes:
    return orjson.dumps(fields, default=repr)


class _Named:
    """What structlog wraps: only its name is used, the chain writes."""

    def __init__(self, name: str = "") -> None:
        self.name = name


def _ours(logger: _Named, _method: str, fields: Any) -> Any:
    """Last processor of structlog's chain: nothing is left for structlog to write."""
    if _chain is not None and _chain.admit(logger.name, str(fields["event"]), OWN_BURST):
        _chain.write(fields | {"logger": logger.name})
    raise structlog.DropEvent


class _Bridge(logging.Handler):
    """Carries lines of libraries into the chain."""

    def emit(self, record: logging.LogRecord) -> None:
        """Never raises for a line whose arguments do not fit its template."""
        if _chain is None or not _chain.admit(record.name, str(record.msg), FOREIGN_BURST):
            return
        text = str(record.msg)
        with contextlib.suppress(TypeError, ValueError, KeyError):
            text = record.getMessage()
        fields = {"level": record.levelname.lower(), "logger": record.name, "event": text}
        if record.exc_info:
            fields["exc_info"] = record.exc_info  # type: ignore[assignment]
        _chain.write(fields)
