"""A campaign of indicators as a hospital sees it: what it has answered, whom its receipts name, and the series so far.

The table of sums comes with each tick, as the tick before left it, and is kept if a receipt names it
(``client.desk``): so the coordinator's page may be a tick ahead. The last one comes with the end of the campaign.
"""

from dataclasses import dataclass
from typing import Final

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
"""Keeps what it read of tables, for every hospital of this process."""

LOOKED_AT: Final = 64
"""Receipts, the newest, among which the one of the kept table is looked for: it is the last or the one before."""


@dataclass(frozen=True, slots=True)
class CampaignHere:
    """``answered``: ticks that left this hospital; ``last``: the newest of them, 0 for none. ``receipt``: the newest
    that this hospital signed, None: none yet. ``series``: as of tick ``series.done``, empty before the first came."""

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
            receipts = Receipts(store).newest(digest, LOOKED_AT)
        except (ProtocolViolation, ValueError):
            receipts = []
        line = study_line(books, held)
    series = TABLES.at_hospital(queries.folder.path, held.plan, receipts)
    return CampaignHere(
        held.plan,
        line,
        bool(blocks),
        over,
        len(ticks),
        max(ticks, default=0),
        receipts[0] if receipts else None,
        series,
    )
