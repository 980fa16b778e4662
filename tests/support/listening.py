"""What a process listens on, as the kernel knows it."""

import contextlib
import os
import socket


def listening_sockets(pid: int) -> list[tuple[str, int]]:
    """Return (address, port) of every TCP socket that a process listens on, from /proc (proc(5))."""
    mine, found = set(), []
    for name in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208 - names of links
        with contextlib.suppress(FileNotFoundError):  # closed between two looks: a connection that came and went
            mine.add(os.readlink(f"/proc/{pid}/fd/{name}"))  # noqa: PTH115 - a link to no path
    for family in ("tcp", "tcp6"):
        with open(f"/proc/{pid}/net/{family}") as table:  # noqa: PTH123 - a table of the kernel
            for line in table.read().splitlines()[1:]:
                cells = line.split()
                if cells[3] == "0A" and f"socket:[{cells[9]}]" in mine:
                    address, port = cells[1].split(":")
                    packed = bytes.fromhex(address)[::-1]
                    found.append((socket.inet_ntoa(packed) if len(packed) == 4 else address, int(port, 16)))
    return found
