"""What officers may sign in a privacy ledger, how many of them, and what of it stands when a key is suspended.

A domain, a waiver or a grant rests on the keys that signed it. When so many of them are suspended that too few are
left, nothing is reserved, started or released on it until it is signed again. What only stops or charges (a revocation,
a closing, a recovery) stays, and so do lists of officers: two have signed those.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from wardround.privacy.books import Books, NotAllowed, Suspension, not_allowed
from wardround.privacy.budget import fixed_order
from wardround.protocol.errors import UsageError
from wardround.protocol.events import Unprotected
from wardround.protocol.identity import PublicIdentity
from wardround.protocol.ledger import Approved, Grant, Officers, OpenDomain, Recover, Suspend, Waive, approval_message

EYES_TO_RECOVER: Final = 2
"""Officers who must sign a recovery, or a new list of officers."""

EYES_TO_WAIVE: Final = 2
"""Officers who must sign that a plan runs without differential privacy."""


@dataclass(slots=True)
class ApprovedBooks(Books):
    """Books that know what officers may add to them. Each check raises NotAllowed; a simulation has no officers."""

    def lacking(self, fact: OpenDomain | Grant | Waive) -> tuple[Suspension, ...]:
        """The suspended keys without which too few have signed ``fact``; (): it stands."""
        keys = {approval.key for approval in fact.approvals}
        gone = sorted(keys & self.suspended.keys())
        if len(keys) - len(gone) >= (EYES_TO_WAIVE if isinstance(fact, Waive) else 1):
            return ()
        return tuple(self.suspended[key] for key in gone)

    def suspended_by(self, plan: str, domain: str) -> tuple[Suspension, ...]:
        """The suspended keys that a plan's work on a domain rests on, the first to be reported first; (): on none."""
        if not self.suspended:
            return ()
        found = {one.key: one for fact in self._basis(plan, domain) for one in self.lacking(fact)}
        return tuple(sorted(found.values(), key=lambda one: one.entry))

    def plan_suspended_by(self, plan: str) -> tuple[Suspension, ...]:
        """The same on all the domains on which the plan was granted anything."""
        domains = [domain for of, domain in self.grants if of == plan]
        found = {one.key: one for domain in domains for one in self.suspended_by(plan, domain)}
        return tuple(sorted(found.values(), key=lambda one: one.entry))

    def suspended_plans(self) -> set[str]:
        """The plans that wait to be signed again."""
        return {plan for plan, domain in self.grants if self.suspended_by(plan, domain)}

    def _basis(self, plan: str, domain: str) -> Iterator[OpenDomain | Grant | Waive]:
        """What must stand for a plan to work on a domain."""
        yield self.domains[domain].fact
        grant = self.grants[plan, domain].fact
        yield grant
        if isinstance(grant.event, Unprotected) and (plan, domain) in self.waived:
            yield self.waived[plan, domain]

    def _check_suspend(self, fact: Suspend) -> None:
        if fact.key not in self.named:
            raise not_allowed("this key was never an officer's of this site")
        if fact.key in self.suspended:
            raise not_allowed(f"the key of '{self.named[fact.key]}' is suspended already")
        # Who can stop cannot be locked out: a thief may have suspended the others first.
        self._check_approved(fact, 1, even_suspended=True)

    def _check_officers(self, fact: Officers) -> None:
        before = self.officers
        if fact.version != (1 if before is None else before.version + 1):
            raise not_allowed(f"version {fact.version} of the list of officers does not follow the one before")
        if gone := [name for name, key in sorted(fact.officers.items()) if key in self.suspended]:
            raise NotAllowed(
                f"the key of '{gone[0]}' was suspended, and a suspended key never comes back",
                "make a new one: wardround officer init",
            )
        if before is not None:
            # Of all who are named, suspended or not: else a stolen key could suspend the others and go on alone.
            self._check_approved(fact, min(EYES_TO_RECOVER, len(before.officers)))

    def _check_domain(self, fact: OpenDomain) -> None:
        if (before := self.domains.get(fact.domain)) is not None and self.lacking(before.fact):
            if fact.model_copy(update={"approvals": before.fact.approvals}) != before.fact:
                raise NotAllowed(
                    f"the data domain '{fact.domain}' was opened with epsilon at most {before.fact.epsilon_cap} and "
                    f"delta {before.fact.delta}",
                    "these are fixed for ever: sign the same again",
                )
            self._check_approved(fact, 1)
            return
        if before is not None:
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
        before = self.waived.get((fact.plan, fact.domain))
        if before is not None and not self.lacking(before):
            raise not_allowed("this plan was waived on this data domain already")
        self._check_approved(fact, EYES_TO_WAIVE)

    def _check_grant(self, fact: Grant) -> None:
        before = self.grants.get((fact.plan, fact.domain))
        if self._domain(fact.domain).closed:
            raise not_allowed(f"the data domain '{fact.domain}' is closed")
        if fact.blocks and (gone := self.lacking(self._domain(fact.domain).fact)):
            raise NotAllowed(
                f"the budget of the data domain '{fact.domain}' rests on {in_words(gone)}",
                "an officer signs it again first: wardround site domain open",
            )
        if fact.version != (1 if before is None else before.fact.version + 1):
            raise not_allowed(f"version {fact.version} of the grant does not follow the one before")
        if before is not None and fact.event != before.fact.event:
            raise not_allowed("a plan has one event for ever, and this grant names another")
        if isinstance(fact.event, Unprotected):
            # In a simulation's domain without a budget nothing is promised that could be waived.
            waiver = self.waived.get((fact.plan, fact.domain))
            if self._domain(fact.domain).fact.order is not None and waiver is None:
                raise not_allowed("a plan without differential privacy needs a waiver of two officers first")
            if fact.blocks and waiver is not None and (gone := self.lacking(waiver)):
                raise not_allowed(
                    f"the waiver of this plan rests on {in_words(gone)}: two officers sign one again first"
                )
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

    def _check_approved(self, fact: Approved, needed: int, even_suspended: bool = False) -> None:
        """Enough distinct officers of the present list have signed, with keys that stand; a simulation has none."""
        if self.opened is None or self.opened.key is None:
            return
        known = {} if self.officers is None else self.officers.officers
        message = approval_message(self.opened.key, fact)
        signers = set()
        for approval in fact.approvals:
            if known.get(approval.officer) != approval.key:
                raise not_allowed(f"'{approval.officer}' with this key is no officer of this site")
            if approval.key in self.suspended and not even_suspended:
                raise not_allowed(f"{in_words((self.suspended[approval.key],))}: it approves nothing any more")
            officer = PublicIdentity(approval.officer, bytes.fromhex(approval.key))
            if not officer.verifies(bytes.fromhex(approval.signature), message):
                raise not_allowed(f"the signature of officer '{approval.officer}' does not belong to this entry")
            signers.add(approval.key)
        if len(signers) < needed:
            raise not_allowed(f"an entry of kind '{fact.kind}' needs the signatures of {needed} officers")


def in_words(suspensions: tuple[Suspension, ...]) -> str:
    """``the key of 'anna', which was reported stolen``."""
    return " and ".join(f"the key of '{one.officer}', which was reported {one.reason}" for one in suspensions)
