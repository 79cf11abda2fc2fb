"""The pages of both consoles, one module each. A page that is in ``PAGES`` is mounted, guarded, listed and tested."""

from typing import Final

from wardround.console.web.page import Page
from wardround.console.web.pages import (
    coordinator_overview,
    coordinator_releases,
    coordinator_sites,
    coordinator_studies,
    coordinator_study,
    overview,
)

PAGES: Final[tuple[Page, ...]] = (
    overview.PAGE,
    coordinator_overview.PAGE,
    coordinator_studies.PAGE,
    coordinator_study.PAGE,
    coordinator_sites.PAGE,
    coordinator_releases.PAGE,
)
"""In the order of the navigation, within each group."""
