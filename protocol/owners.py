"""Who is named in a roster: organisations with a key, the sites among them, and the officers who sign.

Who is one owner is compared by name without regard to case, width and spaces; that different names are different
owners is what the officers sign for.
"""

import unicodedata
from datetime import date
from typing import Annotated, Final, Self, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from wardround.protocol.identity import PublicIdentity, SiteId
from wardround.protocol.ledger import Count, Hex32

COORDINATOR: Final = "coordinator"
"""What errors call the coordinator; no site has this name."""


def compared(name: str) -> str:
    """A name without regard to case, width and spaces."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def _plain_name(text: str) -> str:
    if not text.isprintable() or text != " ".join(text.split()):
        raise ValueError("a name has single spaces, none at its ends, and no invisible characters")
    return text


Name: TypeAlias = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_plain_name)]
"""The name of an organisation as an officer reads it on a screen."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Owner(_Part):
    """Who answers in law, and who directs them: a ministry, a group, or themselves."""

    legal_entity: Name
    controlling_authority: Name
    key: Hex32

    @property
    def names(self) -> frozenset[str]:
        """Both names in the form in which they are compared."""
        return frozenset({compared(self.legal_entity), compared(self.controlling_authority)})


class Party(Owner):
    """A site: its Ed25519 key is good from ``valid_from`` to ``valid_until``, both days included."""

    site: SiteId
    valid_from: date
    valid_until: date

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.valid_until < self.valid_from:
            raise ValueError(f"the key of site '{self.site}' ends before it begins")
        if self.site == COORDINATOR:
            raise ValueError(f"no site may be called '{COORDINATOR}'")
        return self

    @property
    def identity(self) -> PublicIdentity:
        return PublicIdentity(self.site, bytes.fromhex(self.key))


class Governance(_Part):
    """``m`` of the officers in ``keys`` (name to Ed25519 key) sign. Two groups of m have an officer in common."""

    m: Count
    keys: dict[SiteId, Hex32] = Field(min_length=1)

    @model_validator(mode="after")
    def _majority(self) -> Self:
        if not self.m <= len(self.keys) < 2 * self.m:
            raise ValueError(
                f"{self.m} of {len(self.keys)} officers: m must be more than half of them, and at most all"
            )
        return self
