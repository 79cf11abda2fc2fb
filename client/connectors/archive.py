"""A PACS over DICOMweb: the connection that a YAML file describes, questions, and what its refusals mean.

The client is ``dicomweb-client``. Questions are asked again, a few times, when the archive is busy or the network
breaks; then the reading ends with an error, and nothing of it is used before a later one has the rest. Redirects are
not followed: credentials go to the address that the site wrote and to no other. No error and no log line holds a UID,
for UIDs are a patient's.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from wardround.client.connectors.secret_file import read_secret
from wardround.client.yaml_text import load_yaml
from wardround.protocol.errors import Unavailable, UsageError, WardroundError

TRIES: Final = 5
"""Times that a question is asked; between them 1, 2, 4 and 8 seconds."""

PAGE: Final = 200
"""Studies or instances that are asked for at once."""

BUSY: Final = frozenset({408, 425, 429, 500, 502, 503, 504})

_NO_DICOMWEB: Final = ("the archive's answer is not DICOMweb", "check 'url'; it often ends with /dicom-web")
_T = TypeVar("_T")


class Gone(Exception):
    """The archive lists something and does not give it (404, 410)."""


class Connection(BaseModel):
    """The YAML file of an archive."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(pattern=r"^https?://", description="where QIDO-RS and WADO-RS answer")
    user: str | None = None
    password_file: str | None = None
    token_file: str | None = Field(default=None, description="a bearer token")
    ca_file: str | None = Field(default=None, description="certificates that the archive's own must lead to")
    timeout_seconds: float = Field(default=60.0, gt=0, le=3600)

    @model_validator(mode="after")
    def _fits(self) -> "Connection":
        if (self.user is None) != (self.password_file is None) or (self.user and self.token_file):
            raise ValueError("a user goes with a password_file, and neither with a token_file")
        return self


def connection_in(path: Path) -> Connection:
    """What the YAML file says. Raises UsageError for what is wrong in it."""
    try:
        return Connection.model_validate(load_yaml(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UsageError(f"no file '{path.name}' in '{path.parent}'", "check 'path' of this source") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError, ValidationError):
        raise UsageError(
            f"'{path.name}' does not describe an archive",
            "it holds url, and may hold user with password_file, or token_file; ca_file, timeout_seconds",
        ) from None


class Archive:
    """One archive. Every method raises UsageError or Unavailable, in words that name no patient.

    ``tries``: how often a question is asked while the archive is busy or away.
    """

    def __init__(self, path: Path, tries: int = TRIES) -> None:
        from dicomweb_client.web import DICOMwebClient

        about = connection_in(path)
        _silence()
        self._tries, self._session = tries, _session(about, path.parent)
        self._client = DICOMwebClient(about.url, session=self._session, timeout=about.timeout_seconds)
        self._client.set_http_retry_params(retry=False)

    def close(self) -> None:
        self._session.close()

    def studies(self, search: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        """Study instance UIDs that ``search`` finds, each once, and the patient's id, '' where the archive lists none.

        QIDO-RS (PS3.18 10.6).
        """
        rows = self._rows(self._client.search_for_studies, "0020000D", search_filters=dict(search))
        yield from ((_value(row, "0020000D"), _value(row, "00100020")) for row in rows)

    def series(self, study: str) -> Iterator[str]:
        """Series instance UIDs of a study."""
        yield from self._paged(lambda **page: self._client.search_for_series(study, **page), "0020000E")

    def instances(self, study: str, series: str) -> Iterator[str]:
        """SOP instance UIDs of a series."""
        yield from self._paged(lambda **page: self._client.search_for_instances(study, series, **page), "00080018")

    def instance(self, study: str, series: str, instance: str) -> Any:
        """The data set of an instance, in the transfer syntax in which it is stored (WADO-RS, PS3.18 10.4).

        Raises:
            Gone: the archive lists it and does not give it.
        """
        stored = (("application/dicom", "*"),)
        return self._asked(lambda: self._client.retrieve_instance(study, series, instance, media_types=stored))

    def _paged(self, search: Callable[..., list[dict[str, Any]]], tag: str, **more: Any) -> Iterator[str]:
        yield from (_value(row, tag) for row in self._rows(search, tag, **more))

    def _rows(self, search: Callable[..., list[dict[str, Any]]], tag: str, **more: Any) -> Iterator[dict[str, Any]]:
        """What is found, a page at a time; each once by the UID under ``tag``."""
        seen: set[str] = set()
        while True:
            try:
                page = self._asked(lambda: search(limit=PAGE, offset=len(seen), **more))
            except Gone:
                page = []
            found = [_value(row, tag) for row in page]
            if found and not any(found):
                raise UsageError(*_NO_DICOMWEB)
            fresh = {uid: row for uid, row in zip(found, page, strict=True) if uid and uid not in seen}
            seen.update(fresh)
            yield from fresh.values()
            # A short page is not the last one: archives cap what they give at once. One that knows no offset gives the
            # first page for ever.
            if not fresh:
                return

    def _asked(self, question: Callable[[], _T]) -> _T:
        fault: WardroundError | None = None
        for turn in range(self._tries):
            if turn:
                time.sleep(2.0 ** (turn - 1))
            try:
                return question()
            except Exception as error:
                fault = _explained(error)
                if not isinstance(fault, Unavailable):
                    raise fault from None
        assert fault is not None
        raise fault from None


def _value(row: Any, tag: str) -> str:
    values = row.get(tag, {}).get("Value", []) if isinstance(row, dict) and isinstance(row.get(tag), dict) else []
    return str(values[0]) if isinstance(values, list) and values else ""


def _session(about: Connection, beside: Path) -> Any:
    import requests

    session = requests.Session()
    # Nothing from the environment: neither a proxy nor a password that lies in the home folder.
    session.trust_env = False
    session.max_redirects = 0
    if about.ca_file is not None:
        if not (beside / about.ca_file).is_file():
            raise UsageError(f"no file '{about.ca_file}' beside the archive's", "check 'ca_file'")
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


def _loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _silence() -> None:
    """The client and its transport log addresses, and these hold UIDs."""
    for name in ("dicomweb_client.web", "dicomweb_client.uri", "urllib3.connectionpool"):
        logging.getLogger(name).disabled = True


def _explained(error: Exception) -> WardroundError:
    """What went wrong, without the error's own text, which quotes an address. Raises Gone for what is not there."""
    from requests import exceptions

    again = "run it again when it is back: it goes on where it stopped, and nothing of this one is used before"
    match error:
        case exceptions.HTTPError():
            status = 0 if error.response is None else error.response.status_code
            if status in (404, 410):
                raise Gone from None
            if status in (401, 403):
                return UsageError("the archive refuses the user", "check user, password or token, and its rights")
            if status in BUSY:
                return Unavailable(f"the archive answers with status {status}", again)
            return UsageError(
                f"the archive answers with status {status}", "check 'url' and 'search'; its log says more"
            )
        case exceptions.TooManyRedirects():
            return UsageError("the archive sends to another address", "write the address itself into 'url'")
        case exceptions.SSLError():
            return UsageError(
                "the archive's certificate is not trusted", "give 'ca_file', and the name that it certifies"
            )
        case exceptions.Timeout():
            return Unavailable("the archive does not answer in time", again)
        case exceptions.JSONDecodeError():
            return UsageError(*_NO_DICOMWEB)
        case exceptions.RequestException() | ConnectionError():
            return Unavailable("the archive cannot be reached, or broke off", again)
    # What the client or pydicom make of an answer that is none.
    return UsageError(*_NO_DICOMWEB)
