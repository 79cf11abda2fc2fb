"""A campaign of indicators as a hospital sees it while it runs: what it has answered, and whom its receipts name.

The table of sums comes with the last tick (``tables.TableReader.at_hospital``). Until then the coordinator's page
shows the series; here stands what this hospital's own ledger and its receipts say.
"""

from dataclasses import dataclass

from wardround.client.population import usual_domains
from wardround.client.store.receipts import Receipts
from wardround.client.store.studies import Studies
from wardround.console.web.queries.campaigns import Campaign, campaign
from wardround.console.web.queries.site import SiteQueries, StudyLine, study_line
from wardround.console.web.queries.tables import TableReader
from wardround.protocol.errors import ProtocolViolation
from wardround.protocol.indicators import Indicators
from wardround.protocol.plan import StudyPlan
from wardround.protocol.receipt import Receipt

TABLES = TableReader(campaign)
"""Keeps what it read of released tables, for every hospital of this process."""


@dataclass(frozen=True, slots=True)
class CampaignHere:
    """``answered``: ticks that left this hospital; ``last``: the newest of them, 0 for none. ``receipt``: the newest
    that this hospital signed, None: none yet. ``series``: empty before the campaign is over."""

    plan: StudyPlan
    line: StudyLine
    charged: bool
    over: bool
    answered: int
    last: int
    receipt: Receipt | None
    series: Campaign


def campaign_here(queries: SiteQueries, digest: str) -> CampaignHere | None:
    """The campaign of ``digest``, or None where no plan of indicators was proposed here under that name.

    Raises:
        UsageError: its released table cannot be read.
    """
    with queries.ledger.read() as (books, store):
        held = Studies(store).get(digest)
        if held is None or not isinstance(held.plan.task, Indicators):
            return None
        state, domains = books.state, usual_domains(held.plan.task)
        blocks = [block for domain in domains if (block := state.campaign(digest, domain)) is not None]
        ticks = {tick for block in blocks for tick, _ in state.parts.get(block.name, ())}
        over = any(block.name in state.ended for block in blocks)
        try:
            receipts = Receipts(store).of(digest)
        except (ProtocolViolation, ValueError):
            receipts = []
        line = study_line(books, held)
    series = TABLES.at_hospital(queries.folder.path, held.plan)
    return CampaignHere(
        held.plan,
        line,
        bool(blocks),
        over,
        len(ticks),
        max(ticks, default=0),
        receipts[-1] if receipts else None,
        series,
    )
