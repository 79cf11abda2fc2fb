"""A PACS over DICOMweb: the connection that a YAML file describes, questions, and what its refusals mean.

The client is ``dicomweb-client``. Questions are asked again, a few times, when the archive is busy or the network
breaks; then the reading ends with an error, and nothing of it is used before a later one has the rest. Redirects are
not followed: credentials go to the address that the site wrote and to no other. No error and no log line holds a UID,
for UIDs are a patient's.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from wardround.client.connectors.web import Gone, connection_in, explained, open_session, silence
from wardround.protocol.errors import Unavailable, UsageError, WardroundError

TRIES: Final = 5
"""Times that a question is asked; between them 1, 2, 4 and 8 seconds."""

PAGE: Final = 200
"""Studies or instances that are asked for at once."""

_NO_DICOMWEB: Final = ("the archive's answer is not DICOMweb", "check 'url'; it often ends with /dicom-web")
_T = TypeVar("_T")


class Archive:
    """One archive. Every method raises UsageError or Unavailable, in words that name no patient.

    ``tries``: how often a question is asked while the archive is busy or away.
    """

    def __init__(self, path: Path, tries: int = TRIES) -> None:
        from dicomweb_client.web import DICOMwebClient

        about = connection_in(path, "an archive")
        silence("dicomweb_client.web", "dicomweb_client.uri")
        self._tries, self._session = tries, open_session(about, path.parent)
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


def _explained(error: Exception) -> WardroundError:
    again = "run it again when it is back: it goes on where it stopped, and nothing of this one is used before"
    return explained(error, "the archive", _NO_DICOMWEB, again)
