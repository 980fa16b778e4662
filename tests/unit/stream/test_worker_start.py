"""The order in which a worker starts: the group comes last."""

import sys

from tests.support.stand import TASK, Stand
from workers.errors import EX_UNAVAILABLE

ENDS_AT_THE_JOIN = f"""
import gc
from workers.errors import EX_SOFTWARE, Exit
from workers.stream.worker import Worker

async def join(worker, consumer):
    raise Exit({EX_UNAVAILABLE} if gc.get_freeze_count() else EX_SOFTWARE, "far enough")

Worker._join = join
from workers.cli import main
main()
"""


async def test_nothing_long_is_left_to_do_when_the_group_is_joined(quick: Stand) -> None:
    """The first collection stops the loop for tenths of a second: after the join, partitions would be silent for it."""
    worker = quick.worker({TASK: {"input": await quick.create()}}, "http://127.0.0.1:9")
    worker.program = (sys.executable, "-c", ENDS_AT_THE_JOIN)
    with worker:
        assert worker.process is not None
        assert worker.process.wait(60) == EX_UNAVAILABLE
