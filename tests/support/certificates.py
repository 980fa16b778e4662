"""Certificates made on the spot by openssl: an authority, and servers that it vouches for, well or badly."""

import ssl
import subprocess
from pathlib import Path

_KEY = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"


def make_authority(folder: Path) -> Path:
    """Make an authority in this folder; return its certificate (PEM)."""
    _openssl(folder, f"req -x509 {_KEY} -days 2 -subj /CN=authority -keyout ca.key -out ca.pem")
    return folder / "ca.pem"


def serving(folder: Path, name: str = "IP:127.0.0.1", days: int = 2) -> ssl.SSLContext:
    """Return what serves TLS with a certificate of the folder's authority, for this name, valid for so many days."""
    (folder / "name.txt").write_text(f"subjectAltName={name}\n")
    _openssl(folder, f"req {_KEY} -subj /CN=server -keyout server.key -out server.csr")
    sign = "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile name.txt -out server.pem"
    _openssl(folder, f"{sign} -days {days}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    return context


def _openssl(folder: Path, command: str) -> None:
    subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True, timeout=60)
