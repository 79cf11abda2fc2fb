"""``wardround audit``: attack a study with its own training code, and compare with what was accounted."""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from typing import Final, NoReturn

import typer

from wardround.conf.compose import compose_configuration
from wardround.conf.planning import make_plan
from wardround.conf.schema import parse_configuration
from wardround.privacy.accounting import rounded_up
from wardround.privacy.meaning import ADJACENCY, AGAINST, UNIT, conditions
from wardround.privacy.planner import plan_delta
from wardround.privacy.shares import who_may_collude
from wardround.protocol.errors import WardroundError
from wardround.protocol.plan import Claim, StudyPlan
from wardround.simulations.attacks.audit import Audit, Row, audit
from wardround.simulations.attacks.bounds import CONFIDENCE
from wardround.simulations.attacks.consortium import CANARIES, audit_of
from wardround.simulations.cohorts import gather

CONTRADICTED: Final = 1
"""Exit code, so that a script can tell a refuted epsilon from a command that was used wrongly (2)."""


def audit_command(overrides: Sequence[str], quick: bool, as_json: bool) -> None:
    """Print what each attack found at the study's largest site; contradict loudly when it refutes the epsilon."""
    configuration = parse_configuration(compose_configuration(overrides))
    gathered = gather(configuration)
    plan = make_plan(configuration, gathered.declared, date.today())
    cohort = max(gathered.taking_part, key=lambda one: one.train.patients)
    started = time.perf_counter()
    found = audit(plan, cohort, quick=quick)
    sums = None
    if plan.privacy.claim is Claim.EPSILON_BOTH:
        sums = audit_of(plan, CANARIES // 4 if quick else CANARIES)
    if as_json:
        terms = {"unit": UNIT, "adjacency": ADJACENCY, "against": AGAINST, "confidence": CONFIDENCE}
        summary = {
            "study": plan.study,
            "lower": found.lower,
            "visible": found.visible,
            "contradicted": found.contradicted,
        }
        together = None if sums is None else asdict(sums) | {
            "contradicted": sums.contradicted, "against": who_may_collude(plan), "unit": UNIT, "adjacency": ADJACENCY,
        }  # fmt: skip
        typer.echo(json.dumps(asdict(found) | summary | terms | {"consortium": together}, indent=2, allow_nan=False))
    else:
        _show(found, plan.title, time.perf_counter() - started)
        if sums is not None:
            typer.echo(
                f"Secure sums: ε consortium at least {sums.epsilon:.2f}, with 95 % confidence; accounted: at most "
                f"{rounded_up(sums.upper)} {_together(plan)}. {sums.hits:,} of {sums.members:,} canaries that were in "
                f"were found, with {sums.alarms:,} false alarms among {sums.others:,} that were not."
            )
    if found.contradicted:
        _contradict(found.lower, found.upper, conditions(found.delta))
    if sums is not None and sums.contradicted:
        _contradict(sums.epsilon, sums.upper, _together(plan))


def _together(plan: StudyPlan) -> str:
    """What must stand near an epsilon_consortium."""
    return conditions(plan_delta(plan), who_may_collude(plan))


def _contradict(lower: float, upper: float, terms: str) -> NoReturn:
    contradiction = WardroundError(
        f"THE AUDIT CONTRADICTS THE ACCOUNTING: epsilon is above {lower:.2f} with 95 % confidence, and "
        f"{rounded_up(upper)} was accounted ({terms})",
        "do not release anything of this study; run it once more (by chance, an honest one is contradicted in "
        "3 of 20 runs at most), then report it as a weakness",
    )
    print(contradiction.lines(), file=sys.stderr)
    raise typer.Exit(CONTRADICTED)


def _show(found: Audit, title: str, seconds: float) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, title=Text(title), title_justify="left",
                  title_style="bold")  # fmt: skip
    table.add_column("Attack", overflow="fold", min_width=12)
    for name in ("Unprotected", "Study", "ε at least"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in found.rows:
        table.add_row(
            Text(f"{row.attack}\n").append(_measure(row), "dim"),
            _figures(row)[0] + ("" if row.succeeds else " !"),
            _figures(row)[1],
            "" if row.epsilon is None else f"{row.epsilon:.2f}",
        )
    console.print(table)
    lines = [
        f"Accounted: ε at most {rounded_up(found.upper)} {conditions(found.delta)}; rounded up.",
        f"Found: ε at least {found.lower:.2f} (same terms), with 95 % confidence for each attack by itself.",
        f"Attacked: the training patients of '{found.site}', the study's largest site, in {seconds:.0f} s.",
        f"A leak of up to ε {found.visible:.2f} is all that these attacks can show: that is what they find in the "
        "unprotected run.",
        "An audit can refute an epsilon. It never confirms one: a better attack may find more.",
    ]
    if found.visible <= found.upper:
        lines.append("The accounted epsilon is larger than that, so no result of this audit could have refuted it.")
    for row in found.rows:
        if not row.succeeds:
            lines.append(f"! '{row.attack}' has no power here: its control without protection failed.")
        if row.gives_away:
            lines.append(f"! '{row.attack}' succeeds under the study's own terms, too: one step gives a record away "
                         "(with two or three columns, chance does).")  # fmt: skip
    for line in lines:
        console.print(Text(line))


def _measure(row: Row) -> str:
    return row.measure if row.members is None else "members found at 1 / 10 % false alarms; area under ROC"


def _figures(row: Row) -> tuple[str, str]:
    """Without protection, and the study."""
    if row.members is not None:
        found = [f"{100 * one.found_at_1:.0f} / {100 * one.found_at_10:.0f} %; {one.auc:.2f}" for one in row.members]
        return found[0], found[1]
    values = (row.control, row.study)
    one, other = (f"{v:.2f}" if row.attack.startswith("inversion") else f"{100 * v:.0f} %" for v in values)
    return one, other
