"""A worker with a bug outside every record: `python -m tests.support.worker_with_a_bug PLACE run CONFIG`.

The bug shows at the second use of the place, when the worker is at work.
"""

import itertools
import sys
from collections.abc import Callable
from typing import Any

from workers.loop_lag import Onlooker
from workers.stream.commits import Commits
from workers.stream.lane import Lane

PLACES: dict[str, tuple[type, str]] = {
    "lane": (Lane, "_note"),
    "agent": (Lane, "start"),
    "commits": (Commits, "fingerprint"),
    "watch": (Onlooker, "beat"),
}


class Bug(Exception):
    """What nobody expects."""


def _broken(method: Callable[..., Any]) -> Callable[..., Any]:
    uses = itertools.count(1)

    def breaks(*args: Any, **more: Any) -> Any:
        if next(uses) > 1:
            raise Bug
        return method(*args, **more)

    return breaks


if __name__ == "__main__":
    owner, name = PLACES[sys.argv.pop(1)]
    setattr(owner, name, _broken(getattr(owner, name)))
    from workers.cli import main

    main()
