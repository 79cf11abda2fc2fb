"""Who looks at a console: which people it knows, and which of the two faces each may see."""

from enum import StrEnum
from typing import Final


class Face(StrEnum):
    """One console of two: a hospital's, or the coordinator's."""

    SITE = "site"
    COORDINATOR = "coordinator"


class Role(StrEnum):
    """What an account may do. An auditor and nobody else may read all and change nothing."""

    OFFICER = "officer"
    IT = "it"
    AUDITOR = "auditor"
    COORDINATOR = "coordinator"
    RESEARCHER = "researcher"


ROLES: Final[dict[Face, tuple[Role, ...]]] = {
    Face.SITE: (Role.OFFICER, Role.IT, Role.AUDITOR),
    Face.COORDINATOR: (Role.COORDINATOR, Role.RESEARCHER),
}
"""The roles of each face's accounts."""

READS_ONLY: Final = frozenset({Role.AUDITOR})
"""Roles for which no request may change anything, whatever a page says."""
