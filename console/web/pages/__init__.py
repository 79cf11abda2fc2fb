"""The pages of both consoles, one module each. A page that is in ``PAGES`` is mounted, guarded, listed and tested."""

from typing import Final

from wardround.console.web.page import Page
from wardround.console.web.pages import coordinator_studies, decide, domains_open, overview, pause

PAGES: Final[tuple[Page, ...]] = (
    overview.PAGE,
    decide.PAGE,
    domains_open.PAGE,
    pause.PAGE,
    coordinator_studies.PAGE,
)
"""In the order of the navigation, within each group."""
