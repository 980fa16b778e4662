"""A real single-node Apache Kafka (KRaft) for tests: jars from Maven by name, one Java process, a few seconds.

`python -m tests.support.kafka --fetch` fetches the jars ahead of a test run.
"""

import contextlib
import fcntl
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import for_code

ROOT = Path(__file__).parents[2]
POM = Path(__file__).parent / "kafka_jars" / "pom.xml"
READY_S = 120.0
"""Ready in 3-4 s as a rule; 23 s were seen on a loaded machine."""
STOP_S = 60.0
"""A clean end takes a second or two as a rule. One by force would be a crash to what is on the disk."""
FETCH_S = 600.0
START_TRIES = 4
LOWEST_PORT, SHARES = 10_240, 8
HANDED_OUT = Path("/proc/sys/net/ipv4/ip_local_port_range")
HANDED_OUT_FROM = 32_768
"""Linux' default, where the system does not tell."""
CLUSTER_ID = "MkU3OEVBNTcwNTJENDM2Qg"
NEEDED = "install Java 17+ and Maven: tests/support/setup.sh (Debian: default-jre-headless maven)"

_CHANCE = random.SystemRandom()
_GIVEN: set[int] = set()
"""Ports that this process has chosen: a broker may be about to come back to one that is free now."""

_LAUNCHER = ThreadPoolExecutor(1, thread_name_prefix="kafka-launcher")
"""Its thread ends with the interpreter (PR_SET_PDEATHSIG is about threads, and those of a loop's pool end with it)."""

PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={log_dir}
# A test says which topics it wants: a misspelt name shall fail, not appear.
auto.create.topics.enable=false
# Internal topics: one partition, one replica (the defaults, 50 and 3, mean a slow first join or none at all).
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
# Small and quick: the cleaner alone takes 128 MiB of heap by default.
log.cleaner.threads=1
log.cleaner.dedupe.buffer.size=8388608
log.cleaner.io.buffer.size=131072
num.network.threads=2
num.io.threads=2
num.recovery.threads.per.data.dir=1
background.threads=2
log.segment.delete.delay.ms=1000
log.retention.hours=-1
# A restart waits until the old registration has expired (default 9 s).
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
"""


class NoKafkaError(Exception):
    """This machine cannot run a broker; the text says what to install."""


class BrokerFailedError(Exception):
    """The broker did not start; the text ends with its log."""


def ensure_jars() -> Path:
    """Return the folder with the broker's jars, fetched once; safe when several test runs ask at the same time.

    Raises:
        NoKafkaError: Java or Maven is missing, or the jars could not be fetched.
    """
    if shutil.which("java") is None:
        raise NoKafkaError(f"no java on the PATH; {NEEDED}")
    found = re.search(r"<kafka\.version>(.+?)</kafka\.version>", POM.read_text())
    assert found, f"no kafka.version in {POM}"
    jars = ROOT / ".cache" / "kafka" / found[1]
    jars.parent.mkdir(parents=True, exist_ok=True)
    with (jars.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not jars.is_dir():
            _fetch(jars)
    return jars


def _fetch(jars: Path) -> None:
    """Let Maven copy the jars beside `jars`, and rename when they are whole."""
    if shutil.which("mvn") is None:
        raise NoKafkaError(f"no mvn on the PATH; {NEEDED}")
    partial = jars.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    command = ["mvn", "-q", "-B", "-f", str(POM), "dependency:copy-dependencies", f"-DoutputDirectory={partial}"]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_S, check=False)
    except subprocess.TimeoutExpired as exc:
        raise NoKafkaError(f"Maven did not fetch the broker within {FETCH_S:g} s") from exc
    if ran.returncode:
        raise NoKafkaError(f"Maven could not fetch the broker: {(ran.stdout + ran.stderr)[-800:]}")
    partial.rename(jars)


class KafkaBroker:
    """One broker whose life a test decides: start, stop, kill, pause, cont, restart, all on one data folder and port.

    `properties` are added to the server's own. Topics are not created by being used.

    Raises:
        NoKafkaError: from the constructor, when this machine lacks what it takes.
        BrokerFailedError: from `start`, when the broker ended or was not ready in time.
    """

    name = "kafka"

    def __init__(self, data_dir: Path, *, properties: Mapping[str, str] | None = None, heap: str = "512m") -> None:
        self._jars = ensure_jars()
        self._dir = data_dir.resolve()
        self._dir.mkdir(parents=True, exist_ok=True)
        self._properties = dict(properties or {})
        self._heap = heap
        self._port = 0
        self._served = False
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def bootstrap_servers(self) -> str:
        """host:port; the same after a restart."""
        return f"127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """The Java process."""
        assert self._process, "the broker is not running"
        return self._process.pid

    def start(self) -> None:
        """Start and wait until the broker serves. The first start chooses its ports, later ones keep them."""
        for _ in range(START_TRIES):
            if not self._served:
                self._prepare()
            self._launch()
            if self._serves():
                return
            if "Address already in use" not in self.log_tail(400):
                break
        raise BrokerFailedError(self.log_tail())

    def stop(self) -> None:
        """End the broker cleanly; by force when it takes longer than a minute. Safe when it is not running."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the broker as a crash would; the data stay."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Freeze the process: connections stay open, nothing answers."""
        self._signal(signal.SIGSTOP)

    def cont(self) -> None:
        """Let a frozen process go on."""
        self._signal(signal.SIGCONT)

    def restart(self) -> None:
        """Stop cleanly and start again on the same data and port."""
        self.stop()
        self.start()

    def log_tail(self, lines: int = 40) -> str:
        """Return the end of the broker's log."""
        path = self._dir / "kafka.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""

    def log_folder(self, topic: str, partition: int) -> Path:
        """Where this broker keeps a partition's segments."""
        return self._dir / "data" / f"{topic}-{partition}"

    async def create_topics(
        self, topics: Mapping[str, int], configs: Mapping[str, str] | None = None, *, replicas: int = 1
    ) -> None:
        """Create topics (name: partitions), each with these configs, and wait until every partition has its leader."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap_servers)
        await admin.start()
        try:
            settings = dict(configs or {})
            wanted = [NewTopic(name, count, replicas, topic_configs=settings) for name, count in topics.items()]
            for topic, code, reason in (await admin.create_topics(wanted)).topic_errors:
                if code:
                    raise for_code(code)(f"{topic}: {reason}")
            ends_at_s = time.monotonic() + READY_S
            while not _led(await admin.describe_topics(list(topics))):
                assert time.monotonic() < ends_at_s, f"no leaders for {list(topics)}"
        finally:
            await admin.close()

    def _prepare(self) -> None:
        """Choose ports, write the settings, format an empty data folder."""
        shutil.rmtree(self._dir / "data", ignore_errors=True)
        self._port, self._controller_port = self._choose_ports()
        text = PROPERTIES.format(port=self._port, controller_port=self._controller_port, log_dir=self._dir / "data")
        extra = "".join(f"{name}={value}\n" for name, value in self._properties.items())
        settings = self._dir / "server.properties"
        settings.write_text(text + extra)
        command = self._java("kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(settings))
        ran = subprocess.run(command, capture_output=True, text=True, timeout=READY_S, check=False)
        if ran.returncode:
            raise BrokerFailedError((ran.stdout + ran.stderr)[-2_000:])
        settings.write_text(text + extra + self._more_properties())  # of a property that is given twice the last counts

    def _more_properties(self) -> str:
        """Return what a kind of broker adds to the settings once the ports are chosen: listeners of its own."""
        return ""

    def _choose_ports(self) -> tuple[int, int]:
        """Choose the ports of clients and of the controller."""
        port, controller_port = free_ports(2)
        return port, controller_port

    def _java(self, main_class: str, *arguments: str) -> list[str]:
        """Return the command; `setpriv` lets the broker die with us even when we are killed."""
        guard = ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []
        quick = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]
        quiet = [
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info",  # says `Kafka Server started`
        ]
        jars = ["-cp", f"{self._jars}/*"]
        return [*guard, "java", "-Xms64m", f"-Xmx{self._heap}", *quick, *quiet, *jars, main_class, *arguments]

    def _launch(self) -> None:
        """Start the process, from a thread that lives as long as we do: it is killed with the one that started it."""
        with (self._dir / "kafka.log").open("wb") as output:
            command = self._java("kafka.Kafka", str(self._dir / "server.properties"))
            self._process = _LAUNCHER.submit(
                subprocess.Popen,
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            ).result()

    def _serves(self) -> bool:
        """Wait until the process that was started serves; return whether it does."""
        assert self._process
        log = self._dir / "kafka.log"
        ends_at_s = time.monotonic() + READY_S
        while time.monotonic() < ends_at_s and self._process.poll() is None:
            if b"Kafka Server started" in log.read_bytes():
                self._served = True
                return True
            time.sleep(0.05)
        self.kill()
        return False

    def _signal(self, number: signal.Signals) -> None:
        if self._process and self._process.poll() is None:
            self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._signal(number)
        self.cont()  # a frozen process takes no SIGTERM
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


def _led(topics: list[dict[str, object]]) -> bool:
    """Return whether every partition of these descriptions has a leader."""
    partitions = [partition for topic in topics for partition in topic["partitions"]]  # type: ignore[attr-defined]
    return all(not topic["error_code"] for topic in topics) and all(each["leader"] >= 0 for each in partitions)


def free_ports(count: int) -> list[int]:
    """Return ports that are free, each once: while its broker is away nothing else of this run takes one.

    They lie below those that the system hands out to connections and to servers on port 0, and each process of a test
    run has a share of its own. Another run may still be quicker, hence the retry in `start`.
    """
    ports: list[int] = []
    own = _own_ports()
    while len(ports) < count:
        port = _CHANCE.choice(own) if own else 0
        with socket.socket() as probe, contextlib.suppress(OSError):  # it has an owner
            probe.bind(("127.0.0.1", port))
            port = probe.getsockname()[1]
            if port not in _GIVEN:
                _GIVEN.add(port)
                ports.append(port)
    return ports


def _own_ports() -> range:
    """Return the ports of this process; none where the system hands out nearly all there are."""
    first = int(HANDED_OUT.read_text().split()[0]) if HANDED_OUT.exists() else HANDED_OUT_FROM
    share = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % SHARES
    return range(LOWEST_PORT + share, first, SHARES)


if __name__ == "__main__":
    if sys.argv[1:] != ["--fetch"]:
        sys.exit("usage: python -m tests.support.kafka --fetch")
    print(ensure_jars())
