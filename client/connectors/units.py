"""Units by UCUM (Unified Code for Units of Measure), through ``ucumvert`` and ``pint``.

Annotations in braces, ``{beats}/min``, count for nothing, and one alone is the unit 1, as UCUM says. An amount becomes
a mass only with the substance's molar mass. International units are units of their own: what one is depends on the
substance.

A unit's field holds whatever a system wrote, so no text of it can break or stop a reader: 10*999999999 would be
multiplied out, and a long text parsed.
"""

import re
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Final

from wardround.protocol.errors import UsageError

LONGEST: Final = 40
KEPT: Final = 4096
"""Units and conversions that are remembered; a source may write as many as it has results."""

_POWER: Final = re.compile(r"[^\d./\s]\s*[+-]?\d{3,}|\d{7,}")
_ANNOTATION: Final = re.compile(r"\{[^{}]*\}")


@dataclass(frozen=True, slots=True)
class Conversion:
    """``value * factor + offset`` in the target unit."""

    factor: float
    offset: float = 0.0


SAME: Final = Conversion(1.0)


def dimensionless(unit: str) -> bool:
    """Whether values of the unit may come without one: it is 1, or an annotation alone."""
    return _plain(unit) == "1"


def check_unit(unit: str) -> None:
    """Raise UsageError for what is no UCUM code."""
    _unit(_plain(unit))


@lru_cache(maxsize=KEPT)
def conversion(source: str, target: str, molar_mass: float | None = None) -> Conversion:
    """From ``source`` to ``target``, both UCUM codes; ``molar_mass`` in g/mol. A unit is always convertible to itself.

    Raises:
        UsageError: one is no UCUM code, or they measure different things.
    """
    if source == target:
        return SAME
    have, want = _unit(_plain(source)), _unit(_plain(target))
    if molar_mass is not None and _substance(have) != _substance(want):
        have, want = _as_mass(have, molar_mass), _as_mass(want, molar_mass)
    try:
        zero, one = (_in(want, number, have) for number in (0.0, 1.0))
    # pint raises what a pair of units leads it to: other dimensions, numbers too large.
    except Exception:
        raise UsageError(
            f"{source!r} cannot be converted to {target!r}",
            "check both units; between amount and mass, for example mmol/L and mg/dL, give 'molar_mass' in g/mol",
        ) from None
    return Conversion(one - zero, zero)


def _plain(unit: str) -> str:
    unit = unit.strip()
    return "1" if _ANNOTATION.fullmatch(unit) else unit


def _in(want: Any, number: float, have: Any) -> float:
    quantity = type(have)(number * have.magnitude, have.units)
    return float(quantity.to(want.units).magnitude / want.magnitude)


def _substance(unit: Any) -> bool:
    return "[substance]" in unit.dimensionality


def _as_mass(unit: Any, molar_mass: float) -> Any:
    return unit * _unit("g/mol") * molar_mass if _substance(unit) else unit


@lru_cache(maxsize=KEPT)
def _unit(code: str) -> Any:
    try:
        if len(code) > LONGEST or _POWER.search(code):
            raise ValueError
        unit = _registry().from_ucum(code)
        _ = unit.dimensionality, float(unit.magnitude)
        return unit
    # The parser and pint raise what a code leads them to.
    except Exception:
        raise UsageError(f"{code[:LONGEST]!r} is no UCUM unit", "UCUM writes mmol/L, mm[Hg], 10*9/L, Cel") from None


@cache
def _registry() -> Any:
    from ucumvert import PintUcumRegistry

    return PintUcumRegistry()
