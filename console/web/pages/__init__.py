"""The pages of both consoles, one module each. A page that is in ``PAGES`` is mounted, guarded, listed and tested."""

from typing import Final

from wardround.console.web.page import Page
from wardround.console.web.pages import coordinator_studies, officers, overview, studies, study

PAGES: Final[tuple[Page, ...]] = (
    overview.PAGE,
    studies.PAGE,
    study.PAGE,
    officers.PAGE,
    coordinator_studies.PAGE,
)
"""In the order of the navigation, within each group."""
