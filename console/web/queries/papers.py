"""Papers that a page hands out or checks: made in another process and in memory, handed over, and kept nowhere."""

import base64
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from wardround.console.web.apart import Apart
from wardround.console.web.i18n import LANGUAGES
from wardround.protocol.errors import UsageError

MOST_SECONDS: Final = 600.0
NEEDED: Final = ("fpdf", "segno", "matplotlib")
"""What the extra ``paper`` brings and a console alone may lack."""

MEDIA: Final = {".pdf": "application/pdf", ".html": "text/html; charset=utf-8", ".json": "application/json"}


@dataclass(frozen=True, slots=True)
class Made:
    """A paper's file. ``name`` is the site's, the kind and the content's digest: nothing that somebody typed."""

    name: str
    content: bytes
    media: str


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found in a file that somebody brought. ``findings``: (result, sentence), the bad ones first."""

    kind: str
    site: str
    made_at: str
    digest: str
    accepted: bool
    findings: tuple[tuple[str, str], ...]


class Papers:
    """Of one site's folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._apart = Apart(MOST_SECONDS)

    def study(self, kind: str, plan: str, suffix: str, language: str) -> Made:
        """The privacy statement or the DPIA annex of the plan with this digest."""
        return self._made({"kind": kind, "plan": plan, "suffix": suffix, "language": language})

    def period(self, since: str, until: str, suffix: str, language: str) -> Made:
        """The audit report of the days from ``since`` to ``until``, ISO 8601."""
        return self._made({"kind": "audit", "since": since, "until": until, "suffix": suffix, "language": language})

    def check(self, content: bytes, fingerprint: str) -> Checked:
        """Look at a file. Raises UsageError where it is no paper."""
        said = self._apart.run("check", {"content": base64.b64encode(content).decode(), "fingerprint": fingerprint})
        order = ("fails", "undone", "holds", "open")
        findings = sorted(((result, says) for result, says in said["findings"]), key=lambda one: order.index(one[0]))
        return Checked(**{**said, "findings": tuple(findings)})

    def _made(self, request: dict[str, str]) -> Made:
        said = self._apart.run("paper", {"folder": str(self._folder), **request})
        return Made(said["name"], base64.b64decode(said["content"]), MEDIA[request["suffix"]])


def missing() -> str:
    """The first library of the extra that is not installed here; "" where papers can be made."""
    return next((name for name in NEEDED if find_spec(name) is None), "")


def spoken_by_papers() -> tuple[str, ...]:
    """Codes of the languages in which papers can be made here."""
    from wardround.console.paper.sheets import language

    found = []
    for one in LANGUAGES:
        try:
            language(one.code)
        except UsageError:
            continue
        found.append(one.code)
    return tuple(found)
