"""What a ledger says of secure sums: one signed list in an attempt, and never two sums over the same inputs.

Two sums over the same inputs and different sites differ by single inputs, so what a site has opened binds it for
ever: across attempts, sessions, rosters and restarts. After a recovery nobody knows which sums were opened in the
entries that are lost; rounds that were answered before are then never masked again.
"""

from dataclasses import dataclass, field

from wardround.protocol.ledger import OpenSum, SignSurvivors


@dataclass(slots=True)
class SumState:
    """``listed`` holds a list's hash by (session, round, attempt), ``shared`` the attempts whose sum was opened.

    ``opened`` holds the sites of a sum by inputs, ``forgotten`` the (plan, round) whose sums may have been opened in
    entries that are lost.
    """

    listed: dict[tuple[str, int, int], str] = field(default_factory=dict)
    shared: set[tuple[str, int, int]] = field(default_factory=set)
    opened: dict[str, tuple[str, ...]] = field(default_factory=dict)
    forgotten: set[tuple[str, int]] = field(default_factory=set)

    def fault(self, fact: SignSurvivors | OpenSum, site: str, answered: bool) -> str | None:
        """Why ``fact`` may not come next in the ledger of ``site``; None: it may. ``answered``: the round was."""
        slot = (fact.session, fact.round_number, fact.attempt)
        if not answered:
            return f"round {fact.round_number} was not answered, so no sum holds an answer to it"
        if (fact.plan, fact.round_number) in self.forgotten:
            return f"round {fact.round_number} was answered before a recovery, and may have been opened: it is over"
        if isinstance(fact, SignSurvivors):
            return "another list of survivors was signed in this attempt" if slot in self.listed else None
        if self.listed.get(slot) != fact.survivors:
            return "a sum is opened only over the list of survivors that was signed"
        if slot in self.shared:
            return "the sum of this attempt was opened already"
        if list(fact.sites) != sorted(set(fact.sites)) or site not in fact.sites:
            return "the sites of a sum are distinct, sorted, and this site is one of them"
        if self.opened.get(fact.inputs, fact.sites) != fact.sites:
            return "another sum over the same inputs was opened"
        return None

    def apply(self, fact: SignSurvivors | OpenSum) -> None:
        """Take a fact that has no fault."""
        if isinstance(fact, SignSurvivors):
            self.listed[fact.session, fact.round_number, fact.attempt] = fact.survivors
        else:
            self.shared.add((fact.session, fact.round_number, fact.attempt))
            self.opened[fact.inputs] = fact.sites
