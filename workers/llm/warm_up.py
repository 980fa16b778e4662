"""A first call that no record waits for: one token, so that a server loads its model before its deadline matters."""

import asyncio

import structlog

from workers.clock import monotonic_s
from workers.errors import BadAnswer, Busy, NoAnswer
from workers.llm.server import Server
from workers.llm.transport import Target
from workers.ports import Ask

PROBE = "This is a connection test. Answer with a short example in the form that you were asked for."
IDLE_S = 60.0
"""After so long without a call a server may have unloaded its model (Ollama: after 5 minutes by default)."""

_ASK = Ask(name="warm_up", system="", schema=None, max_tokens=1, temperature=0.0)
_PAUSE_S = 1.0

_log = structlog.get_logger("penstock.llm")


async def warm_up(name: str, server: Server, to: Target, ends_at_s: float, *, insist: bool) -> None:
    """Ask until it answers or the time is over; not `insist`: again only while it says that it is loading.

    Never fails, and counts nothing: what is wrong is met by the first record.
    """
    body = server.frame(_ASK).around(PROBE).body
    began_s = monotonic_s()
    while (error := await _asked(server, to, body, ends_at_s - monotonic_s())) is not None:
        pause_s = (error.retry_after_s if isinstance(error, Busy) else None) or _PAUSE_S
        again = error.retryable and (insist or isinstance(error, Busy))
        if not again or monotonic_s() + pause_s >= ends_at_s:
            _log.warning("warm_up_failed", model=name, endpoint=to.label, reason=error.reason)
            return
        await asyncio.sleep(pause_s)
    _log.info("warmed_up", model=name, endpoint=to.label, took_s=round(monotonic_s() - began_s, 3))


async def _asked(server: Server, to: Target, body: bytes, timeout_s: float) -> NoAnswer | None:
    try:
        await server.ask(to, body, timeout_s)
    except BadAnswer:
        return None  # one token is no answer, but the model is there
    except NoAnswer as error:
        return error
    return None
