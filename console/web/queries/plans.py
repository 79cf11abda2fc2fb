"""What pages say of a plan again and again: its title, its mode, its size. A plan never changes, so it is read once."""

from dataclasses import dataclass
from sqlite3 import Connection
from typing import Final

from wardround.client.store.studies import Studies
from wardround.protocol.indicators import Indicators
from wardround.protocol.plan import PrivacyMode, StudyPlan

MOST_KEPT: Final = 2_000


@dataclass(frozen=True, slots=True)
class PlanFacts:
    """A plan in a line. ``title`` is "" for a plan that this site's list of studies does not hold.

    ``campaign``: it publishes indicators, and is charged as a whole and not by the round.
    """

    digest: str
    title: str = ""
    mode: PrivacyMode | None = None
    masked: bool = False
    clip_norm: float | None = None
    parameters: int | None = None
    campaign: bool = False


class Plans:
    """The plans of one site, by digest."""

    def __init__(self) -> None:
        self._known: dict[str, PlanFacts] = {}

    def of(self, store: Connection, digest: str) -> PlanFacts:
        """What is known of a plan; one that is not held may still come, so only the others are kept."""
        found = self._known.get(digest)
        if found is None:
            held = Studies(store).get(digest)
            if held is None:
                return PlanFacts(digest)
            if len(self._known) >= MOST_KEPT:
                self._known.clear()
            found = self._known[digest] = _facts(held.plan)
        return found


def _facts(plan: StudyPlan) -> PlanFacts:
    terms = plan.privacy
    private = terms.mode is not PrivacyMode.NONE
    return PlanFacts(
        plan.digest,
        plan.title,
        terms.mode,
        terms.secure_aggregation,
        terms.clip_norm if private else None,
        plan.layout.size,
        isinstance(plan.task, Indicators),
    )
