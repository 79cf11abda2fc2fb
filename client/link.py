"""The link folder: all that the SuperNode of a site needs, and nothing that belongs to the site's data or keys.

::

    north-link/
        link.json          whose link this is, and where it leads
        node_key           the SuperNode's key (P-384, OpenSSH form), node_key.pub its public line
        ca.pem             the CA that the coordinator's certificate must come from
        superexec.secret   shared with the site's daemon, for Flower's service on 127.0.0.1
        proxy.password     of the hospital's proxy, if it wants one
        flwr/ logs/        Flower's own state, and its log

The user that the SuperNode runs as may own the folder, and the daemon's group may read it; nobody else.
"""

import os
import random
import shutil
import socket
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import quote, urlsplit

from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from wardround.client.store.keys import write_secret
from wardround.protocol.errors import Unavailable, UsageError
from wardround.protocol.identity import SiteId
from wardround.protocol.invitation import address, check_host

PASSWORD_FILE: Final = "proxy.password"
_RUNTIME_PORTS: Final = range(20_000, 30_000)
"""Below the ports that systems hand out to outgoing connections."""


def check_superlink(text: str) -> str:
    """Return ``text`` when it is ``host:port``, an IPv6 address in brackets. Raises ValueError otherwise."""
    parts = urlsplit(f"//{text}")
    if parts.hostname is None or not parts.port or address(check_host(parts.hostname), parts.port) != text:
        raise ValueError("this is no host and port")
    return text


def check_proxy(text: str) -> str:
    """Return ``text`` when it is ``http://<host>:<port>`` and no more. Raises ValueError otherwise."""
    if not text.startswith("http://"):
        raise ValueError("a proxy is given as http://<host>:<port>")
    return "http://" + check_superlink(text.removeprefix("http://").rstrip("/"))


class AboutLink(BaseModel):
    """``link.json``. ``runtime_port``: Flower's service on 127.0.0.1, for the daemon."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["wardround/link/1"] = "wardround/link/1"
    site: SiteId
    superlink: Annotated[str, AfterValidator(check_superlink)]
    runtime_port: int = Field(ge=0, le=65535)
    proxy: Annotated[str, AfterValidator(check_proxy)] | None = None
    proxy_user: str | None = Field(default=None, min_length=1, max_length=200)
    proxy_password_file: str | None = Field(default=None, min_length=1)


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy that takes CONNECT: ``url`` is http://<host>:<port>, the password goes to nobody else."""

    url: str
    user: str | None = None
    password: str | None = None

    def __repr__(self) -> str:
        return f"Proxy({self.url!r})"

    @property
    def full_url(self) -> str:
        """With user and password in it, for an environment variable of our own child; never to be printed."""
        if self.user is None:
            return self.url
        return self.url.replace("http://", f"http://{quote(self.user, '')}:{quote(self.password or '', '')}@", 1)


@dataclass(frozen=True, slots=True)
class LinkFolder:
    """An opened folder."""

    path: Path
    about: AboutLink

    @classmethod
    def create(
        cls,
        path: Path,
        site: str,
        superlink: str,
        ca_pem: bytes,
        proxy: Proxy | None = None,
        runtime_port: int | None = None,
    ) -> "LinkFolder":
        """A new folder with a new node key and a new secret.

        Raises:
            UsageError: the folder exists, or ``superlink`` or the proxy is none.
            Unavailable: it cannot be written.
        """
        about = _about(site, superlink, proxy, _free_port() if runtime_port is None else runtime_port)
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            raise UsageError(f"'{path}' exists already", "choose a folder that does not exist yet") from None
        except OSError as error:
            raise Unavailable(f"'{path}' cannot be made: {error.strerror}", "check the path and the disk") from error
        folder = cls(path, about)
        try:
            folder._fill(ca_pem, proxy)
        except BaseException:
            # The folder is ours and nobody has seen it: a second try should find nothing in its way.
            folder.destroy()
            raise
        return folder

    @classmethod
    def open(cls, path: Path) -> "LinkFolder":
        """The folder at ``path``. Raises UsageError when it is none, or when everybody may look into it."""
        try:
            about = AboutLink.model_validate_json((path / "link.json").read_bytes())
            mode = stat.S_IMODE(path.stat().st_mode)
        except (OSError, ValidationError):
            raise UsageError(
                f"'{path}' is no link folder",
                "make one with 'wardround site join'; if that was interrupted, remove this folder first",
            ) from None
        if mode & 0o007:
            raise UsageError(f"others may look into the link folder '{path}'", f"run: chmod o= {path}")
        return cls(path, about)

    @property
    def ca(self) -> Path:
        return self.path / "ca.pem"

    @property
    def node_key(self) -> Path:
        """The SuperNode's private key."""
        return self.path / "node_key"

    @property
    def secret_file(self) -> Path:
        return self.path / "superexec.secret"

    def secret(self) -> bytes:
        """What daemon and SuperNode prove to each other: the file's exact bytes, as Flower takes them."""
        return _read(self.secret_file)

    def node_key_line(self) -> str:
        """The public line of the node key, computed from the private one. Raises UsageError when it is damaged."""
        try:
            key = load_ssh_private_key(_read(self.node_key), None)
        except (ValueError, TypeError):
            key = None
        if not isinstance(key, EllipticCurvePrivateKey):
            raise UsageError(f"'{self.node_key}' is no node key", "move the link folder away and join with a new code")
        return _line(key)

    def proxy(self) -> Proxy | None:
        """The proxy with its password, or None. Raises UsageError when the password's file is missing."""
        about = self.about
        if about.proxy is None:
            return None
        password = None
        if about.proxy_password_file is not None:
            password = password_in(self.path / about.proxy_password_file)
        return Proxy(about.proxy, about.proxy_user, password)

    def proxy_url(self) -> str | None:
        """The proxy's address with user and password, for the SuperNode's environment."""
        proxy = self.proxy()
        return None if proxy is None else proxy.full_url

    def led_to(self, superlink: str, ca_pem: bytes, proxy: Proxy | None) -> "LinkFolder":
        """The same folder with the same keys, which leads to ``superlink`` from now on.

        Raises:
            UsageError: ``superlink`` or the proxy is none.
            Unavailable: it cannot be written.
        """
        folder = LinkFolder(self.path, _about(self.about.site, superlink, proxy, self.about.runtime_port))
        folder._lead(ca_pem, proxy)
        return folder

    def destroy(self) -> None:
        """Remove the folder and all that is in it, as far as the disk lets us."""
        with suppress(OSError):
            shutil.rmtree(self.path)

    def _fill(self, ca_pem: bytes, proxy: Proxy | None) -> None:
        try:
            for part in ("flwr", "logs"):
                (self.path / part).mkdir(mode=0o700)
        except OSError as error:
            raise Unavailable(f"'{self.path}' cannot be written: {error.strerror}", "check the disk") from error
        key = generate_private_key(SECP384R1())
        write_secret(self.node_key, key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
        write_secret(self.path / "node_key.pub", _line(key).encode() + b"\n")
        write_secret(self.secret_file, os.urandom(32).hex().encode() + b"\n")
        self._lead(ca_pem, proxy)

    def _lead(self, ca_pem: bytes, proxy: Proxy | None) -> None:
        replace_secret(self.ca, ca_pem)
        if proxy is not None and proxy.password is not None:
            replace_secret(self.path / PASSWORD_FILE, proxy.password.encode() + b"\n")
        else:
            (self.path / PASSWORD_FILE).unlink(missing_ok=True)
        # Last, so that a folder with it is whole.
        replace_secret(self.path / "link.json", self.about.model_dump_json(indent=2).encode() + b"\n")


def password_in(path: Path) -> str:
    """The first line of a file. Raises UsageError when there is none, or the file is missing."""
    try:
        line = path.read_text(encoding="utf-8").splitlines()[:1]
    except (OSError, UnicodeDecodeError):
        line = []
    if not line or not line[0]:
        raise UsageError(
            f"'{path.name}' holds no password for the proxy",
            "write the password into it, on one line, and nothing else",
        )
    return line[0]


def _about(site: str, superlink: str, proxy: Proxy | None, runtime_port: int) -> AboutLink:
    try:
        return AboutLink(
            site=site,
            superlink=superlink,
            runtime_port=runtime_port,
            proxy=None if proxy is None else proxy.url,
            proxy_user=None if proxy is None else proxy.user,
            proxy_password_file=PASSWORD_FILE if proxy is not None and proxy.password is not None else None,
        )
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        raise UsageError(
            f"the link's '{fault['loc'][0]}' will not do",
            "give the coordinator as host:port, and a proxy as http://<host>:<port> with user and password apart",
        ) from None


def _line(key: EllipticCurvePrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def _free_port(ports: Sequence[int] = _RUNTIME_PORTS) -> int:
    """A port of 127.0.0.1 that nobody listens on now. It stays this link's, so it is drawn at random."""
    for port in random.sample(ports, min(len(ports), 100)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise Unavailable("no port of 127.0.0.1 is free", "end what listens on the ports from 20000 to 29999")


def replace_secret(path: Path, data: bytes) -> None:
    """Write ``path`` with mode 0600, whole or not at all."""
    beside = path.with_name(path.name + ".new")
    with suppress(OSError):
        beside.unlink(missing_ok=True)
    write_secret(beside, data)
    try:
        os.replace(beside, path)
    except OSError as error:
        raise Unavailable(f"'{path}' cannot be written: {error.strerror}", "check the folder and the disk") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Unavailable(
            f"'{path}' cannot be read: {error.strerror}", "check the folder's owner and rights"
        ) from error
