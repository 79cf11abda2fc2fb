"""Whose events a campaign of indicators counts, and under which names: the site's own patients, who may say no.

Ids and identifiers are replaced by keyed hashes before anything of an event is kept. A patient whom the site did not
know yet belongs to a data domain from the first event on, as whoever ``site admit`` finds in a table; every domain that
the campaign is charged to was charged before.
"""

import hmac
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Final, Protocol

from wardround.client.consent import Source
from wardround.client.feeds.events import Event
from wardround.client.governance import TEST_DOMAIN, TRAINING_DOMAIN
from wardround.client.store.ledger import utc_now
from wardround.client.store.members import HashedId, Members, Part, Period
from wardround.client.store.opt_outs import OptOuts
from wardround.protocol.canonical import LABEL_FEED

_ROUND_UP: Final = 10
"""What is said of how many opted out is a multiple of this."""


class Patients(Protocol):
    """Whose events count."""

    def look(self) -> int:
        """Read anew who has opted out. Returns how many at most, a multiple of 10.

        Raises:
            Unavailable: a source cannot be read, or is not understood: then nothing is counted.
        """

    def counted(self, events: Sequence[Event]) -> list[Event]:
        """Those of ``events`` that count, in their order, with the patient and the identifier as they may be kept."""

    def gone(self, names: Collection[str]) -> tuple[str, ...]:
        """Who of the patients kept under these names may be counted no more, sorted."""


class Everybody:
    """Made-up patients, under the names that they have."""

    def look(self) -> int:
        return 0

    def counted(self, events: Sequence[Event]) -> list[Event]:
        return list(events)

    def gone(self, names: Collection[str]) -> tuple[str, ...]:
        return ()


class SitePatients:
    """The patients of a site's charged domains who have not opted out. Ids that were merged are one patient.

    Args:
        domains: what the campaign is charged to.
        test_share: of patients that are new here, as in ``site.yaml``.
        key: 32 bytes under which identifiers are hashed; ids are hashed by ``members``.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        members: Members,
        domains: Sequence[str],
        test_share: float,
        key: bytes,
    ) -> None:
        self._sources = tuple(sources)
        self._members = members
        self._opt_outs = OptOuts(members)
        self._domains = tuple(domains)
        self._test_share = test_share
        self._key = key

    def look(self) -> int:
        now = utc_now()
        self._opt_outs.update({id_ for source in self._sources for id_ in source.opted_out(now)})
        return -(-len(self._opt_outs.now()) // _ROUND_UP) * _ROUND_UP

    def counted(self, events: Sequence[Event]) -> list[Event]:
        names = self._names({event.patient for event in events})
        return [
            replace(event, patient=names[event.patient], identifier=self._hashed(event.identifier))
            for event in events
            if event.patient in names
        ]

    def gone(self, names: Collection[str]) -> tuple[str, ...]:
        people = self._members.same_person([bytes.fromhex(name) for name in names])
        away = self._away()
        return tuple(sorted(name for name, person in zip(names, people, strict=True) if person in away))

    def _names(self, ids: Collection[str]) -> dict[str, str]:
        """The keyed hash of the person, in hex, by id; of those who count."""
        away, found = self._away(), self._people(ids)
        here = {id_: person for id_, person in found.items() if person not in away}
        if (period := self._period()) is not None:
            self._members.admit(here, test_share=self._test_share, period=lambda now: period)
        people = [HashedId(person.hex()) for person in dict.fromkeys(here.values())]
        allowed = self._members.may_be_drawn(people, self._domains, (Part.TRAIN, Part.TEST))
        may = {str(person) for person, allow in zip(people, allowed, strict=True) if allow}
        return {id_: person.hex() for id_, person in here.items() if person.hex() in may}

    def _people(self, ids: Collection[str]) -> dict[str, bytes]:
        listed = list(ids)
        return dict(zip(listed, self._members.same_person(self._members.hashed(listed)), strict=True))

    def _away(self) -> set[bytes]:
        return set(self._members.same_person(self._opt_outs.now()))

    def _period(self) -> Period | None:
        """The newest charged domains for training and testing, which new patients belong to; None: not both."""
        training = [domain for domain in self._domains if domain.startswith(TRAINING_DOMAIN)]
        testing = [domain for domain in self._domains if domain.startswith(TEST_DOMAIN)]
        return Period(max(training), max(testing)) if training and testing else None

    def _hashed(self, identifier: str) -> str:
        return hmac.digest(self._key, LABEL_FEED.encode() + b"\x00event\x00" + identifier.encode(), "sha256").hex()
