"""What changed since a plan of the same study that was approved here: field by field, in full, nothing is cut off."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from wardround.console.i18n import N_, _
from wardround.console.plan_words import plain
from wardround.protocol.messages import Standing
from wardround.protocol.plan import StudyPlan


@dataclass(frozen=True, slots=True)
class Change:
    """``path`` is the field's place in the plan, ``words`` what it is about; None: it was, or is, not there."""

    path: str
    words: str
    before: str | None
    now: str | None


_WORDS: Final = {
    r"title": N_("Title"),
    r"governance\.purpose": N_("Purpose"),
    r"governance\.controllers\..*": N_("Controllers"),
    r"governance\.legal_basis": N_("Legal basis"),
    r"governance\.ethics_reference": N_("Ethics reference"),
    r"governance\.recipients": N_("Who receives the model"),
    r"governance\.permitted_use": N_("Permitted use"),
    r"governance\.proposed_on": N_("Proposed on"),
    r"governance\.expires_on": N_("Expires on"),
    r"contract\.label.*": N_("What the model predicts"),
    r"contract\.image.*": N_("Pictures"),
    r"contract\.patient_id": N_("Tells patients apart"),
    r"contract.*": N_("What is read at your site"),
    r"task.*": N_("Model"),
    r"model.*": N_("Weights that the first round begins from"),
    r"strategy.*": N_("Strategy"),
    r"local\.steps": N_("Steps at your site in a round"),
    r"local.*": N_("Training at your site"),
    r"rounds": N_("Rounds"),
    r"min_sites": N_("Hospitals that a round needs"),
    r"must_include": N_("Must be in every round"),
    r"evaluation.*": N_("Evaluated meanwhile"),
    r"fall_back_share": N_("Fall-back"),
    r"attempts": N_("Times that a void round is tried"),
    r"deadline_seconds": N_("Seconds that a round is waited for"),
    r"participants.*": N_("Who takes part"),
    r"privacy\.epsilon": N_("Epsilon of the whole study, at most"),
    r"privacy\.epsilon_consortium": N_("Epsilon against coordinator and colluding hospitals, at most"),
    r"privacy\.delta": N_("Delta"),
    r"privacy\.noise_multiplier": N_("Noise multiplier"),
    r"privacy\.sampling_probability": N_("Sampling probability"),
    r"privacy\.clip_norm": N_("Clip norm"),
    r"privacy\.secure_aggregation": N_("Secure aggregation"),
    r"privacy.*": N_("How patients are protected"),
    r"code_version": N_("Code version"),
    r"behaviour": N_("Behaviour"),
}
"""What a path is about, by the first pattern that is all of it; other paths speak for themselves."""


class Held(Protocol):
    """A plan that was proposed to a site, and how it stands."""

    @property
    def plan(self) -> StudyPlan: ...
    @property
    def standing(self) -> Standing: ...


_H = TypeVar("_H", bound=Held)


def former(plan: StudyPlan, held: Iterable[_H]) -> _H | None:
    """The newest of ``held``, which begin with it, that is another version of the study and was approved here."""
    approved = (Standing.APPROVED, Standing.REVOKED, Standing.SUSPENDED)
    return next(
        (
            one
            for one in held
            if one.plan.study == plan.study and one.plan.digest != plan.digest and one.standing in approved
        ),
        None,
    )


def changes(before: StudyPlan, plan: StudyPlan) -> Iterator[Change]:
    """Everything that differs, in the order of the plan."""
    old, new = (one.model_dump(mode="json") for one in (before, plan))
    for path, was, is_ in _changes("", old, new):
        yield Change(plain(path), path_words(path), _shown(was), _shown(is_))


def differences(before: StudyPlan, plan: StudyPlan) -> Iterator[str]:
    """The same as lines."""
    for change in changes(before, plan):
        now, was = (_("nothing") if one is None else one for one in (change.now, change.before))
        yield _("%(path)s: %(now)s, before %(was)s") % {"path": change.path, "now": now, "was": was}


def path_words(path: str) -> str:
    """What the field at ``path`` is about, or "" where its name says it."""
    return next((_(words) for pattern, words in _WORDS.items() if re.fullmatch(pattern, path)), "")


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


def _shown(value: Any) -> str | None:
    return None if value is None else plain(str(value))
