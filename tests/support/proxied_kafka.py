"""A real broker behind a TCP proxy: a worker reaches it over the link that a test breaks, the test directly."""

import re
import socket
from collections.abc import Mapping
from pathlib import Path

from tests.support.kafka import KafkaBroker
from tests.support.tcp_proxy import TcpProxy

PROPERTIES = """\
listeners=PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{behind},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{before}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT
"""


class ProxiedKafka(KafkaBroker):
    """`bootstrap_servers` stays open for the test itself; `proxied_servers`, and what it leads to, is the proxy.

    The proxy outlives restarts: it is given, and lives as long as whoever opened it says.
    """

    def __init__(self, folder: Path, proxy: TcpProxy, *, properties: Mapping[str, str] | None = None) -> None:
        super().__init__(folder, properties=properties)
        self.proxy = proxy

    @property
    def proxied_servers(self) -> str:
        """host:port of the proxy, for a worker's `bootstrap_servers`."""
        return self.proxy.address

    def _prepare(self) -> None:
        super()._prepare()
        settings = self._dir / "server.properties"
        text = settings.read_text()
        controller = re.search(r"CONTROLLER://127\.0\.0\.1:(\d+)", text)
        assert controller
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.proxy.upstream_port = free.getsockname()[1]
        more = PROPERTIES.format(
            port=self._port,
            behind=self.proxy.upstream_port,
            before=self.proxy.port,
            controller_port=controller[1],
        )
        settings.write_text(text + more)  # of a property that is given twice the last counts
