"""One connection to the coordinator: look the name up, connect, and pass the proxy (CONNECT, RFC 9110, 9.3.6).

Each step that fails says which one it was. The proxy is the one of link.json; the environment is not asked.
"""

import re
import socket
from base64 import b64encode
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from wardround.client.doctor.examined import Examined
from wardround.client.doctor.words import Finding, failed
from wardround.conf.said import Said, said
from wardround.protocol.invitation import address

_MOST_BYTES: Final = 65_536
_STATUS: Final = re.compile(rb"HTTP/1\.\d (\d{3})(?: [^\r\n]*)?\r?\n")


class Stopped(Exception):
    """The way ends here; ``finding`` says why."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.check)
        self.finding = finding


@dataclass(frozen=True, slots=True)
class Route:
    """The way to ``host:port``, through a proxy if there is one. ``seconds``: until silence counts as an answer."""

    host: str
    port: int
    via: tuple[str, int] | None
    credentials: str | None
    seconds: float

    @classmethod
    def of(cls, examined: Examined, seconds: float) -> "Route":
        """The way that the link folder names. Raises Stopped when the proxy's address is none."""
        assert examined.host is not None
        via = None
        if examined.proxy_url is not None:
            try:
                parts = urlsplit(examined.proxy_url)
                via = (parts.hostname or "", parts.port or 80)
            except ValueError:
                via = ("", 0)
            if not via[0]:
                raise Stopped(
                    failed(
                        "proxy", "The proxy's address in link.json is none.", "Write it as scheme http, host and port."
                    )
                )
        credentials = None
        if examined.proxy_user is not None:
            credentials = b64encode(f"{examined.proxy_user}:{examined.proxy_password or ''}".encode()).decode()
        return cls(examined.host, examined.port, via, credentials, seconds)

    @property
    def where(self) -> str:
        """The coordinator, as people write it."""
        return address(self.host, self.port)

    def look_up(self) -> Said:
        """Look up the name that this machine connects to; a sentence. Raises Stopped when it is not known."""
        host, port = self.via or (self.host, self.port)
        try:
            ip_address(host)
        except ValueError:
            pass
        else:
            return said("An address is given; there is no name to look up.")
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            raise Stopped(self._unknown(error.errno == socket.EAI_AGAIN)) from None
        except UnicodeError:
            raise Stopped(self._unknown(False)) from None
        kinds = sorted({"IPv6" if family == socket.AF_INET6 else "IPv4" for family, *_ in found})
        what = f"'{self.host}'" if self.via is None else said("the proxy")
        return said("The name of %(what)s is known here (%(kinds)s).", what=what, kinds=", ".join(kinds))

    def _unknown(self, silent: bool) -> Finding:
        what = f"'{self.host}'" if self.via is None else said("the proxy")
        if silent:
            return failed(
                "dns",
                said("No name server answers when this machine asks for %(what)s.", what=what),
                "Check which name servers this machine uses, and whether they are reached.",
            )
        return failed(
            "dns",
            said("The name of %(what)s is not known on this machine.", what=what),
            "Have this machine's name server answer for it."
            if self.via is None
            else "Correct the proxy's name in link.json.",
        )

    def connect(self) -> socket.socket:
        """A TCP connection to the proxy, or else to the coordinator. Raises Stopped."""
        what = said("the coordinator at %(where)s", where=self.where) if self.via is None else said("the proxy")
        try:
            return socket.create_connection(self.via or (self.host, self.port), self.seconds)
        except ConnectionRefusedError:
            sentence = said(
                "The connection to %(what)s is refused: nobody listens there, or a firewall says no.", what=what
            )
            cure = said(
                "Ask the operator whether the coordinator runs; if it does, have the firewall let this port out."
            )
        except TimeoutError:
            sentence = said(
                "The connection to %(what)s gets no answer within %(seconds)s s: a firewall drops it.",
                what=what,
                seconds=f"{self.seconds:.0f}",
            )
            cure = said("Have the firewall let this one host and port out.")
        except OSError as error:
            sentence = said("There is no way to %(what)s: %(reason)s.", what=what, reason=plain_reason(error))
            cure = said("Check this machine's network and its routes.")
        if self.via is not None:
            cure = said("Correct the proxy's address in link.json, or ask who runs the proxy.")
        raise Stopped(failed("connection", sentence, cure))

    def tunnelled(self) -> socket.socket:
        """A connection to the coordinator, through the proxy if there is one. Raises Stopped."""
        connection = self.connect()
        if self.via is None:
            return connection
        try:
            self._ask(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _ask(self, connection: socket.socket) -> None:
        lines = [f"CONNECT {self.where} HTTP/1.1", f"Host: {self.where}", "User-Agent: wardround"]
        if self.credentials is not None:
            lines.append(f"Proxy-Authorization: Basic {self.credentials}")
        answer = b""
        try:
            connection.sendall("\r\n".join([*lines, "", ""]).encode("ascii"))
            while b"\r\n\r\n" not in answer and len(answer) < _MOST_BYTES:
                part = connection.recv(4096)
                if not part:
                    break
                answer += part
        except OSError as error:
            raise Stopped(
                failed(
                    "proxy",
                    said(
                        "The proxy does not answer to CONNECT: %(reason)s.",
                        reason=plain_reason(error),
                    ),
                    "Check the proxy's address and port in link.json.",
                )
            ) from None
        match = _STATUS.match(answer)
        status = int(match[1]) if match else None
        if status is None or not 200 <= status < 300:
            raise Stopped(self._refused(status, answer.partition(b"\r\n\r\n")[0].lower()))

    def _refused(self, status: int | None, head: bytes) -> Finding:
        if status is None:
            return failed(
                "proxy",
                "What answers at the proxy's address is no HTTP proxy.",
                "Check the proxy's address and port in link.json.",
            )
        if status == 407 and b"basic" not in b"".join(re.findall(rb"\nproxy-authenticate:([^\r\n]*)", head)):
            return failed(
                "proxy",
                "The proxy wants a kind of log-in other than user and password (407).",
                said("Have %(where)s allowed without a log-in, or with 'Basic'.", where=self.where),
            )
        if status == 407 and self.credentials is None:
            return failed(
                "proxy",
                "The proxy wants a user and a password (407), and none is given.",
                "Write proxy_user into link.json, and the password into the file that it names.",
            )
        if status == 407:
            return failed(
                "proxy",
                "The proxy does not accept the user and the password (407).",
                "Correct proxy_user in link.json, or the password in its file.",
            )
        if status in (403, 405):
            return failed(
                "proxy",
                said(
                    "The proxy forbids a connection to host %(host)s, port %(port)s (%(status)s).",
                    host=self.host,
                    port=self.port,
                    status=status,
                ),
                said("Have CONNECT to %(where)s allowed at the proxy.", where=self.where),
            )
        if status in (500, 502, 503, 504):
            return failed(
                "proxy",
                said(
                    "The proxy lets this site through but does not reach %(where)s (%(status)s).",
                    where=self.where,
                    status=status,
                ),
                "Have it checked from the proxy: the name, and the firewall behind it.",
            )
        return failed(
            "proxy",
            said("The proxy answers to CONNECT with the status %(status)s.", status=status),
            "Ask who runs the proxy what this status means there.",
        )


def plain_reason(error: OSError) -> str:
    """Why, in the system's own words, or the kind of the error."""
    if isinstance(error, TimeoutError):
        return said("it stays silent")
    return error.strerror or type(error).__name__
