"""The figures of a study as a hospital has them: what the study released to all, and what is this hospital's alone.

Of a statistics study or an evaluation the released table of sums; of a training the site's own report, which its own
patients are in and which nobody else is given (``client.store.results``).
"""

from dataclasses import dataclass

from wardround.client.site_result import SiteResult
from wardround.client.store.receipts import Receipts
from wardround.client.store.results import kept_report
from wardround.client.store.studies import Studies
from wardround.console.web.queries.figures import Figures, figures
from wardround.console.web.queries.site import SiteQueries, StudyLine, study_line
from wardround.console.web.queries.studies import DIGEST
from wardround.console.web.queries.tables import TableReader
from wardround.protocol.errors import ProtocolViolation, UsageError
from wardround.protocol.indicators import Indicators
from wardround.protocol.plan import StudyPlan
from wardround.protocol.receipt import Receipt
from wardround.protocol.statistics import Statistics

TABLES = TableReader(figures)
"""Keeps what it read of tables, for every hospital of this process."""


@dataclass(frozen=True, slots=True)
class FiguresHere:
    """``released``: of a statistics study; ``own``: of a training, None until the report was made. ``fault``: why one
    of them cannot be shown.

    ``receipt``: the newest of a round that has a sum; ``named``: some receipt of this hospital names what the figures
    are read from. ``evaluated``, ``trains``: digests of the plans that evaluate this one's model, or train what this
    one evaluates; "" where none was proposed here.
    """

    plan: StudyPlan
    line: StudyLine
    released: Figures | None
    own: SiteResult | None
    fault: UsageError | None
    receipt: Receipt | None
    named: bool
    charges: int
    evaluated: str
    trains: str

    @property
    def trained(self) -> bool:
        """Whether the study trains a model, so that this hospital may have figures of its own."""
        return not isinstance(self.plan.task, Statistics | Indicators)


def figures_here(queries: SiteQueries, digest: str) -> FiguresHere | None:
    """The figures of the plan ``digest``, or None where none was proposed here under that name."""
    if DIGEST.fullmatch(digest) is None:
        return None
    with queries.ledger.read() as (books, store):
        studies = Studies(store)
        held = studies.get(digest)
        if held is None:
            return None
        line, plan = study_line(books, held), held.plan
        try:
            receipts = Receipts(store).of(digest)
        except (ProtocolViolation, ValueError):
            receipts = []
        beside = plan.evaluation_plan
        known = [None if beside is None else beside.digest, None if plan.follows is None else plan.follows.plan]
        evaluated, trains = (one if one is not None and studies.get(one) is not None else "" for one in known)
    released, own, fault = None, None, None
    try:
        if isinstance(plan.task, Statistics):
            released = TABLES.at_hospital(queries.folder.path, plan)
        elif not isinstance(plan.task, Indicators):
            own = kept_report(queries.folder.path, plan)
    except UsageError as error:
        fault = error
    closed = [receipt for receipt in receipts if receipt.state == "closed"]
    named = released is None or released.table in {"", *(receipt.model_after for receipt in receipts)}
    return FiguresHere(
        plan, line, released, own, fault, closed[-1] if closed else None, named, line.charged, evaluated, trains
    )
