"""Which answer belongs to which request: an id that we send, and that servers and proxies may send back.

vLLM does (`--enable-request-id-headers`: vllm/entrypoints/serve/middleware/x_request_id.py), and so do many gateways
(APISIX `request-id`). Others send back ids of their own under the same name (OpenAI's API: `x-request-id: req_...`):
those say nothing. Only an id that a Penstock made for another request is proof of a mix-up.
"""

import itertools
import secrets
from collections.abc import Mapping

HEADER = "X-Request-Id"
_MARK = "penstock-"


class RequestIds:
    """Ids without repetition, of equal length, that tell nothing about a record."""

    def __init__(self) -> None:
        self._stem = f"{_MARK}{secrets.token_hex(6)}-"
        self._numbers = itertools.count(1)

    def new(self) -> str:
        """Return the next one."""
        return f"{self._stem}{next(self._numbers):010x}"


def is_anothers(sent: str, headers: Mapping[str, str]) -> bool:
    """Return whether the answer with these headers was made for another request than the one that had `sent`.

    No id, a foreign one and a shortened one say nothing. Nor does an answer from a cache, which has an `Age`
    (RFC 9111, 5.1): it carries the id of the request that it was first made for.
    """
    said = headers.get(HEADER)
    if said is None or said == sent:
        return False
    return said.startswith(_MARK) and len(said) == len(sent) and "Age" not in headers
