"""The encounters of a FHIR R4 server that changed, a page at a time (hl7.org/fhir/R4/http.html#paging).

A page names the next one by a link. It is followed only to the origin (RFC 6454) that the site wrote down: a server
cannot send the site's credentials, or its questions, anywhere else.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, urlencode, urljoin, urlsplit, urlunsplit

from wardround.client.connectors.fhir import LONGEST_FILE
from wardround.client.connectors.web import Gone, connection_in, explained, open_session, silence
from wardround.protocol.errors import UsageError

MOST_PAGES: Final = 10_000
"""Pages of a poll: a server that never ends is none that is polled."""

_CHUNK: Final = 1 << 20
_NO_FHIR: Final = ("the server's answer is no search result of FHIR R4", "check 'url'; it often ends with /fhir or /r4")
_PORTS: Final = {"http": 80, "https": 443}


class FhirServer:
    """A server. Methods raise UsageError or Unavailable, in words that name no patient. ``path``: connection file."""

    def __init__(self, path: Path) -> None:
        about = connection_in(path, "a FHIR server")
        silence()
        self._url, self._timeout = about.url.rstrip("/") + "/", about.timeout_seconds
        self._session = open_session(about, path.parent)

    def close(self) -> None:
        self._session.close()

    def changed(self, since: datetime | None, page: int) -> Iterator[tuple[list[Any], bool]]:
        """Pages of encounters that changed at ``since`` or later, by the time of their change; and whether one follows.

        Each page is a list of resources as they came, unchecked.
        """
        asked = {"_sort": "_lastUpdated", "_count": str(page)}
        if since is not None:
            asked["_lastUpdated"] = "ge" + since.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        address: str | None = f"{self._url}Encounter?{urlencode(asked)}"
        visited: set[str] = set()
        while address is not None:
            if address in visited or len(visited) == MOST_PAGES:
                raise UsageError("the server's pages have no end", "ask its administrator: 'next' leads in a circle")
            visited.add(address)
            bundle = self._asked(address)
            address = self._next(bundle, address)
            yield _resources(bundle), address is not None

    def _asked(self, address: str) -> Mapping[str, Any]:
        try:
            with closing(
                self._session.get(
                    address, headers={"Accept": "application/fhir+json"}, timeout=self._timeout, stream=True
                )
            ) as answer:
                answer.raise_for_status()
                text = bytearray()
                for chunk in answer.iter_content(_CHUNK):
                    text += chunk
                    if len(text) > LONGEST_FILE:
                        raise UsageError(f"a page has more than {LONGEST_FILE >> 20} MB", "make 'page' smaller")
        except UsageError:
            raise
        except Exception as error:
            try:
                raise explained(error, "the FHIR server", _NO_FHIR, "the next poll begins where this one did") from None
            except Gone:
                raise UsageError(*_NO_FHIR) from None
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            raise UsageError(*_NO_FHIR) from None
        if not isinstance(found, dict) or found.get("resourceType") != "Bundle":
            raise UsageError(*_NO_FHIR)
        return found

    def _next(self, bundle: Mapping[str, Any], address: str) -> str | None:
        links = bundle.get("link", [])
        for link in links if isinstance(links, list) else ():
            if isinstance(link, dict) and link.get("relation") == "next":
                target = link.get("url")
                if not isinstance(target, str):
                    raise UsageError(*_NO_FHIR)
                return self._own(address, target)
        return None

    def _own(self, address: str, target: str) -> str:
        """Path and query of ``target`` at the site's own origin: however it is spelt, nobody else is asked."""
        try:
            found = urlsplit(urljoin(address, target))
            foreign = _origin(found) != _origin(urlsplit(self._url))
        except ValueError:
            foreign = True
        if foreign:
            raise UsageError(
                "the server's next page is at another address than 'url'",
                "write the address that the server gives itself into 'url'",
            )
        own = urlsplit(self._url)
        return urlunsplit((own.scheme, own.netloc, found.path, found.query, ""))


def _origin(parts: SplitResult) -> tuple[str, str, int | None]:
    """Scheme, host and port (RFC 6454). Raises ValueError."""
    return parts.scheme, parts.hostname or "", parts.port or _PORTS.get(parts.scheme)


def _resources(bundle: Mapping[str, Any]) -> list[Any]:
    entries = bundle.get("entry", [])
    if not isinstance(entries, list):
        raise UsageError(*_NO_FHIR)
    found = [entry.get("resource") if isinstance(entry, dict) else None for entry in entries]
    # A server may add an OperationOutcome of its own (search.mode 'outcome').
    return [each for each in found if not (isinstance(each, dict) and each.get("resourceType") == "OperationOutcome")]
