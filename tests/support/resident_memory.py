"""A client in a process of its own that says how much memory one answer cost it.

`python -m tests.support.resident_memory URL MAX_RESPONSE_BYTES` asks once to warm up and once more, and prints what the
second one ended in and by how many bytes the peak of resident memory grew (VmHWM, proc(5)).
"""

import asyncio
import re
import sys
from pathlib import Path

from tests.support.llm_settings import ask, client_for
from workers.errors import NoAnswer

ROOT = Path(__file__).parents[2]


async def cost_of(url: str, max_response_bytes: int) -> tuple[str, int]:
    """Return how the second request to `url` ended, and what it cost in bytes, measured in a new process."""
    module = "tests.support.resident_memory"
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, url, str(max_response_bytes), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await asyncio.wait_for(child.communicate(), 60)
    ended, grown_bytes = said.decode().split()
    return ended, int(grown_bytes)


async def _measure(url: str, max_response_bytes: int) -> None:
    client = client_for(url, max_attempts=1, timeout_s=30.0, max_response_bytes=max_response_bytes)
    await client.start()
    await ask(client)
    before_bytes = _peak_bytes()
    try:
        await ask(client)
        ended = "ok"
    except NoAnswer as error:
        ended = error.reason
    print(ended, _peak_bytes() - before_bytes)
    await client.close()


def _peak_bytes() -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) << 10


if __name__ == "__main__":
    asyncio.run(_measure(sys.argv[1], int(sys.argv[2])))
