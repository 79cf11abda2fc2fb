"""The figures of a statistics study in words, in the reader's language: what each is, of whom, and why it is hidden."""

import re
from typing import Final

from wardround.console.i18n import N_, _, marked, spoken
from wardround.console.reports.numbers import four_digits
from wardround.protocol.contract import CodeColumn
from wardround.protocol.plan import StudyPlan
from wardround.protocol.statistics import Statistics
from wardround.strategies.statistics import Cell

_NAMES: Final = frozenset(
    (
        N_("count"),
        N_("sum"),
        N_("mean"),
        N_("variance"),
        N_("standard deviation"),
        N_("intercept"),
        N_("mean absolute error"),
        N_("root mean squared error"),
        N_("Brier score"),
        N_("observed minus predicted"),
        N_("c-index"),
        N_("log-rank p"),
        N_("largest gradient, last round"),
        N_("noise of a gradient"),
        N_("deviance, last round"),
        N_("all"),
    )
)
"""What is one phrase. A name that is on no list here, such as that of a column, stays as it is."""

_WITH_NUMBERS: Final = tuple(
    (re.compile(pattern), words)
    for pattern, words in (
        (r"log loss \(clipped at (?P<most>\S+)\)", N_("log loss (clipped at %(most)s)")),
        (r"observed at (?P<low>\S+) to (?P<high>\S+)", N_("observed at %(low)s to %(high)s")),
        (r"predicted at (?P<low>\S+) to (?P<high>\S+)", N_("predicted at %(low)s to %(high)s")),
        (r"survival at (?P<time>.+)", N_("survival at %(time)s")),
        (r"quantile (?P<part>\S+)", N_("quantile %(part)s")),
        (r"log-rank chi-square \((?P<count>\d+) df\)", N_("log-rank chi-square (%(count)s df)")),
        (r"rate until (?P<time>.+)", N_("rate until %(time)s")),
        (r"odds ratio of (?P<name>.+)", N_("odds ratio of %(name)s")),
        (r"Brier score at (?P<time>.+)", N_("Brier score at %(time)s")),
        (r"integrated Brier score until (?P<time>.+)", N_("integrated Brier score until %(time)s")),
        (r"mean Dice of (?P<name>.+)", N_("mean Dice of %(name)s")),
        (
            r"pooled Dice of (?P<name>.+) \(clipped at (?P<most>\S+)\)",
            N_("pooled Dice of %(name)s (clipped at %(most)s)"),
        ),
        (r"(?P<name>.+) marked where there is none", N_("%(name)s marked where there is none")),
        (r"below (?P<high>\S+)", N_("below %(high)s")),
        (r"(?P<low>\S+) to below (?P<high>\S+)", N_("%(low)s to below %(high)s")),
        (r"(?P<low>\S+) and more", N_("%(low)s and more")),
    )
)

_NUMBER: Final = re.compile(r"-?\d+(\.\d+)?")

HIDDEN: Final = (
    N_("fewer patients than the plan shows"),
    N_("not known to be of as many hospitals as the plan asks"),
    N_("fewer patients than the noise allows to divide by"),
    N_("the columns determine one another, up to the noise"),
    N_("the columns determine one another, or the outcome, up to the noise"),
    N_("the rounds did not settle: too much noise, or a predictor that tells the outcome"),
)
"""Why a figure is not shown, as statistics say it."""

_COVERS: Final = {"these patients": N_("these patients"), "the population": N_("the population")}


def name_words(name: str) -> str:
    """The name of a figure, or of an interval of values that is a group."""
    if name in _NAMES:
        return _(name)
    for pattern, words in _WITH_NUMBERS:
        if (found := pattern.fullmatch(name)) is not None:
            return _(words) % {key: _numbers(part) for key, part in found.groupdict().items()}
    return name


def why_hidden(cell: Cell) -> str:
    """Why a figure is not shown."""
    return _(cell.note) if cell.note else _("no figure")


def covers_words(cell: Cell) -> str:
    """What an interval is about."""
    return _(_COVERS[cell.covers])


def value_words(cell: Cell) -> str:
    """The figure with its unit; "" where it is not shown."""
    return "" if cell.value is None else f"{four_digits(cell.value)} {'' if cell.unit == '1' else cell.unit}".rstrip()


def interval_words(cell: Cell) -> str:
    """``0.68 to 0.85``, "" where there is none."""
    if cell.value is None or cell.low is None or cell.high is None:
        return ""
    return _("%(low)s to %(high)s") % {"low": four_digits(cell.low), "high": four_digits(cell.high)}


def group_names(plan: StudyPlan, cell: Cell) -> list[str]:
    """The hospital, where it is one's own figure, and the group by what the contract says that its codes mean."""
    assert isinstance(plan.task, Statistics)
    query = next(query for query in plan.task.queries if query.name == cell.query)
    meanings = {c.name: c.codes for c in plan.contract_or_fail.columns if isinstance(c, CodeColumn)}
    words = [meanings.get(by.column, {}).get(name, name) for by, name in zip(query.by, cell.group, strict=False)]
    return [*((cell.site,) if cell.site else ()), *words, *cell.group[len(words) :]]


def _numbers(part: str) -> str:
    return marked(part, spoken()) if _NUMBER.fullmatch(part) else part
