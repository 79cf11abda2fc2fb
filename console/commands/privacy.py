"""``wardround privacy``: the calculator, an epsilon in words, and what a study would cost. Nothing is charged."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer
from pydantic import ValidationError

from wardround.privacy.accounting import epsilon, rounded_up
from wardround.privacy.meaning import (
    ADJACENCY,
    AGAINST,
    LARGEST_EPSILON,
    UNIT,
    conditions,
    officers_words,
)
from wardround.protocol.errors import UsageError
from wardround.protocol.events import PoissonGaussian
from wardround.protocol.plan import PrivacyMode

if TYPE_CHECKING:
    from wardround.privacy.books import Domain

MOST_STEPS: Final = 100_000
LEAST_NOISE: Final = 0.05
MOST_NOISE: Final = 1e6
LEAST_PROBABILITY: Final = 1e-9
LEAST_DELTA: Final = 1e-15
"""Beyond these an accountant's numbers, or its memory, run out, and no study is meant."""

TARGETS: Final = (1.0, 3.0, 8.0)
"""The epsilons for which a plan's noise multiplier is shown."""

ACCOUNTANT: Final = "dp-accounting: the smaller of Renyi DP and privacy loss distributions"


def epsilon_command(events: Sequence[str], delta: float, as_json: bool) -> None:
    """Print the epsilon of ``events``, each ``SIGMA,Q,STEPS``, all together."""
    parsed = [_event(text) for text in events]
    if delta < LEAST_DELTA and delta > 0:
        raise UsageError(f"a delta of {delta:g} is beyond this accountant", f"give at least {LEAST_DELTA:g}")
    if sum(event.steps for event in parsed) > MOST_STEPS:
        raise UsageError("that is more steps than any study takes", f"give at most {MOST_STEPS:,} in all")
    with _checked_accountant():
        value = epsilon(parsed, delta)
    if not value <= LARGEST_EPSILON:
        raise UsageError(
            f"epsilon is above {LARGEST_EPSILON:g} at delta {delta:g}: that protects nobody, whatever the number is",
            "use larger noise multipliers, smaller sampling probabilities or fewer steps",
        )
    if not as_json:
        typer.echo(f"epsilon {rounded_up(value)} {conditions(delta)}; rounded up.")
        return
    told = [{"noise_multiplier": e.noise_multiplier, "sampling_probability": e.sampling_probability, "steps": e.steps}
            for e in parsed]  # fmt: skip
    _print_json({"epsilon": value, "epsilon_shown": rounded_up(value), **_terms(delta), "events": told})


def explain_command(value: float, delta: float) -> None:
    """Print what ``value`` means at ``delta``."""
    typer.echo(officers_words(value, delta))


def plan_command(overrides: Sequence[str], attempts: int, as_json: bool, ledgers: Sequence[Path] = ()) -> None:
    """Print what the study that ``overrides`` describe would cost each hospital, and what would fit.

    ``ledgers`` are files of sites, whose training patients then have what these say is left; they are only read.
    """
    from wardround.client.governance import CONSORTIUM_DOMAIN, TRAINING_DOMAIN
    from wardround.conf.planning import make_plan
    from wardround.console.commands.phase import phase_facts
    from wardround.console.commands.shares import consortium_facts, curve
    from wardround.privacy.planner import gaussian, noise_for, rounds_within_epsilon, site_costs, small_batches
    from wardround.simulations.cohorts import declared_patients
    from wardround.simulations.plugins.configured import configuration_of

    configuration = configuration_of(overrides)
    read = [_domains(path) for path in ledgers]
    domains = {site: held[TRAINING_DOMAIN] for site, held in read}
    together = {site: held[CONSORTIUM_DOMAIN] for site, held in read if CONSORTIUM_DOMAIN in held}
    if len(domains) < len(ledgers):
        raise UsageError("two of the ledgers are of the same site", "give each site's ledger once")
    with _checked_accountant():
        plan = make_plan(configuration, declared_patients(configuration), date.today())
        cap, dist = configuration.epsilon_cap, plan.privacy.mode is PrivacyMode.DIST
        costs = site_costs(plan, cap, attempts=attempts, domains=domains)
        event, terms = gaussian(plan.round_event(plan.participants[0].site)), plan.privacy
        assert terms.epsilon is not None and terms.delta is not None
        rounds = rounds_within_epsilon(event, terms.epsilon, terms.delta, attempts)
        noise = [] if dist else noise_for(plan, TARGETS, cap, attempts=attempts, domains=domains)
        if dist:
            more, second = consortium_facts(
                plan, TARGETS, cap, configuration.consortium_cap, attempts, domains, together
            )
    found: dict[str, Any] = {
        "study": plan.study,
        "title": plan.title,
        "plan": plan.digest,
        "mode": terms.mode.value,
        **_terms(terms.delta),
        "rounds": plan.rounds,
        "steps_each_round": event.steps,
        "attempts": attempts,
        "noise_multiplier": event.noise_multiplier,
        "sampling_probability": event.sampling_probability,
        "clip_norm": terms.clip_norm,
        "epsilon_limit": terms.epsilon,
        "within_limit": costs[0].epsilon_at_most <= terms.epsilon,
        "rounds_within_limit": rounds,
        "epsilon_cap": cap,
        "sites": [
            {
                **asdict(site),
                "epsilon_shown": rounded_up(site.epsilon),
                "epsilon_at_most_shown": rounded_up(site.epsilon_at_most),
                "rounds_that_fit": min(site.rounds_in_domain, rounds),
            }
            for site in costs
        ],
        "ledgers": sorted(domains),
        "noise_for": [
            {
                "epsilon": item.target,
                "noise_multiplier": item.noise_multiplier,
                "for_epsilon": item.for_epsilon,
                "for_budget": item.for_budget,
                "binds": item.binds,
                "tightest_site": item.tightest_site,
            }
            for item in noise
        ],
        "warnings": small_batches(plan),
    }
    if dist:
        found |= more
        for at, cost in zip(found["sites"], second, strict=True):
            least = min(at["rounds_that_fit"], cost.rounds_in_domain, more["consortium"]["rounds_within_limit"])
            at |= {"consortium": curve(cost), "rounds_that_fit": least}
            at["headroom_units"] = at["left_units"] - at["needed_units"]
    if plan.evaluation_plan is not None:
        found["evaluation"] = phase_facts(plan.evaluation_plan, cap, attempts)
    if as_json:
        _print_json(found)
    else:
        _show(found)


def _show(found: dict[str, Any]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console, attempts = Console(), found["attempts"]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, title=Text(found["title"]),
                  title_justify="left", title_style="bold")  # fmt: skip
    table.add_column("Hospital", overflow="fold", min_width=8)
    dist, once = "consortium" in found, attempts == 1
    local_costs = ("Noise", "ε" if once else "ε at most", "Budget")
    costs = ("ε site", "Budget", "ε cons.", "Budget") if dist else local_costs
    for name in ("Patients", "Batch", *costs, "More", "Rounds"):
        table.add_column(name, justify="right", no_wrap=True)
    for site in found["sites"]:
        curves = [site, *([site["consortium"]] if dist else [])]
        table.add_row(
            Text(site["site"], "bold"),
            f"{site['declared_patients']:,}",
            f"{site['expected_batch']:.1f}{' *' if site['small_batch'] else ''}",
            *([] if dist else [f"{site['noise_on_mean']:.2g}"]),
            *(cell for one in curves for cell in (one["epsilon_at_most_shown"], _used(one))),
            str(min(one["more_studies"] for one in curves)) if all(one["fits"] for one in curves) else "no fit",
            f"{site['rounds_that_fit']:,}",
        )
    console.print(table)
    for line in _below(found):
        console.print(Text(line))


def _below(found: dict[str, Any]) -> Iterator[str]:
    """Sentences under the table: the terms of every epsilon, and how each column was counted."""
    from wardround.console.commands.phase import phase_lines
    from wardround.console.commands.shares import headroom_line, share_lines, terms_lines

    rounds, attempts, limit = found["rounds"], found["attempts"], found["epsilon_limit"]
    delta, site, both = found["delta"], found["sites"][0], found.get("consortium")
    if both:
        yield from terms_lines(found)
    else:
        yield f"ε {conditions(delta)}; rounded up."
    if attempts > 1:
        once = f"ε {site['epsilon_shown']}"
        if both:
            once = f"ε site {site['epsilon_shown']} and ε consortium {site['consortium']['epsilon_shown']}"
        yield (
            f"At most: {rounds} rounds with {attempts} attempts each, all of them charged. Without a second attempt it "
            f"is {once}. Budget, More and Rounds count every attempt."
        )
    if not found["within_limit"]:
        yield (
            f"Above the plan's own limit: ε {'site ' if both else ''}{limit:g} (same terms). It would be refused "
            "before the first round."
        )
    if both:
        yield from share_lines(found)
    yield (
        "Batch: patients expected in a step."
        if both
        else "Batch: patients expected in a step. Noise: standard deviation on each coordinate of the mean gradient, "
        f"where one patient's gradient has a length of {found['clip_norm']:g} at most."
    )
    caps = _caps(found["sites"])
    if both:
        caps = f"against everyone {caps}; consortium {_caps([at['consortium'] for at in found['sites']])}"
    read = found["ledgers"]
    where = "in domains that have spent nothing yet"
    if read:
        elsewhere = "" if len(read) == len(found["sites"]) else f"; elsewhere {where}"
        where = f"at {', '.join(read)} as the ledger says{elsewhere}"
    yield (
        f"Budget: share of what the hospital's training patients may spend in their lifetime ({caps}; same unit, "
        f"adjacency and attackers), measured by the filter that admits rounds, {where}. More: how many more studies "
        f"like this one fit after it{', on both' if both else ''}."
    )
    for at in found["sites"]:
        if at["site"] in read:
            yield f"{at['site']}: {_percent_down(at['left_units'], at['domain_units'])} % of its budget is left."
    if both:
        yield headroom_line(found)
        yield "Rounds: the most that keep both of the plan's limits and fit into both budgets, with this share."
    else:
        yield (
            f"Rounds: the most that keep the plan's limit (ε {limit:g}, which {found['rounds_within_limit']:,} keep) "
            "and fit into the budget, with this noise."
        )
        noise = "; ".join(f"ε {item['epsilon']:g} needs {_needed(item)}" for item in found["noise_for"])
        yield (
            f"Noise multiplier for {rounds * attempts * found['steps_each_round']:,} steps (same terms), so that both "
            f"the target and every budget are kept: {noise}. This plan has {found['noise_multiplier']:g}."
        )
    if "evaluation" in found:
        yield from phase_lines(found["evaluation"], delta)
    for warning in found["warnings"]:
        yield f"* {warning}."


def _used(cost: dict[str, Any]) -> str:
    return f"{_percent_up(cost['needed_units'], cost['domain_units'])} %"


def _caps(costs: Sequence[dict[str, Any]]) -> str:
    return "; ".join(sorted({f"cap ε {at['epsilon_cap']:g} at delta {at['domain_delta']:g}" for at in costs}))


def _needed(item: dict[str, Any]) -> str:
    if item["noise_multiplier"] is None:
        return "more than 1000"
    text = f"{item['noise_multiplier']:.2f}"
    if item["binds"] == "budget":
        text += f" (the budget of {item['tightest_site']} binds; ε alone needs {item['for_epsilon']:.2f})"
    return text


def _domains(path: Path) -> tuple[str, dict[str, "Domain"]]:
    """(site, its data domains by name) as the ledger in the file ``path`` says. The file is only read."""
    from wardround.client.governance import TRAINING_DOMAIN
    from wardround.client.store.database import explained, open_copy
    from wardround.client.store.ledger import stored_entries
    from wardround.privacy.ledger import LedgerState
    from wardround.protocol.entry import parse_content

    store, state = open_copy(path), LedgerState()
    with explained(path):
        sites = [site for (site,) in store.execute("SELECT DISTINCT site FROM entries")]
        if len(sites) != 1:
            raise UsageError(f"'{path}' holds the ledgers of {len(sites)} sites", "a hospital's file holds one")
        try:
            for entry in stored_entries(store, sites[0]):
                state.apply(parse_content(entry.content).fact)
        except ValidationError:
            raise UsageError(
                f"'{path}' has an entry that this version does not know", "run: wardround ledger verify FILE"
            ) from None
    if TRAINING_DOMAIN not in state.domains:
        raise UsageError(
            f"the ledger of '{sites[0]}' has no data domain '{TRAINING_DOMAIN}'", "its officer opens it first"
        )
    return sites[0], dict(state.domains)


def _percent_down(part: int, whole: int) -> int:
    return 100 * part // whole


def _percent_up(part: int, whole: int) -> int:
    return -(-100 * part // whole)


def _event(text: str) -> PoissonGaussian:
    try:
        sigma, q, steps = text.split(",")
        event = PoissonGaussian(
            noise_multiplier=float(sigma), sampling_probability=float(q), steps=int(steps), declared_patients=1
        )
        sensible = LEAST_NOISE <= event.noise_multiplier <= MOST_NOISE and event.steps <= MOST_STEPS
        if not (sensible and event.sampling_probability >= LEAST_PROBABILITY):
            raise ValueError(text)
    except (ValidationError, ValueError):
        raise UsageError(
            f"'{text}' is no event",
            f"write SIGMA,Q,STEPS: a noise multiplier from {LEAST_NOISE:g} to {MOST_NOISE:,.0f}, a sampling "
            f"probability from {LEAST_PROBABILITY:g} to 1, 1 to {MOST_STEPS:,} steps, for example 2.84,0.25,75",
        ) from None
    return event


def _terms(delta: float) -> dict[str, Any]:
    """What stands beside every epsilon in JSON."""
    return {"delta": delta, "unit": UNIT, "adjacency": ADJACENCY, "against": AGAINST, "accountant": ACCOUNTANT}


@contextmanager
def _checked_accountant() -> Iterator[None]:
    try:
        yield
    except ArithmeticError:
        raise UsageError(
            "the accountant's own check failed, so there is no epsilon to show",
            "take a larger delta, more noise or fewer steps",
        ) from None


def _print_json(data: dict[str, Any]) -> None:
    typer.echo(json.dumps(data, indent=2, allow_nan=False))
