"""Who may join a coordinator, who may stay, and which roster it carries.

``judge`` is the rule by which a join request is taken or refused: a function of what is known. ``Enrolment`` asks the
database and writes the outcome, both in one transaction. Nothing is told to a caller who has not proved that they hold
the site's code, not even whether the site is known.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from wardround.protocol.errors import ProtocolViolation, UsageError
from wardround.protocol.identity import check_site_id
from wardround.protocol.invitation import SECRET_SIZE, Invitation, JoinAnswer, JoinRequest, key_fingerprint
from wardround.protocol.owners import COORDINATOR
from wardround.protocol.roster import Roster, check_next, check_signed
from wardround.server.certificates import ca_hash
from wardround.server.folder import CoordinatorFolder, utc_now
from wardround.server.store.database import open_database, transaction
from wardround.server.store.sites import JoinedSite, Sites, StoredInvitation

MAX_DAYS: Final = 30
"""An invitation is not a key to keep."""

_NOBODY: Final = b"\x00" * 32


class Verdict(StrEnum):
    """What becomes of a join request; every one but ``TAKE`` and ``AGAIN`` is told to the caller as a refusal."""

    TAKE = "take"
    AGAIN = "again"
    REFUSED = "refused"
    EXPIRED = "expired"
    USED = "used"
    REVOKED = "revoked"
    TAKEN = "taken"
    OLD_KEY = "old_key"
    OTHER_KEY = "other_key"
    BUSY = "busy"
    MALFORMED = "malformed"


@dataclass(frozen=True, slots=True)
class Known:
    """What a coordinator knows of a site and of the keys in its request.

    ``other_owner``: another site, or the coordinator, has one of the keys. ``retired``: the node key was revoked.
    ``roster_key``: the site's key in the roster in force.
    """

    invitation: StoredInvitation | None
    site: JoinedSite | None
    other_owner: bool = False
    retired: bool = False
    roster_key: bytes | None = None


def judge(request: JoinRequest, known: Known, now: datetime) -> Verdict:
    """What becomes of ``request``. A request with the keys that joined is answered again, however late."""
    invitation, site, key = known.invitation, known.site, bytes.fromhex(request.identity_key)
    # Without an invitation a proof is computed all the same, so that the time tells nothing.
    proved = request.proves(_NOBODY if invitation is None else invitation.proof_key)
    if invitation is None or not proved:
        return Verdict.REFUSED
    if site is not None and site.revoked_at is None:
        same = (site.identity_key, site.node_key) == (key, request.node_key)
        return Verdict.AGAIN if same else Verdict.USED
    if invitation.used:
        return Verdict.REVOKED if site is not None else Verdict.USED
    if now >= invitation.expires:
        return Verdict.EXPIRED
    if not _is_node_key(request.node_key):
        return Verdict.MALFORMED
    if known.retired:
        return Verdict.OLD_KEY
    if known.other_owner:
        return Verdict.TAKEN
    if known.roster_key is not None and known.roster_key != key:
        return Verdict.OTHER_KEY
    # Flower still knows the node that was revoked; the supervisor would take its number for the new one's.
    if site is not None and site.node_id is not None:
        return Verdict.BUSY
    return Verdict.TAKE


@dataclass(frozen=True, slots=True)
class Proposed:
    """The roster in force after a proposal. ``new``: it was not before. The rest are site names for warnings."""

    roster: Roster
    new: bool
    joined_but_not_named: tuple[str, ...]
    named_but_not_joined: tuple[str, ...]
    named_but_revoked: tuple[str, ...]


class Enrolment:
    """The sites of one coordinator. Opens the database for each call, so that any process and thread may use one."""

    def __init__(
        self,
        folder: CoordinatorFolder,
        clock: Callable[[], datetime] = utc_now,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._folder = folder
        self._clock = clock
        self._random = random_bytes

    def invite(self, site: str, days: int) -> Invitation:
        """A new one-time code for ``site``; an earlier one that was not used holds no more.

        Raises:
            UsageError: no site name, no number of days from 1 to 30, or the site has joined and was not revoked.
            Unavailable: the database cannot be used.
        """
        try:
            if check_site_id(site) == COORDINATOR:
                raise ValueError(f"no site may be called '{COORDINATOR}'")
        except ValueError as error:
            raise UsageError(str(error), "name the hospital as it will be called in studies") from None
        if not 1 <= days <= MAX_DAYS:
            raise UsageError(f"an invitation holds for 1 to {MAX_DAYS} days", "make a new one when it has expired")
        now = self._clock()
        expires = (now + timedelta(days=days)).astimezone(UTC).replace(microsecond=0)
        about = self._folder.about
        invitation = Invitation(
            site=site,
            host=about.public_host,
            port=about.public_port,
            secret=self._random(SECRET_SIZE).hex(),
            ca=ca_hash(self._folder.ca.read_bytes()),
            expires=expires,
        )
        with self._sites() as sites:
            known = sites.site(site)
            if known is not None and known.revoked_at is None:
                raise UsageError(
                    f"site '{site}' has joined already",
                    f"if it shall join with other keys, first run: wardround coordinator roster revoke FOLDER {site}",
                )
            sites.invite(site, invitation.proof_key, expires)
        return invitation

    def join(self, request: JoinRequest) -> JoinAnswer | Verdict:
        """Take a site in, or say why not. A refusal writes nothing.

        Raises:
            Unavailable: the database cannot be used.
        """
        coordinator, now = self._folder.identity().public.key, self._clock()
        key = bytes.fromhex(request.identity_key)
        with self._sites() as sites:
            roster = sites.roster()
            party = None if roster is None else roster.identities.get(request.site)
            others = [one for one in sites.sites() if one.site != request.site]
            owned = any(key == one.identity_key or request.node_key == one.node_key for one in others)
            known = Known(
                invitation=sites.invitation(request.site),
                site=sites.site(request.site),
                other_owner=owned or key == coordinator,
                retired=sites.retired(request.node_key),
                roster_key=None if party is None else party.key,
            )
            verdict = judge(request, known, now)
            if verdict is Verdict.TAKE:
                sites.join(request.site, key, request.node_key, now)
                sites.use(request.site, now)
            elif verdict is not Verdict.AGAIN:
                return verdict
        return JoinAnswer(coordinator_key=coordinator.hex(), fingerprint=key_fingerprint(key))

    def revoke(self, site: str) -> bool:
        """Talk to ``site`` no more, and let no open invitation of it hold; False when nothing was left to revoke.

        Raises:
            UsageError: no such site has joined or was invited.
        """
        with self._sites() as sites:
            withdrawn = sites.withdraw(site)
            known = sites.site(site)
            if known is None and not withdrawn:
                names = ", ".join(one.site for one in sites.sites()) or "none"
                raise UsageError(f"no site '{site}' has joined or was invited", f"joined: {names}")
            if known is None or known.revoked_at is not None:
                return withdrawn
            sites.revoke(site, self._clock())
        return True

    def propose(self, content: bytes) -> Proposed:
        """Put a signed roster in force: the first one, or the epoch behind the one in force.

        Raises:
            UsageError: it is no roster, names another coordinator, or names a site with another key than joined.
            ProtocolViolation: it is not the next epoch, or lacks signatures.
        """
        offered = Roster.parse(content)
        own = self._folder.identity().public.key
        if offered.coordinator.key != own.hex():
            raise UsageError(
                "the roster names another coordinator's key",
                f"the officers compare it by telephone; this one's fingerprint is {key_fingerprint(own)}",
            )
        with self._sites() as sites:
            held, joined = sites.roster(), sites.sites()
            new = held is None or held.digest != offered.digest
            if held is None:
                check_signed(offered, offered.governance)
            elif new:
                check_next(held, offered)
            there = {one.site: one for one in joined if one.revoked_at is None}
            for name, identity in offered.identities.items():
                if name in there and there[name].identity_key != identity.key:
                    raise ProtocolViolation(
                        name,
                        f"the roster gives site '{name}' another key than it joined with",
                        "the officers compare the key with the site by telephone; one of the two is not the site's",
                    )
            if new:
                sites.put_in_force(offered)
        gone = {one.site for one in joined} - there.keys()
        return Proposed(
            roster=offered,
            new=new,
            joined_but_not_named=tuple(sorted(there.keys() - offered.identities.keys())),
            named_but_not_joined=tuple(sorted(offered.identities.keys() - there.keys() - gone)),
            named_but_revoked=tuple(sorted(offered.identities.keys() & gone)),
        )

    def roster(self) -> Roster | None:
        """The roster in force."""
        with self._sites() as sites:
            return sites.roster()

    def overview(self) -> tuple[Roster | None, list[JoinedSite], list[StoredInvitation]]:
        """The roster in force, every site that ever joined, and the invitations that nobody has used yet."""
        with self._sites() as sites:
            return sites.roster(), sites.sites(), [one for one in sites.invitations() if not one.used]

    @contextmanager
    def _sites(self) -> Iterator[Sites]:
        """The tables, in one transaction that is undone when the block raises."""
        path = self._folder.database
        with closing(open_database(path)) as store, transaction(store, path):
            yield Sites(store)


def _is_node_key(line: str) -> bool:
    """Whether Flower would take it as a node's key: a point on P-384."""
    try:
        key = load_ssh_public_key(line.encode())
    except (ValueError, UnsupportedAlgorithm):
        return False
    return isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP384R1)
