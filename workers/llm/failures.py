"""What is said when HTTP fails, whichever client met it: our errors and their texts.

A foreign error is never quoted: its text may hold the URL with what is in it. `label` is the root URL as it may be
shown.
"""

import os
import ssl

from workers.errors import AnswerTooLarge, ConnectFailed, ConnectionLost, Misconfigured, MixedUp, TimedOut
from workers.llm.scrub import quote


def timed_out(label: str, limit_s: float) -> TimedOut:
    """No whole answer in time, connection included."""
    return TimedOut(f"no complete answer from {label} in {limit_s:.3g} s")


def no_connection(label: str, limit_s: float) -> ConnectFailed:
    """No connection in time."""
    return ConnectFailed(f"no connection to {label} in {limit_s:g} s")


def not_connected(label: str, exc: BaseException) -> ConnectFailed:
    """No connection: refused, unreachable, the certificate, TLS itself."""
    match exc:
        case ssl.SSLCertVerificationError():
            return ConnectFailed(f"certificate of {label} refused: {why(exc)}")
        case ssl.SSLError():
            return ConnectFailed(f"no TLS with {label}: does it speak https?")
        case _:
            return ConnectFailed(f"cannot connect to {label}: {why(exc)}")


def unresolved(label: str) -> ConnectFailed:
    """No name server knows the host."""
    return ConnectFailed(f"the host name of {label} cannot be resolved")


def forbidden(label: str) -> Misconfigured:
    """The host's name leads to an address that hands out credentials."""
    return Misconfigured(f"{label} leads to a link-local or cloud metadata address: not asked")


def lost(label: str, exc: BaseException | None = None) -> ConnectionLost:
    """The connection ended before an answer began, or by an error."""
    return ConnectionLost(f"connection to {label} lost: {why(exc) if exc else 'closed without an answer'}")


def broke_off(label: str) -> ConnectionLost:
    """The answer ended before its end."""
    return ConnectionLost(f"the answer of {label} broke off")


def not_http(label: str) -> ConnectionLost:
    """What came cannot be read as HTTP/1.1."""
    return ConnectionLost(f"what {label} sent is no HTTP answer")


def too_large(label: str, limit_bytes: int) -> AnswerTooLarge:
    """The body is larger than `max_response_bytes`."""
    return AnswerTooLarge(f"{label} sent more than {limit_bytes} bytes; connection closed")


def mixed_up(label: str) -> MixedUp:
    """The answer carries the id of another request."""
    return MixedUp(f"{label}, or a proxy before it, sent the answer to another request")


def why(exc: BaseException) -> str:
    """Return the system's words for an error, or its class: never its text, which may hold addresses of ours."""
    if isinstance(exc, ssl.SSLError):
        return quote(getattr(exc, "verify_message", "") or exc.reason or "SSLError")
    if isinstance(exc, OSError) and exc.errno:
        return os.strerror(exc.errno)
    return type(exc).__name__
