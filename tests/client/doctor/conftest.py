"""What the doctor is tried on: a coordinator of its own making on 127.0.0.1, good or at fault, and a real proxy."""

import socket
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from wardround.client.doctor import Examined, State, run_all
from wardround.client.doctor.network import check_network
from wardround.client.link import LinkFolder
from wardround.client.store.folder import SiteFolder
from wardround.protocol.identity import Identity

HOST = "127.0.0.1"
DAY = timedelta(days=1)


class Authority:
    """A CA made with ``cryptography`` alone, so that the certificates come from another hand than the program's."""

    def __init__(self, name: str, days: float = 3650) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(self.name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 400 * DAY)
            .not_valid_after(now + days * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self.key, SHA256())
        )
        self.pem = self.certificate.public_bytes(Encoding.PEM)

    def issue(self, names: tuple[str, ...] = (HOST,), begins: float = -1, ends: float = 365) -> tuple[bytes, bytes]:
        """Certificate and key in PEM; ``begins`` and ``ends`` in days from now."""
        key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begins * DAY)
            .not_valid_after(now + ends * DAY)
        )
        if names:
            general = [x509.IPAddress(ip_address(n)) if n[0].isdigit() else x509.DNSName(n) for n in names]
            builder = builder.add_extension(x509.SubjectAlternativeName(general), critical=False)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return builder.sign(self.key, SHA256()).public_bytes(Encoding.PEM), pem


@dataclass
class Listener:
    """A coordinator's public listener, or what stands in its place: one answer to each connection."""

    port: int
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0


def answer_of(status: str = "200 OK", ahead: float = 0.0) -> bytes:
    """What a healthy listener sends, its clock ``ahead`` seconds."""
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=ahead), usegmt=True)
    return f"HTTP/1.1 {status}\r\nDate: {date}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()


Serve = Callable[..., Listener]


@pytest.fixture
def authority() -> Authority:
    return Authority("Wardround CA of example")


@pytest.fixture
def other_authority() -> Authority:
    return Authority("Example Inspection Appliance")


@pytest.fixture
def make_authority() -> Callable[..., Authority]:
    return Authority


@pytest.fixture
def self_signed() -> Callable[[], tuple[bytes, bytes]]:
    """A certificate for the host that is its own issuer, and its key."""

    def make() -> tuple[bytes, bytes]:
        key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + DAY)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(HOST))]), critical=False)
            .sign(key, SHA256())
        )
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return certificate.public_bytes(Encoding.PEM), pem

    return make


@pytest.fixture(scope="module")
def module_authority() -> Authority:
    return Authority("Wardround CA of example")


def serving(
    certificate: tuple[bytes, bytes] | None, answer: Callable[[], bytes | None], hold: float = 0.0
) -> tuple[Listener, Callable[[], None]]:
    """Listen on a free port; ``certificate`` None: no TLS. An answer of None: the connection is dropped at once."""
    server = socket.create_server((HOST, 0))
    server.settimeout(0.1)
    listener = Listener(server.getsockname()[1])
    stopping = threading.Event()
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.TemporaryDirectory() as folder:
            both = Path(folder) / "both.pem"
            both.write_bytes(certificate[0] + certificate[1])
            context.load_cert_chain(both)

    def one(connection: socket.socket) -> None:
        connection.settimeout(5.0)
        said = answer()
        with suppress(OSError), connection:
            if said is None:
                stopping.wait(hold)
                return
            with connection if context is None else context.wrap_socket(connection, server_side=True) as channel:
                request = b""
                while b"\r\n\r\n" not in request:
                    part = channel.recv(4096)
                    if not part:
                        return
                    request += part
                listener.requests.append(request)
                channel.sendall(said)

    def run() -> None:
        while not stopping.is_set():
            with suppress(TimeoutError):
                connection, _ = server.accept()
                listener.connections += 1
                threads.append(threading.Thread(target=one, args=(connection,)))
                threads[-1].start()

    threads = [threading.Thread(target=run)]
    threads[0].start()

    def stop() -> None:
        stopping.set()
        for thread in threads:
            thread.join()
        server.close()

    return listener, stop


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start listeners; all end with the test."""
    stops: list[Callable[[], None]] = []

    def start(
        certificate: tuple[bytes, bytes] | None,
        answer: Callable[[], bytes | None] = answer_of,
        hold: float = 0.0,
    ) -> Listener:
        listener, stop = serving(certificate, answer, hold)
        stops.append(stop)
        return listener

    yield start
    for stop in stops:
        stop()


@pytest.fixture
def reply() -> Callable[..., bytes]:
    return answer_of


@pytest.fixture
def examined(tmp_path: Path) -> Callable[..., Examined]:
    """What is examined when only the way to a listener is asked for."""

    def make(port: int, ca: bytes, host: str = HOST, **more: str) -> Examined:
        (tmp_path / "ca.pem").write_bytes(ca)
        return Examined(host=host, port=port, ca=tmp_path / "ca.pem", **more)  # type: ignore[arg-type]

    return make


@pytest.fixture
def walked() -> Callable[..., dict[str, State]]:
    """Go the way; the state of each check, and the whole of it beside."""

    def walk(what: Examined, seconds: float = 5.0) -> dict[str, State]:
        return {finding.check: finding.state for finding in check_network(what, seconds=seconds)}

    return walk


@pytest.fixture
def folders(tmp_path: Path, authority: Authority) -> tuple[Path, Path]:
    """A site's folder and its link folder, both in order; nobody listens at the coordinator's port."""
    site, link = tmp_path / "north", tmp_path / "north-link"
    SiteFolder.create(site, "north", [Identity.generate("anna").public])
    LinkFolder.create(link, "north", f"{HOST}:9", authority.pem)
    table = site / "patients.csv"
    table.write_text("patient,age\np-4711,61\n", encoding="utf-8")
    (site / "no.txt").write_text("# ids\np-0815\n", encoding="utf-8")
    (site / "site.yaml").write_text(
        "data:\n- {connector: csv, path: patients.csv}\nopt_outs:\n- {kind: list, path: no.txt}\nlink: ../north-link\n",
        encoding="utf-8",
    )
    return site, link


@pytest.fixture(scope="module")
def behind_squid(
    module_authority: Authority, start_squid: Callable[[int], Any]
) -> Iterator[tuple[Any, Listener, Listener]]:
    """The proxy, the listener that it lets through, and one that it does not."""
    listener, stop = serving(module_authority.issue(), answer_of)
    forbidden, stop_forbidden = serving(module_authority.issue(), answer_of)
    yield start_squid(listener.port), listener, forbidden
    stop()
    stop_forbidden()


@pytest.fixture
def run_everything() -> Callable[[Examined], dict[str, State]]:
    """Every check; the worst state of each."""

    def run(what: Examined) -> dict[str, State]:
        found: dict[str, State] = {}
        for finding in run_all(what, seconds=5.0):
            order = list(State).index
            found[finding.check] = max(found.get(finding.check, State.OK), finding.state, key=order)
        return found

    return run
