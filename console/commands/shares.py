"""``wardround privacy plan`` in mode dist: both curves of every hospital, and the limit that sets the share."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from wardround.privacy.accounting import rounded_up
from wardround.privacy.meaning import ADJACENCY, UNIT, conditions
from wardround.privacy.planner import CurveCost, gaussian, plan_delta, rounds_within_epsilon
from wardround.privacy.shares import Share, consortium_costs, shares_for, who_may_collude
from wardround.protocol.plan import Claim, StudyPlan

if TYPE_CHECKING:
    from wardround.privacy.books import Domain

_NAMES: Final = {
    "epsilon_consortium": "ε consortium",
    "epsilon_site": "ε site",
    "budget_consortium": "consortium budget",
    "budget_site": "budget against everyone",
}


def consortium_facts(
    plan: StudyPlan,
    targets: Sequence[float],
    epsilon_cap: float,
    consortium_cap: float,
    attempts: int,
    domains: Mapping[str, "Domain"],
    consortium_domains: Mapping[str, "Domain"],
) -> tuple[dict[str, Any], list[CurveCost]]:
    """What mode dist adds to the JSON of a plan, and the second curve of each site."""
    terms = plan.privacy
    limit, delta = terms.epsilon_consortium, plan_delta(plan)
    assert limit is not None
    costs = consortium_costs(plan, consortium_cap, attempts=attempts, domains=consortium_domains)
    own, *others = shares_for(
        plan, (limit, *targets), epsilon_cap, consortium_cap,
        attempts=attempts, domains=domains, consortium_domains=consortium_domains,
    )  # fmt: skip
    event = gaussian(plan.consortium_event(plan.participants[0].site))
    return {
        "consortium": {
            "claimed": plan.privacy.claim is Claim.EPSILON_BOTH,
            "against": who_may_collude(plan),
            "delta": delta,
            "unit": UNIT,
            "adjacency": ADJACENCY,
            "sum_threshold": plan.sum_threshold,
            "honest_shares": plan.honest_sites,
            "noise_of_shares": event.noise_multiplier,
            "epsilon_limit": limit,
            "within_limit": costs[0].epsilon_at_most <= limit,
            "rounds_within_limit": rounds_within_epsilon(event, limit, delta, attempts),
            "epsilon_cap": consortium_cap,
        },
        "share": _share(own),
        "share_for": [_share(one) for one in others],
    }, costs


def curve(cost: CurveCost) -> dict[str, Any]:
    """One curve of one site in JSON."""
    return {
        **asdict(cost),
        "headroom_units": cost.left_units - cost.needed_units,
        "epsilon_shown": rounded_up(cost.epsilon),
        "epsilon_at_most_shown": rounded_up(cost.epsilon_at_most),
    }


def terms_lines(found: dict[str, Any]) -> Iterator[str]:
    """The first sentences under the table: both epsilons with every term, and which limit sets the share."""
    both, site, delta = found["consortium"], found["sites"][0], found["delta"]
    together = site["consortium"]
    yield (
        f"ε site {site['epsilon_at_most_shown']} (limit {found['epsilon_limit']:g}) {conditions(delta)}: the noise of "
        "the hospital's own share. "
        f"ε consortium {together['epsilon_at_most_shown']} (limit {both['epsilon_limit']:g}) "
        f"{conditions(delta, both['against'])}: every sum that is opened holds at least {both['sum_threshold']} of "
        f"{len(found['sites'])} hospitals, and the noise of {both['honest_shares']} shares that stay unknown. Both "
        "rounded up."
    )
    if not both["claimed"]:
        yield (
            "ε consortium is not claimed: one authority directs the coordinator and a hospital, so only ε site is. Its "
            "budget is charged all the same."
        )
    if not both["within_limit"]:
        yield (
            f"Above the plan's own limit: ε consortium {both['epsilon_limit']:g} (same terms). It would be refused "
            "before the first round."
        )


def share_lines(found: dict[str, Any]) -> Iterator[str]:
    """Which limit binds, what each of the four asks for, and what other targets of epsilon_consortium would need."""
    share, both = found["share"], found["consortium"]
    limits = {"epsilon_consortium": both["epsilon_limit"], "epsilon_site": found["epsilon_limit"]}
    said = {name: f"{_NAMES[name]} (limit {limit:g})" for name, limit in limits.items()}
    said |= {name: f"{_NAMES[name]}{_of(share)}" for name in _NAMES if name not in said}
    rest = ", ".join(
        f"{_NAMES[name]} {_number(noise)}" for name, noise in share["asked"].items() if name != share["binds"]
    )
    yield (
        f"What binds: {said[share['binds']]}, with a share of {_number(share['noise_multiplier'])}. Asked by the "
        f"others: {rest}. This plan has {found['noise_multiplier']:g}."
    )
    if share["gain"] is not None:
        gain = share["gain"]
        told = f"{gain:.2f} times less noisy" if gain >= 1 else f"{1 / gain:.2f} times noisier"
        yield (
            f"With that share a mean is {told} than with privacy=local and the same "
            f"epsilon ({both['epsilon_limit']:g}, noise {share['whole']:.2f} at every hospital); "
            f"{both['honest_shares'] ** 0.5:.2f} would be the most with {len(found['sites'])} hospitals."
        )
    rounds = found["rounds"] * found["attempts"] * found["steps_each_round"]
    needs = "; ".join(f"ε consortium {one['epsilon']:g} needs {_needed(one)}" for one in found["share_for"])
    yield (
        f"Share for {rounds:,} steps, with ε site at most {found['epsilon_limit']:g} and both budgets kept (same "
        f"terms): {needs}."
    )


def headroom_line(found: dict[str, Any]) -> str:
    """What the filter of each curve has left after this study, at the hospital that has least."""

    def least(costs: list[dict[str, Any]]) -> str:
        tightest = min(costs, key=lambda cost: cost["headroom_units"] / cost["domain_units"])
        share = 100 * tightest["headroom_units"] // tightest["domain_units"]
        return (
            f"{share} % at {tightest['site']}" if share >= 0 else f"none, {-share} % are missing at {tightest['site']}"
        )

    return (
        "Headroom of the filter after this study, where it is least: against everyone "
        f"{least(found['sites'])}; consortium {least([at['consortium'] for at in found['sites']])}."
    )


def _share(found: Share) -> dict[str, Any]:
    return {
        "epsilon": found.target,
        "noise_multiplier": found.noise_multiplier,
        "binds": found.binds,
        "asked": dict(found.asked),
        "whole": found.whole,
        "gain": found.gain,
        "tightest_site": found.tightest_site,
    }


def _needed(share: dict[str, Any]) -> str:
    text = _number(share["noise_multiplier"])
    if share["noise_multiplier"] is None or share["binds"] == "epsilon_consortium":
        return text
    alone = _number(share["asked"]["epsilon_consortium"])
    return f"{text} ({_NAMES[share['binds']]}{_of(share)} binds; it alone needs {alone})"


def _of(share: dict[str, Any]) -> str:
    """The site that a budget belongs to, where one binds."""
    return f" of {share['tightest_site']}" if share["binds"].startswith("budget") else ""


def _number(noise: float | None) -> str:
    return "more than 1000" if noise is None else f"{noise:g}"
