"""A secret that came out of a file: after a rotation it is read there again."""

from collections.abc import Callable
from typing import Any

from pydantic import SecretStr

from workers import log
from workers.log.redact import MIN_SECRET_CHARS
from workers.settings.variables import FileText, VariableUnusable


class SecretFile(SecretStr):
    """A secret as its file had it, alone or within a text; `reread` reads it again."""

    def __init__(self, text: str, again: Callable[[], str]) -> None:
        super().__init__(text)
        self.again = again


def as_secret(value: Any) -> Any:
    """Return a text out of a file as a secret that can be read again, anything else as it is."""
    return SecretFile(str(value), value.again) if isinstance(value, FileText) else value


def reread(secret: SecretStr) -> SecretStr:
    """Return the secret as its file has it now: for whoever was refused with the value that was read before.

    Returns `secret` itself when there is nothing new: it came from no file, the file is unchanged, or it has nothing
    usable at the moment (away during the rotation, or too short to be kept out of the log). The log hides a new value
    before the caller has it. Reads a small local file in place; never raises.
    """
    if not isinstance(secret, SecretFile):
        return secret
    try:
        text = secret.again()
    except VariableUnusable:
        return secret
    if text == secret.get_secret_value() or len(text) < MIN_SECRET_CHARS:
        return secret
    log.hide(text)
    return SecretFile(text, secret.again)
