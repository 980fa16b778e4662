"""A real broker that also listens for TLS with SASL and knows rights, with certificates made on the spot by openssl."""

import subprocess
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialDeletion,
    UserScramCredentialUpsertion,
)

from tests.support.deployment import wait_for
from tests.support.kafka import KafkaBroker, free_ports

USER = "penstock"
PASSWORD = "right-word"  # noqa: S105 - of a broker that lives for one test
LOGIN = "org.apache.kafka.common.security"
LISTENERS = ("SECURE", "ROTATING", "EXPIRED", "ELSEWHERE")
REAUTHENTICATION_S = 2
PROPERTIES = """\
listeners=PLAINTEXT://127.0.0.1:{port},{listeners},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},{listeners}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,{protocols}
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:{user}
"""
LISTENER = """\
listener.name.{name}.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512
listener.name.{name}.plain.sasl.jaas.config={login}.plain.PlainLoginModule required user_{user}="{password}";
listener.name.{name}.scram-sha-512.sasl.jaas.config={login}.scram.ScramLoginModule required;
listener.name.{name}.ssl.keystore.type=PEM
listener.name.{name}.ssl.keystore.location={keystore}
listener.name.{name}.ssl.truststore.type=PEM
listener.name.{name}.ssl.truststore.location={ca}
listener.name.{name}.ssl.client.auth=requested
"""


class SecuredKafka(KafkaBroker):
    """`bootstrap_servers` stays open for the test itself and may do everything, as USER may.

    `secure_servers` takes users by PLAIN or SCRAM-SHA-512. Others than USER may do what `allow` grants and nothing
    more. ROTATING ends each connection after `REAUTHENTICATION_S` (KIP-368, aiokafka does not authenticate again),
    EXPIRED and ELSEWHERE show certificates that nobody should accept.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.ca_file = make_ca(folder, "ca")
        good = make_certificate(folder)
        self._keystores = {
            "SECURE": good,
            "ROTATING": good,
            "EXPIRED": make_certificate(folder, "expired", days=0),
            "ELSEWHERE": make_certificate(folder, "elsewhere", names="DNS:elsewhere.example"),
        }
        self._ports: dict[str, int] = {}

    @property
    def secure_servers(self) -> str:
        """host:port of the secured listener."""
        return self.servers("SECURE")

    def servers(self, listener: str) -> str:
        """host:port of one of LISTENERS."""
        return f"127.0.0.1:{self._ports[listener]}"

    @cached_property
    def admin(self) -> AdminClient:
        """An admin client that may do everything."""
        return AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})

    def _more_properties(self) -> str:
        self._ports = dict(zip(LISTENERS, free_ports(len(LISTENERS)), strict=True))
        text = PROPERTIES.format(
            port=self._port,
            listeners=",".join(f"{name}://127.0.0.1:{port}" for name, port in self._ports.items()),
            protocols=",".join(f"{name}:SASL_SSL" for name in LISTENERS),
            controller_port=self._controller_port,
            user=USER,
        )
        for name in LISTENERS:
            text += LISTENER.format(
                name=name.lower(),
                login=LOGIN,
                user=USER,
                password=PASSWORD,
                keystore=self._keystores[name],
                ca=self.ca_file,
            )
        ends_ms = REAUTHENTICATION_S * 1000
        return text + f"listener.name.rotating.scram-sha-512.connections.max.reauth.ms={ends_ms}\n"

    def start(self) -> None:
        """Start, and give the user a SCRAM password."""
        super().start()
        self.set_password(USER, PASSWORD)

    def set_password(self, user: str, password: str) -> None:
        """Give a user a SCRAM password, or another one; open connections stay."""
        scram = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4_096)
        self._alter_scram(UserScramCredentialUpsertion(user, scram, password.encode()))

    def revoke_password(self, user: str) -> None:
        """Take a user's SCRAM password away; open connections stay."""
        self._alter_scram(UserScramCredentialDeletion(user, ScramMechanism.SCRAM_SHA_512))

    def _alter_scram(self, wanted: UserScramCredentialUpsertion | UserScramCredentialDeletion) -> None:
        for done in self.admin.alter_user_scram_credentials([wanted]).values():
            done.result(60)

    def allow(self, user: str, rights: Iterable[tuple[ResourceType, str, AclOperation]]) -> None:
        """Let a user do exactly this: (resource, its name, operation). Returns when the broker enforces it."""
        wanted = [_binding(user, *right) for right in rights]
        mine = AclBindingFilter(
            ResourceType.ANY,
            None,
            ResourcePatternType.ANY,
            f"User:{user}",
            None,
            AclOperation.ANY,
            AclPermissionType.ANY,
        )
        for gone in self.admin.delete_acls([mine]).values():
            gone.result(60)
        if wanted:
            for granted in self.admin.create_acls(wanted).values():
                granted.result(60)
        wait_for(lambda: len(self.admin.describe_acls(mine).result(60)) == len(wanted), 60)


def _binding(user: str, kind: ResourceType, name: str, operation: AclOperation) -> AclBinding:
    permission = AclPermissionType.ALLOW
    return AclBinding(kind, name, ResourcePatternType.LITERAL, f"User:{user}", "*", operation, permission)


def make_ca(folder: Path, name: str) -> Path:
    """Make a certificate authority; return its certificate (PEM)."""
    _openssl(folder, f"req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={name} -keyout {name}.key -out {name}.pem")
    return folder / f"{name}.pem"


def make_certificate(folder: Path, name: str = "broker", *, days: int = 2, names: str = "IP:127.0.0.1") -> Path:
    """Make a certificate for `names`, signed by the authority `ca` of this folder; return key and chain (PEM).

    With no days it has expired a second later.
    """
    _openssl(folder, f"req -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr")
    _sign(folder, name, days, f"subjectAltName={names}\n")
    keystore = folder / f"{name}-keystore.pem"
    keystore.write_text("".join((folder / part).read_text() for part in (f"{name}.key", f"{name}.pem", "ca.pem")))
    return keystore


def make_client_certificate(folder: Path, name: str, passphrase: str) -> tuple[Path, Path]:
    """Make a client's certificate, signed by `ca` of this folder; return it and its encrypted key (PEM)."""
    _openssl(
        folder,
        f"req -newkey rsa:2048 -passout pass:{passphrase} -subj /CN={name} -keyout {name}.key -out {name}.csr",
    )
    _sign(folder, name, 2, "extendedKeyUsage=clientAuth\n")
    return folder / f"{name}.pem", folder / f"{name}.key"


def _sign(folder: Path, name: str, days: int, extensions: str) -> None:
    (folder / f"{name}.txt").write_text(extensions)
    _openssl(
        folder,
        f"x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days {days}"
        f" -extfile {name}.txt -out {name}.pem",
    )


def _openssl(folder: Path, command: str) -> None:
    subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True, timeout=60)
