"""``wardround site dry-run``: the rounds of a proposed study on the site's own data, with nothing released."""

import json
from dataclasses import asdict
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from wardround.client.dry_run import DryRun, TriedRound, dry_run
from wardround.client.store.folder import SiteFolder
from wardround.client.store.studies import Studies
from wardround.protocol.plan import StudyPlan

NOTE = "Nothing of this was sent, kept or charged. It is exact and not noised: show it to nobody outside the site."


def dry_run_command(folder: Path, study: str, rounds: int, as_json: bool) -> None:
    """Try the rounds of a plan that was proposed here."""
    from wardround.client.admission import cohort_of
    from wardround.client.plugins.task import site_task
    from wardround.client.settings import read_settings
    from wardround.client.store.database import open_copy, open_store
    from wardround.client.store.members import Members

    opened = SiteFolder.open(folder)
    plan = Studies(open_copy(opened.database)).named(study).plan
    store = open_store(opened.database)
    try:
        cohort = cohort_of(plan, opened, read_settings(opened.path), Members(store, opened.patients_key()))
    finally:
        store.close()
    task = site_task(plan, opened, released=False)
    if as_json:
        found = dry_run(plan, task, cohort, rounds, installed=opened.weights)
        typer.echo(json.dumps({"study": plan.study, "plan": plan.digest, "site": opened.site, **asdict(found)}))
        return
    console = Console()
    with console.status("round 1") as status:
        found = dry_run(
            plan,
            task,
            cohort,
            rounds,
            lambda number, _: status.update(f"round {number + 1}"),
            opened.weights,
        )
    console.print(f"Dry run of '{plan.study}' ({plan.digest[:12]}) at {opened.site}", highlight=False)
    for line in _facts(plan, found):
        console.print(line, highlight=False)
    console.print(_rounds(found))
    for warning in found.warnings:
        console.print(f"! {warning}", style="yellow", highlight=False)
    console.print(NOTE, highlight=False)


def _facts(plan: StudyPlan, found: DryRun) -> list[str]:
    left_out = ", ".join(f"{count} {reason}" for reason, count in found.excluded.items()) or "none"
    low, middle, high = found.norms
    lines = [
        f"patients     {found.train_patients} train, {found.test_patients} test; "
        f"the plan declares {found.declared_patients}",
        f"left out     {left_out}",
        f"gradients    length {low:.3g} to {high:.3g}, median {middle:.3g}, at the initial model",
    ]
    if found.clipped is not None:
        lines.append(f"clipping     {found.clipped:.0%} of patients are longer than {found.clip_norm:g}")
    lines.append(f"loss         {found.loss_at_start:.4f} before the first round")
    lines.append(f"memory       {found.peak_mib:,.0f} MiB at most")
    if found.rounds:
        seconds = sum(tried.seconds for tried in found.rounds) / len(found.rounds)
        lines.append(f"time         {seconds:.2g} s for a round; {plan.rounds} rounds are planned")
    return lines


def _rounds(found: DryRun) -> Table:
    names = list(found.rounds[0].metrics)
    table = Table(box=None, pad_edge=False)
    for name in ("round", "seconds", "loss", *names):
        table.add_column(name, justify="right")
    for number, tried in enumerate(found.rounds, 1):
        table.add_row(str(number), f"{tried.seconds:.2g}", f"{tried.loss:.4f}", *(_said(tried, name) for name in names))
    return table


def _said(tried: TriedRound, name: str) -> str:
    value = tried.metrics[name]
    return "not estimable" if value is None else f"{value:.3f}"
