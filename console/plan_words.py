"""A plan in words: all that an officer answers for when she approves it, and what changed since she last did.

Others wrote the plan, so its texts are shown with every control character spelt out: no title clears the screen,
starts a line of its own or turns the direction of writing (CWE-150).
"""

import re
from collections.abc import Iterator
from typing import Any

from wardround.console.reports.task_words import label_words, weights_words
from wardround.console.reports.words import picture_words
from wardround.privacy.meaning import conditions
from wardround.protocol.contract import DataContract, NumberColumn
from wardround.protocol.plan import Claim, PrivacyMode, StudyPlan
from wardround.protocol.secagg import colluding


def plain(text: str) -> str:
    """``text`` on one line, as a terminal may show it: what is not printable is escaped, wide gaps are closed."""
    shown = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    return re.sub(r"(?<=\S) {2,}", " ", shown)


def in_words(plan: StudyPlan) -> Iterator[str]:
    """Every term of the plan, in the order in which people ask."""
    return map(plain, _in_words(plan))


def _in_words(plan: StudyPlan) -> Iterator[str]:
    about = plan.governance
    yield f"{plan.title}"
    yield f"Plan {plan.digest}"
    yield f"Purpose: {about.purpose}"
    yield f"Controllers: {', '.join(f'{one.name} ({one.role})' for one in about.controllers)}"
    yield f"Legal basis: {about.legal_basis}. Ethics: {about.ethics_reference}."
    yield f"Who receives the model: {', '.join(about.recipients)}. Permitted use: {about.permitted_use}"
    yield f"Proposed {about.proposed_on}, expires {about.expires_on}."
    yield from _takes_part(plan)
    if plan.contract is not None:
        yield from _columns(plan.contract)
    yield from _training(plan)
    yield from _leaves(plan)
    yield from protection(plan)
    yield f"Code: version {plan.code_version}, behaviour {plan.behaviour}"


def protection(plan: StudyPlan) -> Iterator[str]:
    """How patients are protected, and from whom; plainly so where the answer is: not."""
    terms, sites = plan.privacy, len(plan.participants)
    if sites < 3:
        yield f"THIS IS A PILOT OF {sites} HOSPITAL{'S' * (sites > 1)}: there is no secure aggregation."
        yield "The coordinator sees each hospital's own update; noise alone protects its patients."
    elif not terms.secure_aggregation:
        yield "THERE IS NO SECURE AGGREGATION: the coordinator sees each hospital's own update."
    else:
        yield f"The coordinator learns sums over at least {plan.sum_threshold} hospitals, never one hospital's update,"
        yield f"as long as it colludes with at most {colluding(sites)} of the {sites}."
    if terms.claim is Claim.SIMULATION_ONLY:
        yield "THERE IS NO PROTECTION AT ALL: for public or synthetic data only."
    elif terms.mode is PrivacyMode.NONE:
        yield "THERE IS NO DIFFERENTIAL PRIVACY: no epsilon bounds what the sums tell of a patient."
    elif terms.delta is not None and terms.epsilon is not None:
        yield f"Epsilon of the whole study: at most {terms.epsilon:g} {conditions(terms.delta)}."
        if terms.epsilon_consortium is not None and terms.claim is Claim.EPSILON_BOTH:
            against = f"the coordinator and at most {max(colluding(sites), 1)} other hospital(s)"
            yield f"Against {against} only: at most {terms.epsilon_consortium:g} {conditions(terms.delta, against)}."
    if terms.outsiders_only:
        yield "One authority directs the coordinator and a hospital: sums are hidden from outsiders only."


def differences(before: StudyPlan, plan: StudyPlan) -> Iterator[str]:
    """What changed since a plan of the same study that was approved here before: in full, nothing is cut off."""
    old, new = (one.model_dump(mode="json") for one in (before, plan))
    for path, was, is_ in _changes("", old, new):
        yield plain(f"{path}: {_shown(is_)}, before {_shown(was)}")


def _takes_part(plan: StudyPlan) -> Iterator[str]:
    names = ", ".join(f"{one.site} (about {one.declared_patients:,} patients)" for one in plan.participants)
    yield f"Takes part: {names}."
    must = f"; {', '.join(plan.must_include)} must be in every round" if plan.must_include else ""
    yield f"A round needs {plan.quorum} of {len(plan.participants)} hospitals{must}; it is tried {plan.attempts} times."


def _columns(contract: DataContract) -> Iterator[str]:
    yield "Columns that are read at your site:"
    if contract.image is not None:
        yield f"  {picture_words(contract.image)}"
    for column in contract.columns:
        if isinstance(column, NumberColumn):
            yield f"  {column.name}: {column.meaning}, {column.minimum:g} to {column.maximum:g} {column.unit}"
        else:
            yield f"  {column.name}: {column.meaning} ({', '.join(column.codes.values())})"
    yield f"  {', '.join(contract.label.columns)}: what the model predicts. {label_words(contract)}"
    if contract.patient_id is not None:
        yield f"  {contract.patient_id}: tells patients apart; it never leaves the site"


def _training(plan: StudyPlan) -> Iterator[str]:
    local = plan.local
    length = f"{local.steps} steps" if local.steps is not None else f"{local.epochs} passes over the data"
    yield f"Model: {plan.task.name}, {plan.layout.size:,} parameters; strategy {plan.strategy.name}."
    yield from (f"{words}." for words in weights_words(plan))
    yield f"{plan.rounds} rounds of {length} at your site; each is waited for {plan.deadline_seconds:g} s at most."


def _leaves(plan: StudyPlan) -> Iterator[str]:
    masked = ", under masks" if plan.privacy.secure_aggregation else ", readable by the coordinator"
    yield f"What leaves your site in a round: one vector{masked}, and signatures. No loss, count, metric or text."


def _changes(path: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    """(where, before, now) of everything that differs; columns, sites and people are compared by their names."""
    if isinstance(old, list) and isinstance(new, list) and (named := _by_name(old, new)) is not None:
        old, new = named
        if [name for name in old if name in new] != [name for name in new if name in old]:
            yield f"{path} in the order", ", ".join(old), ", ".join(new)
    if isinstance(old, dict) or isinstance(new, dict):
        ours, theirs = (one if isinstance(one, dict) else {} for one in (old, new))
        for key in dict.fromkeys([*theirs, *ours]):
            yield from _changes(f"{path}.{key}" if path else str(key), ours.get(key), theirs.get(key))
    elif old != new:
        yield path, old, new


def _by_name(*lists: list[Any]) -> tuple[dict[str, Any], ...] | None:
    """Lists of things that have names, by these; None if they have none, or if two share one."""
    made = []
    for one in lists:
        if not all(isinstance(item, dict) and ("name" in item or "site" in item) for item in one):
            return None
        named = {str(item.get("name", item.get("site"))): item for item in one}
        if len(named) != len(one):
            return None
        made.append(named)
    return tuple(made)


def _shown(value: Any) -> str:
    return "nothing" if value is None else str(value)
