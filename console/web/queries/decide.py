"""What a decision needs to know of a site: a plan and what officers have signed about it, and the ledger's terms."""

from dataclasses import dataclass

from wardround.client.limits import unfit_here
from wardround.client.office import GrantLine, standing_of
from wardround.client.plugins.reading import Reading, plugin_of
from wardround.client.store.studies import Studies
from wardround.console.web.queries.ledger import Books
from wardround.console.web.queries.site import SiteQueries
from wardround.privacy.ledger import LedgerState
from wardround.protocol.errors import UsageError
from wardround.protocol.ledger import OpenDomain
from wardround.protocol.messages import Standing
from wardround.protocol.plan import StudyPlan
from wardround.protocol.plugins import PluginTask


@dataclass(frozen=True, slots=True)
class LedgerTerms:
    """What a signature is bound to, and what it may name.

    ``officers``: name -> key of who may sign; ``suspended``: key -> why it may not any more. ``domains`` have a budget
    that stands; those in ``open_domains`` are not closed. ``again``: budgets that rest on a suspended key, and wait to
    be signed again as they are.
    """

    site: str
    ledger_key: str
    officers: dict[str, str]
    domains: tuple[str, ...]
    open_domains: tuple[str, ...]
    suspended: dict[str, str]
    again: dict[str, OpenDomain]


@dataclass(frozen=True, slots=True)
class PlanHere:
    """A plan as it stands at this site. ``signed_by``: who signed the grants that stand.

    ``fault``: why the site's policy would not let it run, or "". ``refused``: the reason, or "". ``plugin``: the code
    of others that the plan names, and ``plugin_fault`` why it cannot be read here.
    """

    plan: StudyPlan
    terms: LedgerTerms
    received_at: str
    standing: Standing
    refused: str
    fault: str
    grants: tuple[GrantLine, ...]
    waived: tuple[str, ...]
    signed_by: tuple[str, ...]
    plugin: Reading | None
    plugin_fault: str

    @property
    def domains(self) -> tuple[str, ...]:
        return self.terms.open_domains


def plan_here(queries: SiteQueries, digest: str) -> PlanHere | None:
    """The plan of ``digest``, or None where it was never proposed."""
    with queries.ledger.read() as (books, store):
        held = Studies(store).get(digest)
        if held is None:
            return None
        state, terms = books.state, _terms(queries, books)
        granted = sorted((domain, grant) for (of, domain), grant in state.grants.items() if of == digest)
        grants = tuple(
            GrantLine(domain, grant.fact.version, grant.fact.blocks, grant.used) for domain, grant in granted
        )
        signed_by = sorted({approval.officer for _, grant in granted for approval in grant.fact.approvals})
        waived = tuple(
            sorted(at for (of, at), fact in state.waived.items() if of == digest and not state.lacking(fact))
        )
        suspended = bool(state.plan_suspended_by(digest))
        plugin, plugin_fault = _plugin(held.plan, queries, state, Studies(store))
    return PlanHere(
        held.plan,
        terms,
        held.received_at,
        standing_of(held, grants, suspended),
        held.refused or "",
        unfit_here(held.plan, queries.folder) or "",
        grants,
        waived,
        tuple(signed_by),
        plugin,
        plugin_fault,
    )


@dataclass(frozen=True, slots=True)
class _Proposed:
    plan: StudyPlan
    standing: Standing


def _plugin(plan: StudyPlan, queries: SiteQueries, state: LedgerState, studies: Studies) -> tuple[Reading | None, str]:
    """The plugin that the plan names, and why it cannot be read here, or ""."""
    if not isinstance(plan.task, PluginTask):
        return None, ""
    granted = {of: grant.fact.blocks for (of, _), grant in state.grants.items()}
    others = [
        _Proposed(one.plan, Standing.APPROVED if granted.get(one.digest) else Standing.REVOKED)
        for one in studies.all()
        if one.digest in granted
    ]
    try:
        return plugin_of(plan, queries.folder.plugins, others), ""
    except UsageError as error:
        return None, error.message


def ledger_terms(queries: SiteQueries) -> LedgerTerms:
    """The same of the ledger alone."""
    with queries.ledger.read() as (books, _):
        return _terms(queries, books)


def _terms(queries: SiteQueries, books: Books) -> LedgerTerms:
    state = books.state
    if state.opened is None or state.opened.key is None or state.officers is None:
        raise UsageError("this ledger names no officers", "run 'wardround ledger verify': it says what is wrong")
    return LedgerTerms(
        queries.folder.site,
        state.opened.key,
        {name: key for name, key in state.officers.officers.items() if key not in state.suspended},
        tuple(sorted(name for name, domain in state.domains.items() if not state.lacking(domain.fact))),
        tuple(sorted(name for name, domain in state.domains.items() if not domain.closed)),
        {key: one.reason for key, one in state.suspended.items()},
        {
            name: domain.fact
            for name, domain in sorted(state.domains.items())
            if not domain.closed and state.lacking(domain.fact)
        },
    )
