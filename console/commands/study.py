"""``wardround study``: check, propose, start, watch, resume, stop and fetch a study. For the researcher."""

import json
import shutil
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from wardround.privacy.accounting import rounded_up
from wardround.privacy.promises import check_promises
from wardround.protocol.errors import Unavailable, UsageError
from wardround.protocol.plan import Claim, StudyPlan
from wardround.protocol.receipt import Receipt, chain_fault
from wardround.server.folder import CoordinatorFolder
from wardround.server.store.registry import Registry, StudyRow
from wardround.server.store.studies import StudyFolder, find_study

OVER: Final = ("finished", "stopped", "needs_people")
POLL_SECONDS: Final = 0.5


def check_command(overrides: Sequence[str]) -> None:
    """Make the plan that ``overrides`` describe, say what it would cost, and send nothing."""
    plan = _plan(overrides)
    typer.echo(f"{plan.title}: plan {plan.digest}")
    for line in warnings(plan):
        typer.echo(line)
    from wardround.console.commands.privacy import plan_command

    plan_command(list(overrides), 1, False, [])


def propose_command(folder: Path, overrides: Sequence[str]) -> None:
    """Hand the plan to the coordinator, which proposes it to every site of it."""
    hand_over(folder, _plan(overrides))


def hand_over(folder: Path, plan: StudyPlan) -> None:
    """Hand ``plan`` to the coordinator in ``folder``. Raises UsageError where it cannot be run there."""
    opened = CoordinatorFolder.open(folder)
    registry = Registry(opened.database)
    known = {site.site for site in registry.sites() if not site.revoked}
    missing = [participant.site for participant in plan.participants if participant.site not in known]
    if missing:
        raise UsageError(
            f"the plan names '{missing[0]}', which has not joined this coordinator",
            f"joined so far: {', '.join(sorted(known)) or 'nobody'}; invite it: wardround coordinator invite",
        )
    if plan.privacy.secure_aggregation and registry.roster() is None:
        raise UsageError("the plan uses secure aggregation, and no roster is in force", "docs/roster.md makes one")
    for each in (plan, plan.evaluation_plan):
        if each is not None:
            check_promises(each)
    # The first model is made here; a frozen network is the sites' own matter.
    plan.starting_model(opened.weights)
    registry.propose(plan)
    typer.echo(f"{plan.title}: proposed as {plan.digest}")
    for line in warnings(plan):
        typer.echo(line)
    typer.echo("Its officers approve it at each site: wardround site study approve")
    if (beside := plan.evaluation_plan) is not None:
        typer.echo(f"Its evaluation on the test patients is approved by itself: {beside.study}, {beside.digest}")


def start_command(folder: Path, study: str) -> None:
    """Let the study begin as soon as enough sites have approved it."""
    _want(folder, study, "running")


def resume_command(folder: Path, study: str) -> None:
    """Go on with a study that was stopped, or that needed people, where it was."""
    _want(folder, study, "running")


def stop_command(folder: Path, study: str) -> None:
    """Stop the study: sites end their work at the next step; what was charged stays charged."""
    _want(folder, study, "stopped")


def list_command(folder: Path) -> None:
    """Every study of this coordinator."""
    for row in Registry(CoordinatorFolder.open(folder).database).studies():
        typer.echo(f"{row.plan.digest[:12]}  {row.plan.study:<24} {row.state or row.wanted:<14} {row.plan.title}")


def watch_command(folder: Path, study: str, once: bool) -> None:
    """Show the study live: rounds, who answered, who did not and why, epsilon, and the time that is left."""
    opened = CoordinatorFolder.open(folder)
    registry = Registry(opened.database)
    plan = find_study(registry.plans(), study)
    console = Console()
    place = StudyFolder.create(opened.studies, plan)
    if once or not console.is_terminal:
        _watch_lines(registry, plan, place, once)
        return
    with Live(console=console, refresh_per_second=4, transient=False) as live:
        while True:
            row = _row(registry, plan)
            live.update(_table(row, place))
            if row.state in OVER:
                return
            time.sleep(POLL_SECONDS)


def fetch_command(folder: Path, study: str, out: Path) -> None:
    """Copy the model, the plan and the receipts, after the receipts' chain and signatures were checked."""
    opened = CoordinatorFolder.open(folder)
    registry = Registry(opened.database)
    plan = find_study(registry.plans(), study)
    place = StudyFolder.create(opened.studies, plan)
    model = place.path / "model.safetensors"
    if not model.exists():
        raise UsageError(f"the study '{plan.study}' has no model yet", "wardround study watch shows how far it is")
    if out.exists():
        raise UsageError(f"'{out}' exists already", "choose a folder that does not exist yet")
    lines = verified(place.receipts(), registry, plan)
    try:
        shutil.copytree(place.path / "receipts", out / "receipts")
        shutil.copy(model, out / model.name)
        shutil.copy(place.path / "plan.json", out / "plan.json")
    except OSError as error:
        raise Unavailable(f"'{out}' cannot be written: {error.strerror}", "check the disk") from error
    for line in lines:
        typer.echo(line)
    typer.echo(f"{out}: model.safetensors, plan.json, receipts")


def verified(receipts: list[Receipt], registry: Registry, plan: StudyPlan) -> list[str]:
    """What the receipts show. Raises UsageError when chain or signatures do not hold."""
    if (fault := chain_fault(receipts)) is not None:
        raise UsageError(f"the receipts do not hold: {fault}", "keep the folder, and ask the coordinator's operator")
    roster, sites = registry.roster(), {participant.site for participant in plan.participants}
    known = {} if roster is None else roster.identities
    signed = [set(receipt.verified_signers(known)) & sites for receipt in receipts]
    whole = sum(signers == sites for signers in signed)
    return [
        f"{len(receipts)} receipts, one chain; {whole} of them countersigned by all {len(sites)} sites.",
        *(
            f"Round {r.round_number}: not signed by {', '.join(sorted(sites - s))}."
            for r, s in zip(receipts, signed, strict=True)
            if s != sites and known
        ),
    ]


def warnings(plan: StudyPlan) -> list[str]:
    """What every screen must say of a plan with little protection."""
    sites, terms = len(plan.participants), plan.privacy
    lines = []
    if sites < 3:
        lines.append(f"A pilot of {sites} hospital{'s' * (sites > 1)}: no secure aggregation, so the coordinator sees")
        lines.append("each hospital's own noised update. Only epsilon_site protects its patients.")
    elif not terms.secure_aggregation:
        lines.append("No secure aggregation: the coordinator sees each hospital's own update.")
    if terms.claim in (Claim.MASK_ONLY, Claim.SIMULATION_ONLY):
        lines.append("No differential privacy: no epsilon bounds what this study tells of a patient.")
    return lines


def _plan(overrides: Sequence[str]) -> StudyPlan:
    from wardround.conf.planning import make_plan
    from wardround.simulations.cohorts import declared_patients
    from wardround.simulations.plugins.configured import configuration_of

    configuration = configuration_of(overrides)
    return make_plan(configuration, declared_patients(configuration), datetime.now(UTC).date())


def _want(folder: Path, study: str, wanted: str) -> None:
    registry = Registry(CoordinatorFolder.open(folder).database)
    plan = find_study(registry.plans(), study)
    registry.want(plan.digest, wanted)
    typer.echo(f"{plan.study} ({plan.digest[:12]}): {wanted}.")


def _row(registry: Registry, plan: StudyPlan) -> StudyRow:
    return next(row for row in registry.studies() if row.plan.digest == plan.digest)


def _seen(place: StudyFolder) -> dict[str, Any]:
    try:
        return dict(json.loads((place.path / "status.json").read_bytes()))
    except (OSError, ValueError):
        return {}


def _headline(row: StudyRow, seen: dict[str, Any]) -> str:
    state = row.state or seen.get("state") or row.wanted
    if state in OVER:
        return f"{row.plan.study}: {state.replace('_', ' ')}. {row.note}".rstrip()
    left = seen.get("seconds_left")
    about = f", about {_minutes(left)} left" if left else ""
    phase = f", {seen['phase']}" if seen.get("phase") else ""
    tried = f" (attempt {seen['attempt']})" if seen.get("attempt", 0) > 1 else ""
    return f"{row.plan.study}: round {seen.get('round_number', 0)} of {row.plan.rounds}{tried}, {state}{phase}{about}"


def _watch_lines(registry: Registry, plan: StudyPlan, place: StudyFolder, once: bool) -> None:
    """For a pipe: one line for each change of the round's state, and one for each receipt."""
    shown, written = "", 0
    while True:
        row, seen = _row(registry, plan), _seen(place)
        if (line := _headline(row, seen)) != shown:
            shown = line
            typer.echo(line)
        receipts = place.receipts()
        for receipt in receipts[written:]:
            typer.echo(_receipt_line(receipt))
        written = len(receipts)
        if once or row.state in OVER:
            return
        time.sleep(POLL_SECONDS)


def _receipt_line(receipt: Receipt) -> str:
    took = [line.site for line in receipt.sites if line.outcome == "replied"]
    dropped = [f"{line.site} ({line.detail or line.outcome})" for line in receipt.sites if line.outcome != "replied"]
    epsilons = [line.epsilon_at_most for line in receipt.sites if line.epsilon_at_most is not None]
    cost = f"; epsilon at most {rounded_up(max(epsilons))} {receipt.conditions}" if epsilons else ""
    gone = f"; without {', '.join(dropped)}" if dropped else ""
    tried = f" attempt {receipt.attempt}" if receipt.attempt > 1 else ""
    return f"round {receipt.round_number}{tried} {receipt.state}: {', '.join(took) or 'nobody'}{gone}{cost}"


def _table(row: StudyRow, place: StudyFolder) -> Table:
    seen, receipts = _seen(place), place.receipts()
    last = receipts[-1].line if receipts else {}
    table = Table(title=_headline(row, seen), title_justify="left", box=None, pad_edge=False, header_style="bold")
    for name, side in (("Hospital", "left"), ("Plan there", "left"), ("This round", "left"), ("Last round", "left")):
        table.add_column(name, justify=side)  # type: ignore[arg-type]
    table.add_column("Epsilon at most", justify="right")
    for participant in row.plan.participants:
        line = last.get(participant.site)
        epsilon = None if line is None else line.epsilon_at_most
        before = "" if line is None else line.outcome + (f": {line.detail}" if line.detail else "")
        table.add_row(
            participant.site,
            seen.get("standing", {}).get(participant.site, "no answer yet"),
            seen.get("sites", {}).get(participant.site, ""),
            before,
            "" if epsilon is None else rounded_up(epsilon),
        )
    if row.plan.privacy.delta is not None:
        table.caption = receipts[-1].conditions if receipts else None
    if seen.get("note"):
        table.caption = f"{seen['note']}. {table.caption or ''}"
    return table


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
