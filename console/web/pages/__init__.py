"""The pages of both consoles, one module each. A page that is in ``PAGES`` is mounted, guarded, listed and tested."""

from typing import Final

from wardround.console.web.page import Page
from wardround.console.web.pages import account, accounts, coordinator_studies, health, notices, overview

PAGES: Final[tuple[Page, ...]] = (
    overview.PAGE,
    notices.PAGE,
    coordinator_studies.PAGE,
    health.PAGE,
    accounts.SITE_PAGE,
    accounts.HUB_PAGE,
    account.SITE_PAGE,
    account.HUB_PAGE,
)
"""In the order of the navigation, within each group."""
