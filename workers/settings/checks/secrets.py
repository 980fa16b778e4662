"""Secrets: long enough to be hidden wherever something is shown, and fit to be sent."""

from collections.abc import Iterator

from pydantic import SecretStr

from workers.log.redact import MIN_SECRET_CHARS
from workers.settings import tree
from workers.settings.problems import Problem
from workers.settings.source import Loaded


def check(loaded: Loaded) -> Iterator[Problem]:
    """Yield what is wrong with each secret, without showing it."""
    for at, secret in _secrets(loaded):
        value = secret.get_secret_value()
        if 0 < len(value) < MIN_SECRET_CHARS:
            what = f"a secret of fewer than {MIN_SECRET_CHARS} characters cannot be kept out of the logs"
            yield loaded.problem(at, what)
        elif at[-1] == "api_key" and not fits_header(secret):
            yield loaded.problem(at, "an API key is printable ASCII: it is sent in a header")


def fits_header(secret: SecretStr) -> bool:
    """Return whether a secret can be sent in an HTTP header: printable ASCII."""
    value = secret.get_secret_value()
    return value.isascii() and value.isprintable()


def _secrets(loaded: Loaded) -> Iterator[tuple[tree.Path, SecretStr]]:
    security = loaded.settings.kafka.security
    places: list[tuple[tree.Path, SecretStr | None]] = [
        (("kafka", "security", "password"), security.password),
        (("kafka", "security", "key_password"), security.key_password),
        *((("models", name, "api_key"), model.api_key) for name, model in loaded.settings.models.items()),
    ]
    return ((at, secret) for at, secret in places if secret is not None)
