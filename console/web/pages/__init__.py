"""The pages of both consoles, one module each. A page that is in ``PAGES`` is mounted, guarded, listed and tested."""

from typing import Final

from wardround.console.web.page import Page
from wardround.console.web.pages import (
    account,
    accounts,
    audit,
    audit_entry,
    audit_verify,
    audit_witnesses,
    budget,
    budget_charges,
    coordinator_studies,
    decide,
    domains_open,
    health,
    notices,
    officers,
    overview,
    papers,
    patients,
    pause,
    releases,
    studies,
    study,
)

PAGES: Final[tuple[Page, ...]] = (
    overview.PAGE,
    notices.PAGE,
    studies.PAGE,
    study.PAGE,
    decide.PAGE,
    domains_open.PAGE,
    budget.PAGE,
    budget.DOMAIN,
    budget_charges.STUDY,
    budget_charges.CHARGE,
    releases.PAGE,
    releases.RELEASE,
    audit.PAGE,
    audit_verify.PAGE,
    audit_witnesses.PAGE,
    audit_entry.PAGE,
    papers.PAGE,
    patients.PAGE,
    officers.PAGE,
    health.PAGE,
    pause.PAGE,
    accounts.SITE_PAGE,
    accounts.HUB_PAGE,
    account.SITE_PAGE,
    account.HUB_PAGE,
    coordinator_studies.PAGE,
)
"""In the order of the navigation, within each group."""
