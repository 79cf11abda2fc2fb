"""The coordinator's own folder: its keys, certificates and databases, readable by its user only.

::

    hub/
        coordinator.json        name and public address
        coordinator.sqlite      sites, invitations, rosters, studies, rounds
        superlink.sqlite        Flower's messages
        witness.sqlite          heads of sites' ledgers that were cosigned, and alarms
        keys/coordinator.pem    signs receipts and requests (Ed25519)
        keys/superexec.secret   shared with Flower's processes on this machine
        tls/ca.pem ca.key       the CA that sites pin; no ca.key when the certificates were given
        tls/server.pem .key     what the public listener shows, the CA's certificate last
        studies/ logs/ flwr/
        weights/                weights files that people installed
"""

import os
import random
import shutil
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from pydantic import BaseModel, ConfigDict, ValidationError

from wardround.conf.weights import WeightsFolder
from wardround.protocol.errors import Unavailable, UsageError
from wardround.protocol.identity import Identity
from wardround.protocol.invitation import Host, Port
from wardround.protocol.owners import COORDINATOR, Name
from wardround.protocol.weights import FOLDER as WEIGHTS
from wardround.server.certificates import Chain, ca_hash, check_handshake, given, issue, own_ca
from wardround.server.store.database import open_database
from wardround.server.store.studies import WITNESS

ALL_INTERFACES: Final = "0.0.0.0"
_FIELDS: Final = {"name": "name", "public_host": "host", "listen_host": "address to listen at"}
_RUNTIME_PORTS: Final = range(20_000, 30_000)
"""Below the ports that systems hand out to outgoing connections."""


class About(BaseModel):
    """``coordinator.json``. ``listen_host``: where the public listener binds; ``runtime_port``: Flower on 127.0.0.1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["wardround/coordinator/1"] = "wardround/coordinator/1"
    name: Name
    public_host: Host
    public_port: Port
    listen_host: Host = ALL_INTERFACES
    runtime_port: Port


@dataclass(frozen=True, slots=True)
class GivenCertificate:
    """PEM files' contents from an authority that the operator chose, as ``certificates.given`` takes them."""

    certificate: bytes
    key: bytes
    ca: bytes


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class CoordinatorFolder:
    """An opened folder. Private keys are read when they are asked for."""

    path: Path
    about: About

    @classmethod
    def create(
        cls,
        path: Path,
        name: str,
        host: str,
        port: int,
        certificate: GivenCertificate | None = None,
        clock: Callable[[], datetime] = utc_now,
        runtime_port: int | None = None,
        listen_host: str = ALL_INTERFACES,
    ) -> "CoordinatorFolder":
        """A new folder with a new key, and with a CA of its own unless a certificate is given.

        Raises:
            UsageError: the folder exists, name, host or port is none, or the certificate will not do.
            Unavailable: it cannot be written.
        """
        try:
            about = About(
                name=name,
                public_host=host,
                public_port=port,
                listen_host=listen_host,
                runtime_port=_free_port() if runtime_port is None else runtime_port,
            )
        except ValidationError as error:
            fault = error.errors(include_url=False, include_input=False)[0]
            where = _FIELDS.get(str(fault["loc"][0]), "port")
            raise UsageError(
                f"the coordinator's {where} will not do: {fault['msg'].removeprefix('Value error, ')}",
                "give a printable name, a DNS name in lower case or an IP address, and a port from 1 to 65535",
            ) from None
        chain, ca_key = _new_chain(about, certificate, clock())
        folder = cls(path, about)
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            raise UsageError(f"'{path}' exists already", "choose a folder that does not exist yet") from None
        except OSError as error:
            raise Unavailable(f"'{path}' cannot be made: {error.strerror}", "check the path and the disk") from error
        try:
            folder._fill(chain, ca_key)
        except BaseException:
            # The folder is ours and nobody has seen it: a second try should find nothing in its way.
            with suppress(OSError):
                shutil.rmtree(path)
            raise
        return folder

    @classmethod
    def open(cls, path: Path) -> "CoordinatorFolder":
        """The folder at ``path``. Raises UsageError when it is none, or when others may look into it."""
        try:
            about = About.model_validate_json((path / "coordinator.json").read_bytes())
            mode = stat.S_IMODE(path.stat().st_mode)
        except (OSError, ValidationError):
            raise UsageError(
                f"'{path}' is no coordinator's folder", "make one with 'wardround coordinator init'"
            ) from None
        if mode & 0o077:
            raise UsageError(f"others may look into the coordinator's folder '{path}'", f"run: chmod 700 {path}")
        return cls(path, about)

    @property
    def database(self) -> Path:
        return self.path / "coordinator.sqlite"

    @property
    def weights(self) -> WeightsFolder:
        """The weights files that people installed here."""
        return WeightsFolder(self.path / WEIGHTS)

    @property
    def studies(self) -> Path:
        return self.path / "studies"

    @property
    def witness(self) -> Path:
        """What was cosigned and heard of ledgers; there from the first study on."""
        return self.path / WITNESS

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def runtime_port(self) -> int:
        """Where Flower listens on 127.0.0.1."""
        return self.about.runtime_port

    @property
    def certificate(self) -> Path:
        """PEM, the listener's certificate first and the CA's last."""
        return self.path / "tls" / "server.pem"

    @property
    def certificate_key(self) -> Path:
        return self.path / "tls" / "server.key"

    @property
    def ca(self) -> Path:
        """PEM of the CA that sites pin."""
        return self.path / "tls" / "ca.pem"

    def identity(self) -> Identity:
        """The coordinator's private key. Raises UsageError when the file is no such key or others may read it."""
        path = self.path / "keys" / "coordinator.pem"
        try:
            key = load_pem_private_key(_read_secret(path), None)
        except (ValueError, TypeError):
            key = None
        if not isinstance(key, Ed25519PrivateKey):
            raise UsageError(f"'{path}' is no Ed25519 key", "restore the key from the coordinator's backup")
        return Identity(COORDINATOR, key)

    def superexec_secret(self) -> bytes:
        """What the supervisor and Flower prove to each other on this machine: 64 hex digits, as Flower reads them."""
        return _read_secret(self.path / "keys" / "superexec.secret").strip()

    def renew(self, now: datetime, certificate: GivenCertificate | None = None) -> None:
        """A new server certificate under the CA that sites have pinned; the listener takes it at its next start.

        Two files change, one after the other: if this is interrupted, renew again.

        Raises:
            UsageError: our own CA has no key here and none is given, or the given one has another CA.
            Unavailable: it cannot be written; the old certificate holds.
        """
        pinned = _read(self.ca)
        ca_key = self.path / "tls" / "ca.key"
        if certificate is not None:
            chain = given(certificate.certificate, certificate.key, certificate.ca, self.about.public_host, now)
            if ca_hash(chain.ca) != ca_hash(pinned):
                raise UsageError(
                    "this certificate comes from another CA than the one that the sites have pinned",
                    "have it issued by the same CA; with another one every site has to join again",
                )
        elif ca_key.exists():
            chain = issue(pinned, _read_secret(ca_key), self.about.public_host, now)
        else:
            raise UsageError(
                "the CA of this coordinator is not its own", "have a new certificate issued, and give it with its key"
            )
        trial = self.path / "tls" / "new"
        shutil.rmtree(trial, ignore_errors=True)
        try:
            trial.mkdir(mode=0o700)
            _write_secret(trial / "server.pem", chain.server)
            _write_secret(trial / "server.key", chain.server_key)
            check_handshake(str(trial / "server.pem"), str(trial / "server.key"), pinned, self.about.public_host)
            os.replace(trial / "server.key", self.certificate_key)
            os.replace(trial / "server.pem", self.certificate)
        except OSError as error:
            raise Unavailable(f"'{trial}' cannot be written: {error.strerror}", "check the disk") from error
        finally:
            shutil.rmtree(trial, ignore_errors=True)

    def _fill(self, chain: Chain, ca_key: bytes | None) -> None:
        try:
            for part in ("keys", "tls", "studies", "logs", "flwr"):
                (self.path / part).mkdir(mode=0o700)
        except OSError as error:
            raise Unavailable(f"'{self.path}' cannot be written: {error.strerror}", "check the disk") from error
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        _write_secret(self.path / "keys" / "coordinator.pem", pem)
        _write_secret(self.path / "keys" / "superexec.secret", os.urandom(32).hex().encode() + b"\n")
        _write_secret(self.ca, chain.ca)
        if ca_key is not None:
            _write_secret(self.path / "tls" / "ca.key", ca_key)
        _write_secret(self.certificate, chain.server)
        _write_secret(self.certificate_key, chain.server_key)
        check_handshake(str(self.certificate), str(self.certificate_key), chain.ca, self.about.public_host)
        open_database(self.database).close()
        # Last, so that a folder with it is whole.
        _write_secret(self.path / "coordinator.json", self.about.model_dump_json(indent=2).encode() + b"\n")


def _new_chain(about: About, certificate: GivenCertificate | None, now: datetime) -> tuple[Chain, bytes | None]:
    if certificate is not None:
        return given(certificate.certificate, certificate.key, certificate.ca, about.public_host, now), None
    ca, ca_key = own_ca(about.name, now)
    return issue(ca, ca_key, about.public_host, now), ca_key


def _free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now. It stays this coordinator's, so it is drawn at random."""
    for port in random.sample(_RUNTIME_PORTS, 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise Unavailable("no port of 127.0.0.1 is free", "end what listens on the ports from 20000 to 29999")


def _write_secret(path: Path, data: bytes) -> None:
    """A new file with mode 0600, on disk when this returns."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise Unavailable(f"'{path}' cannot be written: {error.strerror}", "check the folder and the disk") from error


def _read_secret(path: Path) -> bytes:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise Unavailable(f"the key '{path}' cannot be read: {error.strerror}", "check the path") from error
    if mode & 0o077:
        raise UsageError(f"others may read the key '{path}'", f"run: chmod 600 {path}")
    return _read(path)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Unavailable(f"'{path}' cannot be read: {error.strerror}", "check the path") from error
