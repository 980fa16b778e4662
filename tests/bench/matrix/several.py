"""`python -m tests.bench.matrix.several N COMMAND...`: N copies of a worker in one group, as one process tree.

SIGTERM goes to all of them, and so does the end of one: half of a group would be measured as the whole.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Sequence

LOOK_S = 0.1


def run(count: int, command: Sequence[str]) -> int:
    """Run the copies until all have ended; return the exit code of the first to end, or of one that failed."""
    copies: list[subprocess.Popen[bytes]] = []

    def end(*_: object) -> None:
        for copy in copies:
            copy.send_signal(signal.SIGTERM)  # of one that has ended it is not sent

    signal.signal(signal.SIGTERM, end)  # before the first copy runs: who sees one may end us
    copies.extend(subprocess.Popen(command) for _ in range(count))
    while all(copy.poll() is None for copy in copies):
        time.sleep(LOOK_S)
    first = next(copy for copy in copies if copy.poll() is not None)
    end()
    codes = [copy.wait() for copy in (first, *copies)]
    return next((code for code in codes if code), 0)


if __name__ == "__main__":
    sys.exit(run(int(sys.argv[1]), sys.argv[2:]))
