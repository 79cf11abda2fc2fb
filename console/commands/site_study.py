"""``wardround site study`` and ``site domain``: what an officer reads, and what she signs."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import typer

from wardround.client.asking import LEAST_REASON, domains_for, to_approve, to_revoke
from wardround.client.control import control_pb2 as pb
from wardround.client.control.client import SECONDS, control
from wardround.client.governance import CONSORTIUM_DOMAIN, charge_for, open_domain
from wardround.client.signing import read_signed, request_for
from wardround.client.store.keys import read_officer_key
from wardround.console.commands.ledger import passphrase
from wardround.console.new_files import write_new
from wardround.console.plan_changes import differences, former
from wardround.console.plan_words import charge_noun, in_words, plain, shown_line
from wardround.privacy.approvals import EYES_TO_WAIVE
from wardround.privacy.budget import cost, delta_for
from wardround.protocol.errors import UsageError
from wardround.protocol.events import PoissonGaussian
from wardround.protocol.identity import Identity
from wardround.protocol.ledger import approve
from wardround.protocol.messages import Standing
from wardround.protocol.plan import PrivacyMode, StudyPlan
from wardround.protocol.plugins import PluginTask

LEAST_PREFIX: Final = 6
"""Digits of a digest that name a plan."""


@dataclass(frozen=True, slots=True)
class _Held:
    plan: StudyPlan
    standing: Standing


def list_command(folder: Path) -> None:
    """Every plan that was proposed to the site."""
    with control(folder) as site:
        studies = site.ListStudies(pb.Empty(), timeout=SECONDS).studies
    if not studies:
        typer.echo("No plan was proposed to this site yet.")
    for study in studies:
        plan = _plan(study)
        fault = f"  Not allowed here: {study.fault}" if study.fault else ""
        line = f"{study.digest[:12]}  {plain(plan.study):<24} {study.standing:<10} {study.received_at}{plain(fault)}"
        typer.echo(line)
    if waiting := sum(study.standing == "suspended" for study in studies):
        typer.echo(f"{waiting} suspended: they wait to be signed again. 'wardround site study show' says why.")


def show_command(folder: Path, wanted: str, as_json: bool) -> None:
    """One plan in words, and what changed since the last one that was approved here."""
    with control(folder) as site:
        (study, others), own = _find(site, wanted), _site_name(site)
        plugin = () if as_json else _plugin(site, study)
    if as_json:
        typer.echo(json.dumps(json.loads(study.plan), indent=2))
        return
    for line in (*_shown(study, others), *plugin, *_left(study, own)):
        typer.echo(line)


def approve_command(
    folder: Path, wanted: str, keys: Sequence[Path], domain: str, attempts: int, reason: str | None, yes: bool
) -> None:
    """Show the plan, ask, and sign a grant for it with the officers' keys."""
    if attempts < 1:
        raise UsageError("a round is charged at least once", "wardround site study revoke takes an approval back")
    with control(folder) as site:
        study, others = _find(site, wanted, sure=yes)
        plan, own = _plan(study), _site_name(site)
        facts = to_approve(plan, study, own, domain, attempts, reason)
        costs = _cost(plan, own, domains_for(plan, domain), attempts)
        for line in (*_shown(study, others), *_plugin(site, study, needed=True), *_left(study, own), *costs):
            typer.echo(line)
        if plan.privacy.mode is PrivacyMode.NONE and len(keys) < EYES_TO_WAIVE:
            raise UsageError(
                "a plan without differential privacy needs two officers and a written reason",
                f"give --officer-key twice, and --reason with at least {LEAST_REASON} letters",
            )
        if not yes and not typer.confirm("Approve this plan?"):
            typer.echo("Not approved.")
            raise typer.Exit(1)
        officers = [read_officer_key(key, passphrase(f"Passphrase of {key.name}")) for key in keys]
        _record(site, study.ledger_key, facts, officers)
    by = ", ".join(officer.site for officer in officers)
    typer.echo(f"Approved by {by}: {plain(plan.study)}, plan {plan.digest}")


def request_command(
    folder: Path, wanted: str, domain: str, attempts: int, reason: str | None, revoke: bool, out: Path | None
) -> None:
    """Write what an officer signs on a machine of her own: ``wardround officer sign``."""
    if attempts < 1:
        raise UsageError("a round is charged at least once", "--revoke asks for the signature that takes it back")
    with control(folder) as site:
        study, _ = _find(site, wanted, sure=True)
        plan, own = _plan(study), _site_name(site)
        if not revoke:
            _plugin(site, study, needed=True)
        facts = to_revoke(plan, study, own) if revoke else to_approve(plan, study, own, domain, attempts, reason)
        text = request_for(plan, own, study.ledger_key, facts)
    if out is None:
        typer.echo(text, nl=False)
        return
    write_new(out, text.encode())
    typer.echo(f"{out}: sign it on another machine with 'wardround officer sign', and bring back what that prints.")


def record_command(folder: Path, file: Path) -> None:
    """Append facts that an officer has signed elsewhere."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise UsageError(f"'{file}' cannot be read", "give what 'wardround officer sign' wrote") from None
    with control(folder) as site:
        status = site.Status(pb.StatusRequest(), timeout=SECONDS)
        signed = read_signed(text, status.site, status.ledger_key)
        contents = [fact.model_dump_json().encode() for fact in signed.facts]
        site.Record(pb.RecordRequest(facts=contents), timeout=SECONDS)
    by = sorted({approval.officer for fact in signed.facts for approval in fact.approvals})
    about = "data domains" if signed.plan is None else f"plan {signed.plan}"
    typer.echo(f"Recorded: {len(signed.facts)} fact(s) about {about}, signed by {', '.join(by)}.")


def refuse_command(folder: Path, wanted: str, reason: str) -> None:
    """Refuse a plan; the coordinator learns that, and not why."""
    with control(folder) as site:
        study, _ = _find(site, wanted, sure=True)
        site.RefuseStudy(pb.RefuseRequest(digest=study.digest, reason=reason), timeout=SECONDS)
    typer.echo(f"Refused: plan {study.digest}. The reason is in the ledger and stays here.")


def revoke_command(folder: Path, wanted: str, keys: Sequence[Path]) -> None:
    """Take an approval back: work on the plan stops at its next step; what was charged stays charged."""
    with control(folder) as site:
        study, _ = _find(site, wanted, sure=True)
        facts = to_revoke(_plan(study), study, _site_name(site))
        officers = [read_officer_key(key, passphrase(f"Passphrase of {key.name}")) for key in keys]
        _record(site, study.ledger_key, facts, officers)
    typer.echo(f"Revoked: no message of plan {study.digest} is answered any more.")


def domain_open_command(
    folder: Path, domain: str, epsilon_cap: float, patients: int, keys: Sequence[Path], yes: bool
) -> None:
    """Give a patient population its lifetime budget; delta and cap are fixed for ever."""
    fact = open_domain(domain, epsilon_cap, delta_for(patients))
    typer.echo(
        f"Data domain '{domain}': epsilon at most {epsilon_cap:g} at delta {fact.delta:g} over all studies for ever, "
        "for any one patient of it (adding or removing one), against everyone."
    )
    if not yes and not typer.confirm("Open this domain?"):
        typer.echo("Not opened.")
        raise typer.Exit(1)
    with control(folder) as site:
        officers = [read_officer_key(key, passphrase(f"Passphrase of {key.name}")) for key in keys]
        key = site.Status(pb.StatusRequest(), timeout=SECONDS).ledger_key
        again = any(
            (one.kind, one.domain, one.effect) == ("open_domain", domain, "suspended")
            for officer in site.ListOfficers(pb.Empty(), timeout=SECONDS).keys
            for one in officer.signed
        )
        _record(site, key, [fact], officers)
    typer.echo("Signed again." if again else "Opened.")


def _plugin(site: Any, study: Any, needed: bool = False) -> tuple[str, ...]:
    """The plugin that the plan names, in lines. ``needed``: raise UsageError where it cannot be read here."""
    if not isinstance(_plan(study).task, PluginTask):
        return ()
    try:
        found = site.ShowPlugin(pb.StudyRequest(digest=study.digest), timeout=SECONDS).lines
    except UsageError as error:
        if needed:
            raise
        return (f"PLUGIN: {plain(error.message)}",)
    return tuple(shown_line(line) for line in found)


def _shown(study: Any, others: Sequence[Any]) -> Iterator[str]:
    plan = _plan(study)
    yield from in_words(plan)
    yield f"Here: {study.standing}. {charge_noun(plan, 2).capitalize()} charged so far: {study.rounds_charged}."
    if study.refused:
        yield plain(f"Refused because: {study.refused}")
    if study.fault:
        yield plain(f"Not allowed here: {study.fault}")
    if study.standing == "suspended":
        for one in study.suspended_by:
            yield f"Suspended: the key of {one.officer} was reported {one.reason} on {one.at[:10]}."
        yield (
            "If the plan is right, sign it again: "
            f"wardround site study approve FOLDER {study.digest[:12]} --officer-key FILE"
        )
    before = former(plan, [_Held(_plan(one), Standing(one.standing)) for one in others])
    if before is not None:
        yield f"Against plan {before.plan.digest[:12]}, which was approved here before:"
        yield from [f"  {line}" for line in differences(before.plan, plan)] or ["  nothing"]


def _left(study: Any, site: str) -> Iterator[str]:
    """What all studies together have spent of each data domain, and how much of this plan would still fit."""
    plan = _plan(study)
    for budget in study.budgets:
        left = max(0, budget.allowance - budget.spent)
        line = f"Data domain '{budget.domain}': {-(-100 * budget.spent // budget.allowance)} % of its budget is spent"
        event = charge_for(plan, site, budget.domain)
        if isinstance(event, PoissonGaussian):
            fit = left // cost(event, budget.order)
            line += f"; {fit} more {charge_noun(plan, fit)} of this plan would fit (it has {plan.charges})"
        yield plain(line) + "."


def _cost(plan: StudyPlan, site: str, domains: Sequence[str], attempts: int) -> Iterator[str]:
    """What the grant allows the study to cost, by the planner's accountant, on every domain that it is for."""
    from wardround.privacy.accounting import epsilon, rounded_up
    from wardround.privacy.meaning import AGAINST, AGAINST_CONSORTIUM, conditions, meaning

    charges, delta = plan.charges * attempts, plan.privacy.delta
    for domain in domains:
        event = charge_for(plan, site, domain)
        if not isinstance(event, PoissonGaussian) or delta is None:
            continue
        spent = epsilon([event] * charges, delta)
        against = AGAINST_CONSORTIUM if domain == CONSORTIUM_DOMAIN else AGAINST
        terms = conditions(delta, against)
        granted = f"{charges} {charge_noun(plan, charges)}"
        yield f"You would grant {granted} on '{domain}': epsilon {rounded_up(spent)} {terms}."
        right = 100 * meaning(spent, delta).gaussian
        yield (
            f"That means: an attacker who wrongly accuses 1 in 100 people that were not in the data rightly accuses at "
            f"most {right:.1f} in 100 that were (for Gaussian noise)."
        )


def _record(site: Any, ledger_key: str, facts: Sequence[Any], officers: Sequence[Identity]) -> None:
    contents = []
    for fact in facts:
        for officer in officers:
            fact = approve(fact, ledger_key, officer)
        contents.append(fact.model_dump_json().encode())
    site.Record(pb.RecordRequest(facts=contents), timeout=SECONDS)


def _find(site: Any, wanted: str, sure: bool = False) -> tuple[Any, list[Any]]:
    """(the study that is wanted, all others): by its digest or the beginning of it, or the newest of a study's name.

    ``sure``: nobody looks at what was found, so a name must be of one plan only.
    """
    studies = list(site.ListStudies(pb.Empty(), timeout=SECONDS).studies)
    named = [one for one in studies if _plan(one).study == wanted]
    if sure and len(named) > 1:
        which = ", ".join(one.digest[:12] for one in named)
        raise UsageError(f"{len(named)} plans of the study '{plain(wanted)}' are here", f"name the one meant: {which}")
    begin = [one for one in studies if one.digest.startswith(wanted) and len(wanted) >= LEAST_PREFIX]
    # A coordinator may name a study like the digest of another plan: then neither is meant for sure.
    found = [*named[:1], *(one for one in begin if one not in named)]
    if len(found) != 1:
        known = ", ".join(f"{plain(_plan(one).study)} ({one.digest[:12]})" for one in studies) or "none"
        raise UsageError(f"there is no one plan '{plain(wanted)}' here", f"proposed so far: {known}")
    return found[0], [one for one in studies if one.digest != found[0].digest]


def _plan(study: Any) -> StudyPlan:
    """The plan, from its bytes, whose digest is computed here and must be the one that the daemon named."""
    plan = StudyPlan.parse(bytes(study.plan))
    if plan.digest != study.digest:
        raise UsageError("the daemon shows a plan that is not the one of its digest", "do not sign; tell IT")
    return plan


def _site_name(site: Any) -> str:
    return str(site.Status(pb.StatusRequest(), timeout=SECONDS).site)
