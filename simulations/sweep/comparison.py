"""What the runs of a sweep say when they are laid side by side: intervals, differences, and equal terms or not.

A *contender* is a strategy with its other settings; a *level* is the epsilon that its runs were to keep. A cell is a
contender at a level, with one number for each seed: the mean over the hospitals where the metric is estimable, of the
model that each hospital would use.

Intervals are Student's t over seeds. Differences are tested at one level by the paired t-test over the seeds that both
have (Student 1908), with the correction of Holm (1979, Scandinavian Journal of Statistics 6:65) over all tests of the
comparison, which holds whatever the dependence between them. Assumed: the seeds' differences are independent and about
normal. What is *not* in them: other patients. All seeds see the same test patients, so a difference is about training.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import inf, isfinite, sqrt
from statistics import mean, stdev
from typing import Final

from wardround.simulations.sweep.folder import Finished
from wardround.simulations.sweep.table import limit_of, other_settings, used, value_of

LEVEL: Final = 0.95
FEWEST_SEEDS: Final = 5
"""With fewer pairs no difference is tested."""

TEST: Final = "paired t-test over seeds, two-sided, with Holm's correction"
_NO_SPREAD: Final = 1e-12


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over ``count`` seeds with its 95 % interval; None where one value has no spread to tell."""

    value: float
    low: float | None
    high: float | None
    count: int


@dataclass(frozen=True, slots=True)
class SiteCell:
    """One hospital in a cell. ``used`` None: not estimable. ``epsilon``: the most that any of the runs cost it."""

    site: str
    used: Interval | None
    own: float | None
    epsilon: float


@dataclass(frozen=True, slots=True)
class Cell:
    """A contender at a level; ``by_seed`` holds the mean over hospitals. ``delta`` None: without protection."""

    contender: str
    strategy: str
    level: float
    delta: float | None
    by_seed: dict[int, float]
    over_hospitals: Interval
    sites: tuple[SiteCell, ...]
    rounds: int
    steps: str


@dataclass(frozen=True, slots=True)
class Difference:
    """``first`` minus ``second`` at a level; ``adjusted`` is Holm's p, None with a ``reason`` why there is no test."""

    first: str
    second: str
    level: float
    difference: Interval
    p: float | None
    adjusted: float | None
    reason: str = ""

    @property
    def is_shown(self) -> bool:
        """Whether the difference is distinguishable from none at 5 % over all tests of the comparison."""
        return self.adjusted is not None and self.adjusted < 1 - LEVEL


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that the report shows of one metric."""

    metric: str
    contenders: tuple[str, ...]
    levels: tuple[float, ...]
    cells: tuple[Cell, ...]
    differences: tuple[Difference, ...]
    unequal: tuple[str, ...]

    def cell(self, contender: str, level: float) -> Cell | None:
        return next((cell for cell in self.cells if (cell.contender, cell.level) == (contender, level)), None)

    @property
    def tests(self) -> int:
        """How many tests Holm's correction counts."""
        return sum(difference.p is not None for difference in self.differences)


def compare(runs: Sequence[Finished], metric: str) -> Comparison:
    """The comparison of ``runs`` by ``metric``; runs in which it is nowhere estimable are left out."""
    names = _names(runs)
    grouped: dict[tuple[str, float], list[Finished]] = {}
    for run in runs:
        if mean_over_hospitals(run, metric) is not None:
            grouped.setdefault((names[run.number], limit_of(run)), []).append(run)
    cells = [_cell(name, level, members, metric) for (name, level), members in grouped.items()]
    contenders = tuple(dict.fromkeys(names[run.number] for run in runs))
    levels = tuple(sorted({cell.level for cell in cells}))
    cells.sort(key=lambda cell: (contenders.index(cell.contender), cell.level))
    return Comparison(metric, contenders, levels, tuple(cells), _differences(cells, levels), _unequal(cells, runs))


def mean_over_hospitals(run: Finished, metric: str) -> float | None:
    """The mean over the hospitals that took part and where the metric is estimable; None if it is at none."""
    values = [used(site, metric) for site in run.result.sites if not site.excluded_because]
    known = [value for value in values if value is not None]
    return mean(known) if known else None


def interval(values: Sequence[float]) -> Interval:
    """The mean of ``values`` with Student's t interval."""
    from scipy.stats import t

    middle, count = mean(values), len(values)
    if count < 2:
        return Interval(middle, None, None, count)
    half = float(t.ppf((1 + LEVEL) / 2, count - 1)) * stdev(values) / sqrt(count)
    return Interval(middle, middle - half, middle + half, count)


def holm(values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order of ``values``: (m - i + 1) p_(i), never falling, at most 1."""
    order = sorted(range(len(values)), key=lambda index: values[index])
    adjusted, reached = [0.0] * len(values), 0.0
    for rank, index in enumerate(order):
        reached = max(reached, min(1.0, (len(values) - rank) * values[index]))
        adjusted[index] = reached
    return adjusted


def _names(runs: Sequence[Finished]) -> dict[int, str]:
    """A contender's name for each run: its strategy, and the settings beside it that vary."""
    names = {}
    for run in runs:
        others = [f"{key}={value}" for key, value in other_settings(run).items() if key != "strategy"]
        names[run.number] = ", ".join([run.result.strategy, *others])
    return names


def _cell(contender: str, level: float, runs: Sequence[Finished], metric: str) -> Cell:
    by_seed = {run.plan.model.seed: mean_over_hospitals(run, metric) for run in runs}
    known = {seed: value for seed, value in by_seed.items() if value is not None}
    plan = runs[0].plan
    steps = f"{plan.local.steps} steps" if plan.local.steps else f"{plan.local.epochs} passes"
    return Cell(
        contender,
        runs[0].result.strategy,
        level,
        plan.privacy.delta,
        known,
        interval(list(known.values())),
        tuple(_site(site.site, runs, metric) for site in runs[0].result.sites if not site.excluded_because),
        plan.rounds,
        steps,
    )


def _site(name: str, runs: Sequence[Finished], metric: str) -> SiteCell:
    found = [site for run in runs for site in run.result.sites if site.site == name and not site.excluded_because]
    values = [value for site in found if (value := used(site, metric)) is not None]
    own = [value for site in found if (value := value_of(site.own, metric)) is not None]
    return SiteCell(
        name,
        interval(values) if values else None,
        mean(own) if own else None,
        max(inf if site.epsilon_site is None else site.epsilon_site for site in found),
    )


def _differences(cells: Sequence[Cell], levels: Sequence[float]) -> tuple[Difference, ...]:
    """Every pair of contenders at every level, with Holm's correction over all that could be tested."""
    found = [
        _difference(one, other)
        for level in levels
        for one, other in combinations([cell for cell in cells if cell.level == level], 2)
    ]
    tested = [difference for difference in found if difference is not None and difference.p is not None]
    adjusted = iter(holm([difference.p for difference in tested if difference.p is not None]))
    return tuple(
        difference
        if difference.p is None
        else Difference(
            difference.first,
            difference.second,
            difference.level,
            difference.difference,
            difference.p,
            next(adjusted),
        )
        for difference in found
        if difference is not None
    )


def _difference(one: Cell, other: Cell) -> Difference | None:
    from scipy.stats import ttest_rel

    seeds = sorted(one.by_seed.keys() & other.by_seed.keys())
    if not seeds:
        return None
    first, second = [one.by_seed[seed] for seed in seeds], [other.by_seed[seed] for seed in seeds]
    differences = [a - b for a, b in zip(first, second, strict=True)]
    found, p, reason = interval(differences), None, ""
    if len(seeds) < FEWEST_SEEDS:
        reason = f"fewer than {FEWEST_SEEDS} seeds in both"
    elif stdev(differences) < _NO_SPREAD:
        reason = "the same for every seed: nothing is left to chance"
    else:
        p = float(ttest_rel(first, second).pvalue)
    return Difference(one.contender, other.contender, one.level, found, p, None, reason)


def _unequal(cells: Sequence[Cell], runs: Sequence[Finished]) -> tuple[str, ...]:
    """What is not equal between strategies, in sentences; empty: same seeds, settings, work, epsilon and data."""
    said = []
    for level in sorted({cell.level for cell in cells}):
        here = [cell for cell in cells if cell.level == level]
        at = "without protection" if level == inf else f"at ε {level:g}"
        settings = {strategy: sum(c.strategy == strategy for c in here) for strategy in _strategies(cells)}
        if len(set(settings.values())) > 1:
            counts = ", ".join(f"{name} {count}" for name, count in settings.items())
            said.append(f"{at}, strategies had different numbers of settings to be best of: {counts}")
        seeds = {cell.contender: len(cell.by_seed) for cell in here}
        if len(set(seeds.values())) > 1:
            counts = ", ".join(f"{name} {count}" for name, count in seeds.items())
            said.append(f"{at}, contenders had different numbers of seeds: {counts}")
        if len({(cell.rounds, cell.steps) for cell in here}) > 1:
            work = ", ".join(f"{cell.contender} {cell.rounds} rounds of {cell.steps}" for cell in here)
            said.append(f"{at}, contenders trained for different times: {work}")
        spent = [site.epsilon for cell in here for site in cell.sites if isfinite(site.epsilon)]
        if spent and max(spent) > 1.01 * min(spent):
            said.append(f"{at}, true epsilons differ by more than 1 %: {min(spent):.3f} to {max(spent):.3f}")
    by_seed: dict[int, set[str]] = {}
    for run in runs:
        by_seed.setdefault(run.plan.model.seed, set()).add(repr(sorted(run.result.data_hashes.items())))
    if any(len(kinds) > 1 for kinds in by_seed.values()):
        said.append("runs of one seed did not all see the same patients, so their differences are not about training")
    return tuple(said)


def _strategies(cells: Sequence[Cell]) -> list[str]:
    return list(dict.fromkeys(cell.strategy for cell in cells))
