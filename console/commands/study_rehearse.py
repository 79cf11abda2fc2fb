"""``wardround study rehearse``: a study's rounds on hospitals that are made of its contract."""

from collections.abc import Sequence
from datetime import UTC, datetime

import typer

from wardround.simulations.plugins.configured import configuration_of
from wardround.simulations.rehearsal import Rehearsed, rehearse


def rehearse_command(overrides: Sequence[str], sites: int, patients: int, rounds: int) -> None:
    """Rehearse the study that ``overrides`` describe and say what happened."""
    configuration = configuration_of(overrides)
    names = sorted(configuration.data.declared) or [f"hospital-{number}" for number in range(1, sites + 1)]
    found = rehearse(configuration, names, patients, rounds, datetime.now(UTC).date())
    for line in _said(found):
        typer.echo(line)


def _said(found: Rehearsed) -> list[str]:
    plan = found.plan
    lines = [f"{plan.title}: rehearsed at {len(found.cohorts)} made-up hospitals; nobody is behind any row."]
    for cohort in found.cohorts:
        left_out = ", ".join(f"{count} {reason}" for reason, count in sorted(cohort.excluded.items())) or "nothing"
        people = f"{cohort.train.patients} patients train, {cohort.test.patients} test"
        lines.append(f"  {cohort.site:<12} {people}; left out: {left_out}")
    closed = sum(result.state == "closed" for result in found.rounds)
    lines.append(f"{closed} of {len(found.rounds)} rounds closed, {found.seconds_each:.2g} s each on this machine.")
    for result in found.rounds:
        lost = ", ".join(f"{site} {one.outcome}" for site, one in result.sites.items() if one.outcome != "replied")
        if lost:
            lines.append(f"  round {result.round_number}: {lost}")
    fit = f"not fit ({found.unfit[0]})" if found.unfit else "fit"
    lines.append(f"The model was tried for differential privacy: {fit}.")
    sums = "secure sums" if plan.privacy.secure_aggregation else "no secure sums"
    lines.append(f"Protection as in the study: privacy={plan.privacy.mode.value}, {sums}.")
    return lines
