"""A real broker that also listens for TLS with SASL, with a certificate authority made on the spot by openssl."""

import re
import socket
import subprocess
from pathlib import Path

from confluent_kafka.admin import AdminClient, ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion

from tests.support.kafka import KafkaBroker

USER = "penstock"
PASSWORD = "right-word"  # noqa: S105 - of a broker that lives for one test
LOGIN = "org.apache.kafka.common.security"
PROPERTIES = """\
listeners=PLAINTEXT://127.0.0.1:{port},SECURE://127.0.0.1:{secure_port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},SECURE://127.0.0.1:{secure_port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SECURE:SASL_SSL,CONTROLLER:PLAINTEXT
listener.name.secure.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512
listener.name.secure.plain.sasl.jaas.config={login}.plain.PlainLoginModule required user_{user}="{password}";
listener.name.secure.scram-sha-512.sasl.jaas.config={login}.scram.ScramLoginModule required;
listener.name.secure.ssl.keystore.type=PEM
listener.name.secure.ssl.keystore.location={keystore}
"""


class SecuredKafka(KafkaBroker):
    """`bootstrap_servers` stays open for the test itself; `secure_servers` takes the user by PLAIN or SCRAM-SHA-512."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.ca_file = make_ca(folder, "ca")
        self._keystore = make_certificate(folder)
        self._secure_port = 0

    @property
    def secure_servers(self) -> str:
        """host:port of the secured listener."""
        return f"127.0.0.1:{self._secure_port}"

    def _prepare(self) -> None:
        super()._prepare()
        settings = self._dir / "server.properties"
        text = settings.read_text()
        controller = re.search(r"CONTROLLER://127\.0\.0\.1:(\d+)", text)
        assert controller
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._secure_port = free.getsockname()[1]
        more = PROPERTIES.format(
            port=self._port,
            secure_port=self._secure_port,
            controller_port=controller[1],
            login=LOGIN,
            user=USER,
            password=PASSWORD,
            keystore=self._keystore,
        )
        settings.write_text(text + more)  # of a property that is given twice the last counts

    def start(self) -> None:
        """Start, and give the user a SCRAM password."""
        super().start()
        admin = AdminClient({"bootstrap.servers": self.bootstrap_servers})
        scram = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4_096)
        wanted = UserScramCredentialUpsertion(USER, scram, PASSWORD.encode())
        for done in admin.alter_user_scram_credentials([wanted]).values():
            done.result(60)


def make_ca(folder: Path, name: str) -> Path:
    """Make a certificate authority; return its certificate (PEM)."""
    _openssl(folder, f"req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={name} -keyout {name}.key -out {name}.pem")
    return folder / f"{name}.pem"


def make_certificate(folder: Path) -> Path:
    """Make a certificate for 127.0.0.1, signed by the authority `ca` of this folder; return key and chain (PEM)."""
    (folder / "san.txt").write_text("subjectAltName=IP:127.0.0.1\n")
    _openssl(folder, "req -newkey rsa:2048 -nodes -subj /CN=broker -keyout broker.key -out broker.csr")
    signed = (
        "x509 -req -in broker.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile san.txt -out broker.pem"
    )
    _openssl(folder, signed)
    keystore = folder / "keystore.pem"
    keystore.write_text("".join((folder / name).read_text() for name in ("broker.key", "broker.pem", "ca.pem")))
    return keystore


def _openssl(folder: Path, command: str) -> None:
    subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True, timeout=60)
