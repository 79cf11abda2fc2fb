"""From a notice to the page where something can be done about it."""

from collections.abc import Sequence
from typing import Final

from wardround.console.notices.watching import Notice
from wardround.console.web.page import Page
from wardround.console.web.queries.noticing import kind
from wardround.console.web.roles import Role

WHERE: Final = {
    "study": ("/studies/{digest}",),
    "round": ("/studies/{digest}",),
    "budget": ("/budget",),
    "link": ("/health",),
    "daemon": ("/health",),
    "certificate": ("/health",),
    "alarm": ("/audit",),
    "ledger": ("/audit/witnesses",),
    "officer-keys": ("/officers",),
}
"""What a notice is about -> pages where something can be done; the first that this console has and the role may see."""


def where(notice: Notice, role: Role, pages: Sequence[Page]) -> str:
    """The page of this console where something can be done about it, or ""."""
    known = {page.path for page in pages if role in page.roles}
    parts = notice.key.split("/")
    for path in WHERE.get(kind(notice), ()):
        if path in known:
            return path.format(digest=parts[1])
    return ""
