"""What officers may sign in a privacy ledger, and how many of them: domains, grants, waivers, recoveries."""

from collections import Counter
from dataclasses import dataclass
from typing import Final

from wardround.privacy.books import Books, NotAllowed, not_allowed
from wardround.privacy.budget import fixed_order
from wardround.protocol.errors import UsageError
from wardround.protocol.events import Unprotected
from wardround.protocol.identity import PublicIdentity
from wardround.protocol.ledger import Approved, Grant, Officers, OpenDomain, Recover, Waive, approval_message

EYES_TO_RECOVER: Final = 2
"""Officers who must sign a recovery, or a new list of officers."""

EYES_TO_WAIVE: Final = 2
"""Officers who must sign that a plan runs without differential privacy."""


@dataclass(slots=True)
class ApprovedBooks(Books):
    """Books that know what officers may add to them. Each check raises NotAllowed; a simulation has no officers."""

    def _check_officers(self, fact: Officers) -> None:
        before = self.officers
        if fact.version != (1 if before is None else before.version + 1):
            raise not_allowed(f"version {fact.version} of the list of officers does not follow the one before")
        if before is not None:
            self._check_approved(fact, min(EYES_TO_RECOVER, len(before.officers)))

    def _check_domain(self, fact: OpenDomain) -> None:
        if fact.domain in self.domains:
            raise NotAllowed(
                f"the data domain '{fact.domain}' is open already",
                "its delta and cap are fixed for ever; use another name for another patient population",
            )
        if fact.epsilon_cap is None:
            if self.protected or fact.order is not None:
                raise not_allowed(f"the data domain '{fact.domain}' has no budget: only a simulation opens such a one")
            return
        try:
            order = fixed_order(fact.epsilon_cap, fact.delta)
        except UsageError as error:
            raise NotAllowed(error.message, error.hint) from None
        if fact.order != order:
            raise not_allowed(f"the filter of the data domain '{fact.domain}' is of order {fact.order}, not {order}")
        self._check_approved(fact, 1)

    def _check_waive(self, fact: Waive) -> None:
        if self._domain(fact.domain).closed:
            raise not_allowed(f"the data domain '{fact.domain}' is closed")
        if (fact.plan, fact.domain) in self.waived:
            raise not_allowed("this plan was waived on this data domain already")
        self._check_approved(fact, EYES_TO_WAIVE)

    def _check_grant(self, fact: Grant) -> None:
        before = self.grants.get((fact.plan, fact.domain))
        if self._domain(fact.domain).closed:
            raise not_allowed(f"the data domain '{fact.domain}' is closed")
        if fact.version != (1 if before is None else before.fact.version + 1):
            raise not_allowed(f"version {fact.version} of the grant does not follow the one before")
        if before is not None and fact.event != before.fact.event:
            raise not_allowed("a plan has one event for ever, and this grant names another")
        if isinstance(fact.event, Unprotected):
            # In a simulation's domain without a budget nothing is promised that could be waived.
            if self._domain(fact.domain).fact.order is not None and (fact.plan, fact.domain) not in self.waived:
                raise not_allowed("a plan without differential privacy needs a waiver of two officers first")
        elif self._domain(fact.domain).fact.order is not None:
            self._price(fact.domain, fact.event)
        self._check_approved(fact, 1)

    def _check_recover(self, fact: Recover) -> None:
        if (fact.seen_size, fact.seen_root) in self.recovered:
            raise not_allowed("this head was recovered from already")
        for charge in fact.charges:
            self._price(charge.domain, charge.event)
        charged = Counter[tuple[str, str]]()
        for charge in fact.charges:
            grant = self.grants.get((charge.plan, charge.domain))
            if grant is not None and charge.event != grant.fact.event:
                raise not_allowed("a charge names another event than the plan's grant")
            charged[charge.plan, charge.domain] += charge.blocks
        for least in self.missing_charges(fact.seen_size):
            if charged[least.plan, least.domain] < least.blocks:
                raise not_allowed(
                    f"a recovery from head {fact.seen_size} charges at least {least.blocks} blocks of plan "
                    f"{least.plan[:16]} on '{least.domain}'"
                )
        self._check_approved(fact, EYES_TO_RECOVER)

    def _check_approved(self, fact: Approved, needed: int) -> None:
        """Enough distinct officers of the present list have signed. A simulation has no officers."""
        if self.opened is None or self.opened.key is None:
            return
        known = {} if self.officers is None else self.officers.officers
        message = approval_message(self.opened.key, fact)
        signers = set()
        for approval in fact.approvals:
            if known.get(approval.officer) != approval.key:
                raise not_allowed(f"'{approval.officer}' with this key is no officer of this site")
            officer = PublicIdentity(approval.officer, bytes.fromhex(approval.key))
            if not officer.verifies(bytes.fromhex(approval.signature), message):
                raise not_allowed(f"the signature of officer '{approval.officer}' does not belong to this entry")
            signers.add(approval.key)
        if len(signers) < needed:
            raise not_allowed(f"an entry of kind '{fact.kind}' needs the signatures of {needed} officers")
