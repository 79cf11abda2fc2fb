"""What the site's daemon tells the hospital's own monitoring: its state, its link, its budgets.

Everything here is of the machine, of plans, or of what rounds charge by their plan. A site's ledger counts rounds and
not patients, so its figures tell of none.
"""

import shutil
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Final

from wardround.client.office import Office
from wardround.conf.monitoring import Measurement, Value
from wardround.protocol.messages import Standing

_LIST: Final = (
    Measurement(
        "wardround_site_info", "Name, version and code of the daemon.", labels=("site", "version", "behaviour")
    ),
    Measurement("wardround_site_started_seconds", "When the daemon started, in seconds since 1970."),
    Measurement("wardround_site_state", "1 for the state that the daemon is in.", labels=("state",)),
    Measurement("wardround_site_link_up", "1 while the way to the coordinator stands."),
    Measurement("wardround_site_last_exchange_seconds", "When a message was last answered, in seconds since 1970."),
    Measurement("wardround_site_refusals_total", "Requests that were refused since the start.", "counter"),
    Measurement("wardround_site_ledger_entries", "Entries of the ledger."),
    Measurement("wardround_site_rounds_charged_total", "Rounds that the ledger has charged, ever.", "counter"),
    Measurement("wardround_site_studies", "Plans by how they stand here.", labels=("standing",)),
    Measurement("wardround_site_budget_spent_ratio", "Part of a domain's budget that is spent.", labels=("domain",)),
    Measurement("wardround_site_disk_free_bytes", "Free where the site's folder lies."),
)
MEASUREMENTS: Final = {each.name: each for each in _LIST}
"""All that can be read there, in this order."""

STATES: Final = ("running", "paused", "stopping")


def site_values(office: Office) -> Iterator[Value]:
    """The values now."""
    status, books = office.status(), office.books()
    yield Value("wardround_site_info", 1.0, (status.site, status.version, status.behaviour[:12]))
    yield Value("wardround_site_started_seconds", status.started_at)
    yield from (Value("wardround_site_state", float(status.state == state), (state,)) for state in STATES)
    yield Value("wardround_site_link_up", float(status.link == "up"))
    if status.last_at:
        yield Value("wardround_site_last_exchange_seconds", datetime.fromisoformat(status.last_at).timestamp())
    yield Value("wardround_site_refusals_total", float(status.refusals))
    yield Value("wardround_site_ledger_entries", float(books.entries))
    yield Value("wardround_site_rounds_charged_total", float(books.rounds_charged))
    standings = Counter(view.standing for view in office.studies())
    yield from (Value("wardround_site_studies", float(standings[each]), (each.value,)) for each in Standing)
    for budget in books.budgets:
        yield Value("wardround_site_budget_spent_ratio", budget.spent / budget.allowance, (budget.domain,))
    yield Value("wardround_site_disk_free_bytes", float(shutil.disk_usage(office.path).free))
