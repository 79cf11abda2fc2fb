"""Whether a receipt holds: its bytes, its signatures under keys that this site has pinned, and what its ledger says.

Nothing is believed because it lies in the database: every receipt is read and verified anew for each page.
"""

from dataclasses import dataclass
from enum import StrEnum
from sqlite3 import Connection

from wardround.client.store.roster import PinnedRoster
from wardround.console.web.i18n import N_
from wardround.protocol.errors import ProtocolViolation, UsageError
from wardround.protocol.identity import PublicIdentity
from wardround.protocol.owners import COORDINATOR
from wardround.protocol.receipt import Receipt, parse_receipt
from wardround.protocol.roster import Roster


class Standing(StrEnum):
    """What was found. UNPINNED: its own site's signature holds, and there is no key to check the coordinator's."""

    NONE = "none"
    VERIFIED = "verified"
    UNPINNED = "unpinned"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Verdict:
    """``signers`` are those whose signatures were verified; ``unknown`` those for whom no key is pinned.

    ``fault``: one sentence, to be translated, on what does not hold.
    """

    standing: Standing
    receipt: Receipt | None = None
    signers: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    fault: str = ""


class Verifier:
    """Verifies receipts of ``own``, whose key is the ledger's. ``store`` is the site's database."""

    def __init__(self, store: Connection, own: PublicIdentity) -> None:
        self._own = own
        self._pinned = PinnedRoster(store, own)
        self._rosters: dict[str | None, Roster | None] = {}

    def verdict(self, content: bytes | None, plan: str, round_number: int, attempt: int, *, released: bool) -> Verdict:
        """What the stored ``content`` (None: there is none) is worth as the receipt of an attempt at a round.

        Args:
            released: whether the ledger says that this site answered.
        """
        if content is None:
            return Verdict(Standing.NONE)
        try:
            receipt = parse_receipt(content)
        except (ProtocolViolation, ValueError):
            return Verdict(Standing.BAD, fault=N_("The stored bytes are no receipt: they were changed."))
        if (receipt.plan, receipt.round_number, receipt.attempt) != (plan, round_number, attempt):
            return Verdict(Standing.BAD, receipt, fault=N_("It is the receipt of another round."))
        signed = {one.site: bytes.fromhex(one.signature) for one in receipt.signatures}
        if len(signed) < len(receipt.signatures):
            return Verdict(Standing.BAD, receipt, fault=N_("Somebody has signed it twice."))
        if not self._holds(self._own, signed, receipt):
            return Verdict(Standing.BAD, receipt, fault=N_("This site's own signature does not hold."))
        line = receipt.line.get(self._own.site)
        if line is None:
            return Verdict(Standing.BAD, receipt, fault=N_("It leaves this site out."))
        if line.outcome == "replied" and not released:
            fault = N_("It says that this site answered, and the ledger has nothing of it.")
            return Verdict(Standing.BAD, receipt, fault=fault)
        return self._others(receipt, signed)

    def _others(self, receipt: Receipt, signed: dict[str, bytes]) -> Verdict:
        """The signatures of everybody else, under the roster that the receipt names."""
        try:
            roster = self._roster(receipt.roster)
        except (UsageError, ProtocolViolation):
            return Verdict(Standing.BAD, receipt, fault=N_("The roster that it names was changed in the database."))
        names = set(signed) - {self._own.site}
        if roster is None:
            return Verdict(Standing.UNPINNED, receipt, (self._own.site,), tuple(sorted(names)))
        coordinator = PublicIdentity(COORDINATOR, bytes.fromhex(roster.coordinator.key))
        known = {**roster.identities, COORDINATOR: coordinator}
        if not self._holds(coordinator, signed, receipt):
            return Verdict(Standing.BAD, receipt, fault=N_("The coordinator's signature does not hold."))
        if any(not self._holds(known[name], signed, receipt) for name in names & set(known)):
            return Verdict(Standing.BAD, receipt, fault=N_("The signature of another hospital does not hold."))
        signers = sorted((names & set(known)) | {self._own.site})
        return Verdict(Standing.VERIFIED, receipt, tuple(signers), tuple(sorted(names - set(known))))

    @staticmethod
    def _holds(party: PublicIdentity, signed: dict[str, bytes], receipt: Receipt) -> bool:
        signature = signed.get(party.site)
        return signature is not None and party.verifies(signature, receipt.message)

    def _roster(self, digest: str | None) -> Roster | None:
        """The pinned roster of that digest; for a receipt that names none, the one in force; None: not pinned."""
        if digest not in self._rosters:
            self._rosters[digest] = self._pinned.held() if digest is None else self._pinned.followed(digest)
        return self._rosters[digest]
