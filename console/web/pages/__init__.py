"""The pages of both consoles, one module each. A page that is in ``PAGES`` is mounted, guarded, listed and tested."""

from typing import Final

from wardround.console.web.page import Page
from wardround.console.web.pages import budget, budget_charges, coordinator_studies, overview, releases

PAGES: Final[tuple[Page, ...]] = (
    overview.PAGE,
    budget.PAGE,
    budget.DOMAIN,
    budget_charges.STUDY,
    budget_charges.CHARGE,
    releases.PAGE,
    releases.RELEASE,
    coordinator_studies.PAGE,
)
"""In the order of the navigation, within each group."""
