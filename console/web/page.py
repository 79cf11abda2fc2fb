"""What a page is to the console: where it lies, who may see it, and where the navigation shows it."""

from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter

from wardround.console.web.i18n import N_
from wardround.console.web.roles import Face, Role

GROUPS: Final = {
    "now": N_("Now"),
    "decide": N_("Decide"),
    "record": N_("Record"),
    "run": N_("Run"),
}
"""The groups of the navigation, in their order: key -> heading."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a console.

    ``path`` may have parameters in braces; then it is in no navigation. ``roles`` may read it; ``writers`` may send its
    forms (left out: nobody), and an auditor never. ``asks``: paths whose forms ask something and change nothing in the
    folder, so that whoever may read the page may send them, an auditor too. ``own_account``: its forms change the
    account of who sends them and nothing else, so an auditor may send them too. A ``group`` that is none of ``GROUPS``
    is in no navigation. ``router`` holds the functions; it is mounted with the page's guard.
    """

    face: Face
    path: str
    title: str
    group: str
    roles: frozenset[Role]
    router: APIRouter
    writers: frozenset[Role] = frozenset()
    asks: frozenset[str] = frozenset()
    own_account: bool = False

    def holds(self, path: str) -> bool:
        """Whether ``path`` is one of this page, whatever its parameters are."""
        parts, given = self.path.split("/"), path.split("/")
        return len(parts) == len(given) and all(
            word[:1] not in ("", ".") if part.startswith("{") else word == part
            for part, word in zip(parts, given, strict=True)
        )

    @property
    def in_navigation(self) -> bool:
        return "{" not in self.path and self.group in GROUPS
