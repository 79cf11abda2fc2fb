"""A first ``mapping.yaml``: which local column may be which of the contract's, and why; nothing is guessed silently.

A column is proposed when its name says so and its values fit. Where several fit, or the values speak against the name,
or two units would both do, or the name is that of another quantity (LDL for cholesterol), the column is left open and
the reason is written down; a smaller doubt is written beside the rule. A person at the site decides. No value that
stands in few records is shown or written.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from wardround.client.connectors.units import conversion
from wardround.client.mapping.likely_units import FAR, FITS, UNITS, Likely, fit, likely_units, molar_mass_of
from wardround.client.mapping.profile import FEW, Profile
from wardround.client.mapping.quantities import quoted, said_otherwise, unknown_words
from wardround.client.mapping.vocabulary import answer_of, concepts_of, likeness, plain
from wardround.protocol.contract import CodeColumn, DataContract, NumberColumn
from wardround.protocol.errors import UsageError
from wardround.protocol.labels import Finding, SurvivalLabel, outcome_in

ALIKE: Final = 0.8
"""A name that is less like is not proposed."""

CLEARLY: Final = 0.5
"""One unit is taken over another when its median lies nearer to the centre by so many scales."""

STAND_FOR_MISSING: Final = (-1.0, -9.0, -99.0, -999.0, 0.0, 99.0, 999.0, 9999.0)


@dataclass(frozen=True, slots=True)
class Proposed:
    """One column of the contract: the rule that is proposed, empty: as it is under its own name, or None: left open.

    ``doubts``: what a person has to settle before the rule is used.
    """

    name: str
    rule: dict[str, Any] | None
    why: str
    doubts: tuple[str, ...] = ()

    @property
    def is_open(self) -> bool:
        return self.rule is None


class _Against(Exception):
    """A local column does not fit; the text says why and shows no rare value."""


def propose(contract: DataContract, found: Sequence[Profile]) -> list[Proposed]:
    """A proposal for every column that the contract reads, in its order."""
    return [_column(name, contract, found) for name in contract.column_names]


def _column(name: str, contract: DataContract, found: Sequence[Profile]) -> Proposed:
    meaning = _meaning(name, contract)
    ranked = sorted(((likeness(p.name, name, meaning), p) for p in found), key=lambda pair: -pair[0])
    alike = [(score, profile) for score, profile in ranked if score >= ALIKE]
    if not alike:
        return Proposed(name, None, f"no column's name is like '{name}' or means {meaning or 'the same'}")
    best = [profile for score, profile in alike if score >= alike[0][0] - 0.02]
    fitting, against = [], []
    for profile in best:
        try:
            _same_quantity(name, contract, profile.name)
            fitting.append((profile, *_rule(name, contract, profile)))
        except _Against as reason:
            against.append(f"'{profile.name}' {reason}")
    if len(fitting) > 1:
        names = ", ".join(f"'{profile.name}'" for profile, *_ in fitting)
        return Proposed(name, None, f"several columns fit: {names}")
    if not fitting:
        return Proposed(name, None, "; ".join(against))
    ((profile, rule, why),) = fitting
    said = "the name is the contract's" if plain(profile.name) == plain(name) else f"the name '{profile.name}' says so"
    source = {} if profile.name == name and not rule else {"from": profile.name}
    return Proposed(name, source | rule, f"{said}, and {why}", tuple(_doubts(name, contract, profile, rule)))


def _same_quantity(name: str, contract: DataContract, local: str) -> None:
    """Raises _Against where one of the two names says more than the other; only what is measured is looked at."""
    column = next((column for column in contract.columns if column.name == name), None)
    if column is None or plain(local) == plain(name):
        return
    if (other := said_otherwise(local, name, column.meaning)) is not None:
        quantity, word = other
        where = "its name" if word in plain(local) else "the contract's name or meaning"
        raise _Against(f"may be another quantity than '{column.meaning}': {where} says '{word}' ({quantity})")


def _doubts(name: str, contract: DataContract, profile: Profile, rule: dict[str, Any]) -> Iterator[str]:
    meaning = _meaning(name, contract)
    if plain(profile.name) != plain(name):
        if not concepts_of(profile.name) & concepts_of(name, meaning):
            yield f"the names '{profile.name}' and '{name}' are only alike in letters; check that both mean the same"
        elif more := unknown_words(profile.name, name, meaning):
            yield f"the name '{profile.name}' also says {quoted(more)}; check that it is the same quantity"
    words = [word for word in profile.absent if word not in contract.missing_tokens]
    rare = min((profile.values[word] for word in [*words, *(profile.filled if "codes" in rule else [])]), default=FEW)
    if rare < FEW:
        yield f"values in fewer than {FEW} records each are neither shown nor in the rule; add them yourself"


def _meaning(name: str, contract: DataContract) -> str:
    if name == contract.patient_id:
        return "patient"
    if name in contract.label.columns:
        return "outcome"
    return next(column.meaning for column in contract.columns if column.name == name)


def _rule(name: str, contract: DataContract, profile: Profile) -> tuple[dict[str, Any], str]:
    if not profile.filled:
        raise _Against("is empty")
    if name == contract.patient_id:
        return {}, f"{len(profile.filled):,} different ids stand in {profile.rows:,} records"
    if name in contract.label.columns:
        return _label(name, contract, profile)
    column = next(column for column in contract.columns if column.name == name)
    if isinstance(column, CodeColumn):
        return _codes(column.codes, {}, profile)
    return _numbers(column, contract, profile)


def _label(name: str, contract: DataContract, profile: Profile) -> tuple[dict[str, Any], str]:
    label, outcome = contract.label, outcome_in(contract.label, name)
    if outcome is not None:
        meanings = dict.fromkeys(outcome.positive, "yes") | dict.fromkeys(outcome.negative, "no")
        if isinstance(outcome, Finding):
            meanings |= dict.fromkeys(outcome.unknown, "unknown")
        return _codes(meanings, {"yes": outcome.positive[0], "no": outcome.negative[0]}, profile)
    if isinstance(label, SurvivalLabel):
        return _time(label, profile)
    if contract.quantity is not None:
        return _numbers(contract.quantity, contract, profile)
    return _absent(profile, contract.missing_tokens), "it names a file beside each picture"


def _absent(profile: Profile, contract_tokens: Sequence[str] = ()) -> dict[str, Any]:
    words = [word for word in profile.absent if word not in contract_tokens and profile.values[word] >= FEW]
    return {"missing": sorted(words)} if words else {}


def _time(label: SurvivalLabel, profile: Profile) -> tuple[dict[str, Any], str]:
    if profile.decimal is None:
        raise _Against("holds more than numbers")
    inside = float(((profile.numbers >= 0) & (profile.numbers <= label.maximum_time)).mean())
    if inside < FITS:
        raise _Against(f"lies in 0 to {label.maximum_time:g} {label.unit} for {inside:.0%} of its values only")
    return ({"decimal": ","} if profile.decimal == "," else {}) | _absent(profile), f"{inside:.0%} are in range"


def _codes(codes: dict[str, str], generic: dict[str, str], profile: Profile) -> tuple[dict[str, Any], str]:
    """Every value is a code, or is written as a code's meaning is."""
    whole = {value: value[:-2] if value.endswith(".0") else value for value in profile.filled}
    if all(value in codes for value in whole.values()):
        return _absent(profile), f"all {len(whole)} values are the contract's codes"
    by_answer = dict(generic)
    for code, meaning in codes.items():
        for answer in answer_of(meaning):
            by_answer.setdefault(answer, code)
    rule, unknown = {}, []
    for value, code in whole.items():
        named = [each for each, meaning in codes.items() if plain(meaning) == plain(value) or each == code]
        fitting = {by_answer[answer] for answer in answer_of(value) if answer in by_answer} | set(named)
        if len(fitting) == 1:
            rule[value] = fitting.pop()
        else:
            unknown.append(value)
    if unknown:
        shown = [f"'{value}'" for value in sorted(unknown) if profile.filled[value] >= FEW][:10]
        raise _Against(
            f"has {len(unknown)} values that are none of the contract's codes or meanings"
            + (f", such as {', '.join(shown)}" if shown and len(unknown) <= 20 else "")
        )
    if len(set(rule.values())) < len(rule) and len(rule) <= 2:
        raise _Against("has two values for one code")
    often = {value: code for value, code in sorted(rule.items()) if profile.filled[value] >= FEW}
    if not often:
        raise _Against(f"has only values that stand in fewer than {FEW} records each")
    meant = ", ".join(f"{value} as {codes[code]}" for value, code in often.items())
    return {"codes": often} | _absent(profile), f"its values are read as: {meant}"


def _numbers(column: NumberColumn, contract: DataContract, profile: Profile) -> tuple[dict[str, Any], str]:
    if profile.decimal is None:
        raise _Against("holds more than numbers, or both decimal signs")
    rule: dict[str, Any] = {"decimal": ","} if profile.decimal == "," else {}
    values, stands = _without_sentinels(profile.numbers, column)
    words = [*_absent(profile, contract.missing_tokens).get("missing", []), *stands]
    if words:
        rule["missing"] = words
    named = _unit_in(profile.name, column)
    inside, distance = fit(values, column)
    as_it_is, others = inside >= FITS and distance <= FAR, likely_units(values, column)
    if named is not None and named != column.unit:
        chosen = next((each for each in others if each.unit == named), None)
        if chosen is None:
            raise _Against(f"names {named}, and in {named} its values do not fit the contract")
        return _in_unit(chosen, rule), f"its name says {named}; {chosen.inside:.0%} of its values are then in range"
    if as_it_is:
        nearer = [each for each in others if each.distance < distance - CLEARLY]
        if nearer and named is None:
            raise _Against(f"could be in {column.unit} or in {nearer[0].unit}: both fit")
        return rule, f"{inside:.0%} of its values lie in {column.minimum:g} to {column.maximum:g} {column.unit}"
    if not others:
        raise _Against(f"fits the contract neither in {column.unit} nor in another unit")
    if len(others) > 1 and others[1].distance - others[0].distance < CLEARLY:
        raise _Against(f"could be in {others[0].unit} or in {others[1].unit}")
    chosen = others[0]
    return _in_unit(chosen, rule), f"{chosen.inside:.0%} of its values fit as {chosen.unit}, and not as {column.unit}"


def _in_unit(likely: Likely, rule: dict[str, Any]) -> dict[str, Any]:
    mass = {} if likely.molar_mass is None else {"molar_mass": likely.molar_mass}
    return {"unit": likely.unit} | mass | rule


def _without_sentinels(values: Any, column: NumberColumn) -> tuple[Any, list[str]]:
    """Numbers that stand for a missing value: far from all others, out of range, and not few."""
    rest = values
    stands: list[str] = []
    for sentinel in STAND_FOR_MISSING:
        same = rest == sentinel
        known = sentinel in (*column.missing_codes, *column.also_allowed)
        if known or not FEW <= same.sum() < 0.9 * len(rest):
            rest = rest[~same] if known and not same.all() else rest
            continue
        others = rest[~same]
        low, high = np.quantile(others, (0.01, 0.99))
        reach = max(high - low, 1e-9)
        if sentinel < low - reach or sentinel > high + reach:
            rest = others
            stands.append(f"{sentinel:g}")
    return rest, stands


def _unit_in(name: str, column: NumberColumn) -> str | None:
    """A unit that the local name ends with, where it measures what the contract's does."""
    last = name.replace("(", " ").replace(")", " ").replace("[", " ").replace("]", " ").replace("_", " ").split()[-1:]
    mass = molar_mass_of(column)
    for unit in (*UNITS, column.unit):
        written = {unit.casefold(), plain(unit)} if len(unit) > 1 else {unit}
        if last and (last[0].casefold() in written or last[0] == unit):
            try:
                return unit if conversion(unit, column.unit, mass) is not None else None
            except UsageError:
                return None
    return None
