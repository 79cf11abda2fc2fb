"""Units by UCUM (Unified Code for Units of Measure), through ``ucumvert`` and ``pint``.

Annotations in braces, ``{beats}/min``, count for nothing, as UCUM says. An amount becomes a mass only with the
substance's molar mass. International units are units of their own: what one is depends on the substance.
"""

import re
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from wardround.protocol.errors import UsageError


@dataclass(frozen=True, slots=True)
class Conversion:
    """``value * factor + offset`` in the target unit."""

    factor: float
    offset: float = 0.0


@cache
def conversion(source: str, target: str, molar_mass: float | None = None) -> Conversion:
    """From ``source`` to ``target``, both UCUM codes; ``molar_mass`` in g/mol.

    Raises:
        UsageError: one is no UCUM code, or they measure different things.
    """
    if source == target:
        return Conversion(1.0)
    have, want = _unit(source), _unit(target)
    if molar_mass is not None and _substance(have) != _substance(want):
        have, want = _as_mass(have, molar_mass), _as_mass(want, molar_mass)
    if not have.is_compatible_with(want):
        raise UsageError(
            f"'{source}' cannot be converted to '{target}'",
            "check both units; between amount and mass, for example mmol/L and mg/dL, give 'molar_mass' in g/mol",
        )
    zero, one = (_in(want, number, have) for number in (0.0, 1.0))
    return Conversion(one - zero, zero)


def _in(want: Any, number: float, have: Any) -> float:
    quantity = type(have)(number * have.magnitude, have.units)
    return float(quantity.to(want.units).magnitude / want.magnitude)


def _substance(unit: Any) -> bool:
    return "[substance]" in unit.dimensionality


def _as_mass(unit: Any, molar_mass: float) -> Any:
    return unit * _unit("g/mol") * molar_mass if _substance(unit) else unit


LONGEST: Final = 64
SENSIBLE: Final = re.compile(r"(?!.*\d{5})(?!.*\*\d{3})")
"""Not this: numbers of five digits, and powers of three, which take for ever to multiply out."""


@cache
def _unit(code: str) -> Any:
    try:
        if len(code) > LONGEST or not SENSIBLE.match(code):
            raise ValueError
        unit = _registry().from_ucum(code)
        _ = unit.dimensionality, float(unit.magnitude)
        return unit
    # The parser and pint raise what a code leads them to; an annotation alone is no quantity.
    except Exception:
        raise UsageError(f"'{code}' is no UCUM unit", "UCUM writes mmol/L, mm[Hg], 10*9/L, Cel") from None


@cache
def _registry() -> Any:
    from ucumvert import PintUcumRegistry

    return PintUcumRegistry()
