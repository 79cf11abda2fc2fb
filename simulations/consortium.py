"""The roster of a simulation: every hospital a legal entity of its own, signed by an officer who ends with the process.

The same roster and the same checks as between hospitals. Which hospitals the coordinator's authority directs is a
setting; nothing else about the owners matters to a simulation.
"""

from collections.abc import Collection, Sequence
from datetime import date, timedelta

from wardround.protocol.identity import Identity
from wardround.protocol.owners import Governance, Owner, Party
from wardround.protocol.roster import Roster

OPERATOR = "the coordinator's operator"


def simulated_roster(
    sites: Sequence[Identity], coordinator: Identity, directed: Collection[str], today: date
) -> Roster:
    """Epoch 1 with these sites, in force today; ``directed`` are under the authority of the coordinator."""
    officer = Identity.generate("officer")
    parties = [
        Party(
            site=identity.site,
            legal_entity=f"hospital {identity.site}",
            controlling_authority=OPERATOR if identity.site in directed else f"hospital {identity.site}",
            key=identity.public.key.hex(),
            valid_from=today,
            valid_until=today + timedelta(days=366),
        )
        for identity in sorted(sites, key=lambda identity: identity.site)
    ]
    return Roster(
        consortium="simulation",
        epoch=1,
        previous=None,
        issued=today,
        expires=today + timedelta(days=366),
        coordinator=Owner(legal_entity=OPERATOR, controlling_authority=OPERATOR, key=coordinator.public.key.hex()),
        parties=tuple(parties),
        governance=Governance(m=1, keys={officer.site: officer.public.key.hex()}),
    ).signed_by(officer)
