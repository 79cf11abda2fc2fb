"""From a notice to the page where something can be done about it."""

from collections.abc import Sequence
from typing import Final

from wardround.console.notices.watching import Notice
from wardround.console.web.page import Page
from wardround.console.web.queries.noticing import kind
from wardround.console.web.roles import Role

WHERE: Final = {
    "study": "/studies/{digest}",
    "round": "/studies/{digest}",
    "budget": "/budget",
    "link": "/health",
    "daemon": "/health",
    "certificate": "/health",
    "alarm": "/audit",
    "ledger": "/audit/witnesses",
    "officer-keys": "/officers",
}
"""What a notice is about -> the page where something can be done."""


def where(notice: Notice, role: Role, pages: Sequence[Page]) -> str:
    """The page of this console where something can be done about it, if the role may see it; else ""."""
    path = WHERE.get(kind(notice), "")
    if not any(page.path == path and role in page.roles for page in pages):
        return ""
    return path.format(digest=notice.key.split("/")[1])
