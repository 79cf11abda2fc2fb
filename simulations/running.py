"""The rounds of a simulated study one after another, and when to stop: whatever engine makes a round."""

from collections.abc import Callable
from typing import Final

from wardround.protocol.errors import Unavailable
from wardround.server.rounds import RoundState
from wardround.server.study import RoundRecord, Study

VOID_ROUNDS_IN_A_ROW: Final = 3
"""After so many void rounds a study stops: more charges would buy nothing."""


def run_rounds(
    study: Study, step: Callable[[], RoundRecord], after_round: Callable[[RoundRecord], None]
) -> list[RoundRecord]:
    """Run every round that is left; ``after_round`` is called when a round is over and before the next opens.

    Raises:
        Unavailable: three rounds in a row were void, or three through one site; says who dropped and why.
    """
    records: list[RoundRecord] = []
    while not study.finished:
        record = step()
        records.append(record)
        after_round(record)
        last = records[-VOID_ROUNDS_IN_A_ROW:]
        if len(last) == VOID_ROUNDS_IN_A_ROW and all(r.state is RoundState.VOID for r in last):
            raise Unavailable(_why_void(record, study.plan.quorum), _what_helps(record))
        if study.stopped_by and not study.finished:
            raise Unavailable(
                f"three rounds were void through {' and '.join(study.stopped_by)}; the study has stopped",
                "each cost the other sites a charge for nothing: mend the site, or plan the study without it",
            )
    return records


def _what_helps(record: RoundRecord) -> str:
    if any("not finite" in report.detail for report in record.reports.values()):
        return "the training ran away: start again with a smaller local.learning_rate"
    return "bring the sites back and resume"


def _why_void(record: RoundRecord, quorum: int) -> str:
    missing = [
        f"{site} ({report.outcome}{': ' + report.detail if report.detail else ''})"
        for site, report in record.reports.items()
        if report.outcome != "replied"
    ]
    return (
        f"{VOID_ROUNDS_IN_A_ROW} rounds in a row had fewer than {quorum} sites; "
        f"missing in round {record.round_number}: {', '.join(missing)}"
    )
