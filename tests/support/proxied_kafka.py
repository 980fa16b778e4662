"""A real broker behind a TCP proxy: a worker reaches it over the link that a test breaks, the test directly."""

from collections.abc import Mapping
from pathlib import Path

from tests.support.kafka import KafkaBroker, free_ports
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

    def _more_properties(self) -> str:
        [self.proxy.upstream_port] = free_ports(1)
        return PROPERTIES.format(
            port=self._port,
            behind=self.proxy.upstream_port,
            before=self.proxy.port,
            controller_port=self._controller_port,
        )
