"""The rung that calls a function of the user's own: trusted code, run inline, that must not lose a record."""

import importlib
import inspect
import traceback
from collections.abc import Callable
from typing import Any

import orjson

from workers import metrics
from workers.errors import PenstockError
from workers.log import get_logger
from workers.ports import DECLINED
from workers.records import Request

_log = get_logger(__name__)
_LOG_PERIOD_S = 60.0


class PythonRuleInvalid(ValueError):
    """The import path leads to nothing that can be called; the text says why."""


def import_rule(path: str) -> Callable[[Any], Any]:
    """Return the function at `package.module:function`.

    Raises:
        PythonRuleInvalid: no such module or function, the module fails on import, or the function is async.
    """
    module_name, _, name = path.partition(":")
    try:
        found: Any = getattr(importlib.import_module(module_name), name)
    except Exception as exc:  # the seam to the user's module, which can raise anything
        raise PythonRuleInvalid(f"`{path}` cannot be imported: {type(exc).__name__}: {exc}") from exc
    if not callable(found):
        raise PythonRuleInvalid(f"`{path}` is no function")
    if inspect.iscoroutinefunction(found):
        raise PythonRuleInvalid(f"`{path}` is async; a rule answers at once or not at all")
    function: Callable[[Any], Any] = found
    return function


class PythonRule:
    """Calls `function(value)` with the decoded value; None declines.

    What it returns must pass the task's check. If it raises, or answers something else, the next rung answers: counted
    each time, logged once a minute. The log tells the place and never the text, which may hold record content.
    """

    tier = "rules"

    def __init__(
        self,
        path: str,
        check: Callable[[Any], str | None] | None,
        *,
        clock: Callable[[], float],
        task_name: str,
    ) -> None:
        self._path = path
        self._function = import_rule(path)
        self._check = check or _is_text
        self._clock = clock
        self._task_name = task_name
        self._next_log_at_s = clock()

    def answer(self, request: Request, error: PenstockError) -> Any:  # noqa: ARG002 - the port's shape
        """Return the function's enrichment as plain JSON values, or `DECLINED`."""
        try:
            said = self._function(request.value)
        except Exception as exc:  # noqa: BLE001 - the seam to the user's function, which can raise anything
            frame = traceback.extract_tb(exc.__traceback__)[-1]
            return self._declined("raised", f"{type(exc).__name__} in {frame.name}, line {frame.lineno}")
        if said is None:
            return DECLINED
        try:
            enrichment = orjson.loads(orjson.dumps(said))
        except orjson.JSONEncodeError:
            return self._declined("not_json", f"a {type(said).__name__} that is not JSON")
        wrong = self._check(enrichment)
        return enrichment if wrong is None else self._declined("off_schema", wrong)

    def _declined(self, cause: str, what: str) -> Any:
        metrics.RULES_FAILED.labels(self._task_name, cause).inc()
        now_s = self._clock()
        if now_s >= self._next_log_at_s:
            self._next_log_at_s = now_s + _LOG_PERIOD_S
            _log.warning("python rule failed", task=self._task_name, rule=self._path, cause=cause, what=what)
        return DECLINED


def _is_text(value: Any) -> str | None:
    return None if isinstance(value, str) else "the task's answer is text"
