"""`python -m workers.demo.leash PARENT_PID PROGRAM ARGUMENT...`: become PROGRAM, and end when the parent does.

The worker is started by its ordinary entry point and does not know who started it. Linux sends the signal that is set
here when the parent dies, however it dies, and the setting stays in force across `exec` (prctl(2), PR_SET_PDEATHSIG).
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """Set the signal and become the program."""
    parent_pid, *command = sys.argv[1:]
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent_pid):  # it died before we asked
        sys.exit(1)
    os.execv(command[0], command)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
