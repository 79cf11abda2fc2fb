"""From the words of ``wardround sweep`` to its runs: every combination of the values that the words list.

The grammar is Hydra's own: ``key=a,b``, ``key=choice(a,b)``, ``key=range(0,10)`` and, for groups, ``key=glob(fed*)``.
Three words are ours, because a comparison of studies needs them all the time:

* ``seed`` stands for ``initial.seed``, and ``0..9`` for ``range(0,10)``;
* ``privacy.epsilon=inf`` is a run without protection (mode ``none``) on the schedule of the others: as many rounds and
  steps, so that what differs is the noise. Its words about noise give way;
* where ``privacy.epsilon`` is swept, noise follows it: ``privacy.noise_multiplier=auto``, and ``epsilon_cap`` makes
  room for it, unless a word says otherwise. ``Grid.implied`` names what was added.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Final, cast

from wardround.conf.compose import GROUPS, choices_of, parse_overrides
from wardround.protocol.errors import UsageError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

SEED: Final = "initial.seed"
EPSILON: Final = "privacy.epsilon"
MOST_RUNS: Final = 100_000

_OF_NOISE: Final = tuple(
    f"privacy.{key}" for key in ("noise_multiplier", "sampling_probability", "delta", "epsilon", "epsilon_consortium")
)
_SHORT_RANGE: Final = re.compile(r"(\d+)\.\.(\d+)")
_ROOM: Final = 2.0
"""The budget of a domain in a sweep, over the largest epsilon: its filter is more cautious than the accountant."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One key with the values that it takes, as written."""

    key: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Point:
    """One run: its value on every axis, and the words that compose it."""

    settings: tuple[tuple[str, str], ...]
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Grid:
    """The runs of a sweep, the last axis turning fastest."""

    axes: tuple[Axis, ...]
    fixed: tuple[str, ...]
    implied: tuple[str, ...]

    @property
    def size(self) -> int:
        return math.prod(len(axis.values) for axis in self.axes)

    @property
    def points(self) -> list[Point]:
        keys = [axis.key for axis in self.axes]
        return [
            _point(tuple(zip(keys, values, strict=True)), self.fixed, self.implied)
            for values in product(*(axis.values for axis in self.axes))
        ]


def parse_grid(words: Sequence[str]) -> Grid:
    """The grid that ``words`` describe.

    Raises:
        UsageError: a word cannot be read, lists nothing, lists a value twice, or asks for values without end.
    """
    axes: list[Axis] = []
    fixed: list[str] = []
    for override in parse_overrides([_ours(word) for word in words]):
        key = override.get_key_element()
        if not override.is_sweep_override():
            fixed.append(f"{key}={override.get_value_element_as_str()}" if not override.is_delete() else key)
            continue
        if not override.is_discrete_sweep():
            raise UsageError(
                f"'{key}' takes an interval, which has no end of values", f"list values or a range: {key}=range(0,10)"
            )
        axes.append(_axis(key, _values(override.key_or_group, override)))
    _check(axes, fixed)
    grid = Grid(tuple(axes), tuple(fixed), tuple(_implied(axes, fixed)))
    if grid.size > MOST_RUNS:
        raise UsageError(f"the grid has {grid.size:,} runs", f"at most {MOST_RUNS:,} are run in one sweep")
    return grid


def _ours(word: str) -> str:
    key, equals, value = word.partition("=")
    if not equals:
        return word
    short = _SHORT_RANGE.fullmatch(value)
    if short:
        value = f"range({short[1]},{int(short[2]) + 1})"
    return f"{SEED if key == 'seed' else key}={value}"


def _values(group: str, override: "Override") -> list[str]:
    from hydra.core.override_parser.types import Glob, ValueType

    if override.value_type is ValueType.GLOB_CHOICE_SWEEP:
        if group not in GROUPS:
            raise UsageError(f"'{group}' is no group, so glob finds nothing", f"groups: {', '.join(GROUPS)}")
        # Hydra's annotation of value() leaves this one out.
        return cast(Glob, override.value()).filter(choices_of(group))
    return list(override.sweep_string_iterator())


def _axis(key: str, values: Sequence[str]) -> Axis:
    if not values:
        raise UsageError(f"'{key}' lists no value", "list at least one")
    twice = next((value for value in values if values.count(value) > 1), None)
    if twice is not None:
        raise UsageError(f"'{key}' lists {twice} twice", "a run is made once: list each value once")
    return Axis(key, tuple(values))


def _check(axes: Sequence[Axis], fixed: Sequence[str]) -> None:
    if not axes:
        raise UsageError("nothing varies", "list values, for example: strategy=fedavg,fedprox seed=0..9")
    keys = [axis.key for axis in axes] + [word.partition("=")[0] for word in fixed]
    for key in keys:
        if keys.count(key) > 1:
            raise UsageError(f"'{key}' is given twice", "give each key once")
        if key in ("simulation.resume", "simulation.output") or (key == "study" and key not in _names(fixed)):
            raise UsageError(
                f"a sweep does not take '{key}'" + ("" if key != "study" else " with several values"),
                "give the sweep's folder: --folder FOLDER; it compares runs of one study",
            )


def _names(words: Sequence[str]) -> set[str]:
    return {word.partition("=")[0] for word in words}


def _implied(axes: Sequence[Axis], fixed: Sequence[str]) -> list[str]:
    said = {axis.key for axis in axes} | _names(fixed)
    swept = next((axis for axis in axes if axis.key == EPSILON), None)
    if swept is None:
        return []
    finite = [float(value) for value in swept.values if _finite(value)]
    words = []
    if finite and "privacy.noise_multiplier" not in said:
        words.append("privacy.noise_multiplier=auto")
    if finite and "epsilon_cap" not in said:
        words.append(f"epsilon_cap={max(8.0, _ROOM * max(finite)):g}")
    return words


def _finite(value: str) -> bool:
    try:
        return math.isfinite(float(value))
    except ValueError:
        return False


def _point(settings: tuple[tuple[str, str], ...], fixed: Sequence[str], implied: Sequence[str]) -> Point:
    words = [*fixed, *implied, *(f"{key}={value}" for key, value in settings)]
    if f"{EPSILON}=inf" in words:
        words = [word for word in words if word.partition("=")[0] not in _OF_NOISE]
        words += ["privacy.mode=none", *(f"{key}=null" for key in _OF_NOISE)]
    return Point(settings, tuple(words))
