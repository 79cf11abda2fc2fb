"""A system that answers over HTTP: the connection that a YAML file describes, and what its refusals mean.

Credentials go to the address that the site wrote and to no other: redirects are not followed, nothing is taken from the
environment, and they cross a network under TLS only. No error quotes an address, which may name a patient.
"""

import logging
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from wardround.client.connectors.secret_file import read_secret
from wardround.client.yaml_text import load_yaml
from wardround.protocol.errors import Unavailable, UsageError, WardroundError

BUSY: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


class Gone(Exception):
    """The system names something and does not give it (404, 410)."""


class Connection(BaseModel):
    """The YAML file of a system."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(pattern=r"^https?://", description="where its services begin")
    user: str | None = None
    password_file: str | None = None
    token_file: str | None = Field(default=None, description="a bearer token")
    ca_file: str | None = Field(default=None, description="certificates that the system's own must lead to")
    timeout_seconds: float = Field(default=60.0, gt=0, le=3600)

    @model_validator(mode="after")
    def _fits(self) -> "Connection":
        if (self.user is None) != (self.password_file is None) or (self.user and self.token_file):
            raise ValueError("a user goes with a password_file, and neither with a token_file")
        return self


def connection_in(path: Path, what: str) -> Connection:
    """What the YAML file says of ``what``, such as an archive. Raises UsageError for what is wrong in it."""
    try:
        return Connection.model_validate(load_yaml(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UsageError(f"no file '{path.name}' in '{path.parent}'", "check 'path' of this source") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError, ValidationError):
        raise UsageError(
            f"'{path.name}' does not describe {what}",
            "it holds url, and may hold user with password_file, or token_file; ca_file, timeout_seconds",
        ) from None


def open_session(about: Connection, beside: Path) -> Any:
    """A session of ``requests``; files are taken from ``beside``. Raises UsageError for what is wrong with them."""
    import requests

    session = requests.Session()
    # Nothing from the environment: neither a proxy nor a password that lies in the home folder.
    session.trust_env = False
    session.max_redirects = 0
    if about.ca_file is not None:
        if not (beside / about.ca_file).is_file():
            raise UsageError(f"no file '{about.ca_file}' beside the connection's", "check 'ca_file'")
        session.verify = str(beside / about.ca_file)
    if about.user is None and about.token_file is None:
        return session
    if not about.url.startswith("https://") and not _loopback(about.url):
        raise UsageError("a password or token would cross the network in the clear", "write 'url' with https")
    if about.user is not None and about.password_file is not None:
        password = read_secret(beside / about.password_file, "password", "password_file")
        # As UTF-8 (RFC 7617); requests would take Latin-1.
        session.auth = requests.auth.HTTPBasicAuth(about.user.encode(), password.encode())
    elif about.token_file is not None:
        session.headers["Authorization"] = f"Bearer {read_secret(beside / about.token_file, 'token', 'token_file')}"
    return session


def silence(*names: str) -> None:
    """The transport, and clients named here, log addresses, and these may name patients."""
    for name in ("urllib3.connectionpool", *names):
        logging.getLogger(name).disabled = True


def explained(error: Exception, what: str, no_answer: tuple[str, str], again: str) -> WardroundError:
    """What went wrong, without the error's own text, which quotes an address. Raises Gone for what is not there.

    Args:
        what: the system, such as "the archive".
        no_answer: message and hint where its answer is not of its standard.
        again: the hint where it is busy or away.
    """
    from requests import exceptions

    match error:
        case exceptions.HTTPError():
            status = 0 if error.response is None else error.response.status_code
            if status in (404, 410):
                raise Gone from None
            if status in (401, 403):
                return UsageError(f"{what} refuses the user", "check user, password or token, and its rights")
            if status in BUSY:
                return Unavailable(f"{what} answers with status {status}", again)
            return UsageError(
                f"{what} answers with status {status}", "check 'url' and what is asked; its log says more"
            )
        case exceptions.TooManyRedirects():
            return UsageError(f"{what} sends to another address", "write the address itself into 'url'")
        case exceptions.SSLError():
            return UsageError(f"{what}'s certificate is not trusted", "give 'ca_file', and the name that it certifies")
        case exceptions.Timeout():
            return Unavailable(f"{what} does not answer in time", again)
        case exceptions.JSONDecodeError():
            return UsageError(*no_answer)
        case exceptions.RequestException() | ConnectionError():
            return Unavailable(f"{what} cannot be reached, or broke off", again)
    # What the client makes of an answer that is none.
    return UsageError(*no_answer)


def _loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
