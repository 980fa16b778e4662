"""Which records see the model at all: those that `only_when` holds for, and of them a share by the hash of the key."""

import hashlib
from collections.abc import Callable

from workers.errors import NotSelected, OutOfShare
from workers.ladder import compile_condition
from workers.records import Record, Request
from workers.settings.model import TaskSettings

_HASH_BYTES = 8
_HASHES = 1 << 8 * _HASH_BYTES

Selection = Callable[[Request], NotSelected | None]
"""Returns why a record is not shown to the model, None when it is."""


def selection(settings: TaskSettings, task_name: str) -> Selection | None:
    """Return a task's selection, None when every record sees the model.

    Raises:
        ConditionInvalid: `only_when` is no condition; `lint` says where.
    """
    if settings.only_when is None and settings.share == 1:
        return None
    holds = None if settings.only_when is None else compile_condition(settings.only_when)
    share, salt = settings.share, task_name.encode() + b"\0"

    def select(request: Request) -> NotSelected | None:
        if holds is not None and not holds(request.value):
            return NotSelected("`only_when` does not hold")
        if share < 1 and not in_share(request.record, share, salt):
            return OutOfShare(f"not in the share of {share:g}")
        return None

    return select


def in_share(record: Record, share: float, salt: bytes) -> bool:
    """Return whether a record belongs to the share: the same keys on every replica and after every restart.

    By key, so that a customer's records are all shown or none; without a key by topic, partition and offset. A larger
    share holds all of a smaller one. The salt makes tasks choose independently (with a CRC it would not: it is linear).
    """
    chosen_by = record.source.encode() if record.key is None else record.key
    digest = hashlib.blake2b(salt + chosen_by, digest_size=_HASH_BYTES).digest()
    return int.from_bytes(digest) < share * _HASHES
