"""The demo's child processes: they end with their parent, in time, and say what went wrong."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from workers.demo.broker import EmbeddedBroker
from workers.demo.child import Child
from workers.demo.mock_cluster import library_path
from workers.demo.processes import SimulatedModel
from workers.errors import EX_SOFTWARE, EX_UNAVAILABLE, Exit

PARENT = """
import sys, time
from workers.demo.broker import EmbeddedBroker
from workers.demo.processes import SimulatedModel
broker, model = EmbeddedBroker({"a": 1}), SimulatedModel(latency="zero")
print(broker.pid, model.pid, flush=True)
time.sleep(60)
"""


def gone(pid: int) -> bool:
    """Whether the process has ended (an ended one whose new parent has not looked yet is a zombie)."""
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):  # the second when it is reaped between `open` and `read`
        return True


def wait_until_gone(*pids: int) -> None:
    """Poll until all of them have ended."""
    ends_at_s = time.monotonic() + 20
    while not all(gone(pid) for pid in pids):
        assert time.monotonic() < ends_at_s, f"still there: {pids}"
        time.sleep(0.02)


def test_children_end_when_their_parent_is_killed() -> None:
    """A parent that had no time to clean up leaves no broker and no model behind."""
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        assert not any(gone(pid) for pid in pids)
        parent.send_signal(signal.SIGKILL)
    wait_until_gone(*pids)


def test_children_end_when_their_lifetime_has_passed() -> None:
    """A lifetime bounds a child even while its parent lives. It is longer than a child takes to be ready."""
    broker, model = EmbeddedBroker(lifetime_s=4), SimulatedModel(lifetime_s=4)
    try:
        wait_until_gone(broker.pid, model.pid)
    finally:
        broker.stop()
        model.stop()


def test_a_child_that_cannot_start_says_so() -> None:
    """A child that ends before it is ready is an error with its exit code, not a wait."""
    with pytest.raises(Exit, match="ended by itself") as told:
        SimulatedModel(latency="nonsense")
    assert told.value.code == 1


def test_a_child_that_says_nothing_is_ended() -> None:
    """Readiness is waited for in bounded time, and the silent child does not stay."""
    with pytest.raises(Exit, match="said nothing within") as told:
        Child("timeit", ["-n", "1", "import time; time.sleep(30)"], ready_s=0.5)
    assert told.value.code == EX_SOFTWARE


def test_a_missing_wheel_is_named() -> None:
    """Without confluent-kafka the embedded broker says which extra to install."""
    with pytest.raises(Exit, match=r"pip install 'penstock\[demo\]'") as told:
        library_path("no-such-distribution")
    assert told.value.code == EX_UNAVAILABLE


def test_commands_of_a_broker() -> None:
    """Commands are answered, a topic may be created twice, and a broker that is gone is an error."""
    with EmbeddedBroker({"a": 2}) as broker:
        host, _, port = broker.bootstrap_servers.partition(":")
        assert host == "127.0.0.1"
        assert int(port) > 0
        broker.create_topic("a", 2)
        broker.set_rtt_ms(1)
        broker.push_errors(3, [5, 5])
        broker.down()
        broker.up()
        os.kill(broker.pid, signal.SIGKILL)
        with pytest.raises(Exit, match="ended by itself"):
            broker.up()
    with pytest.raises(Exit, match="stopped already"):
        broker.up()
