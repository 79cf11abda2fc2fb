"""A campaign of indicators in the reader's language: plots, alarms, who is away, what it costs, and its downloads."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from markupsafe import Markup
from starlette.responses import Response

from wardround.console.reports.indicators_words import absence_words, figure, retry_words
from wardround.console.reports.series_chart import NARROW, WIDE, chart
from wardround.console.series_table import as_csv, as_json, as_prometheus
from wardround.console.web.i18n import N_, _, moment, ngettext, number, numeral
from wardround.console.web.queries.campaigns import Campaign
from wardround.privacy.accounting import epsilon
from wardround.privacy.continual import event_level_noise
from wardround.protocol.events import TreeGaussian
from wardround.protocol.indicators import Indicator, Level
from wardround.protocol.plan import Claim, StudyPlan
from wardround.strategies.cusum import Raised
from wardround.strategies.series import Expected, Figure, expected, of, unit_of

RECENT: Final = 60
"""Ticks that a plot shows, unless all are asked for; on telephones half as many."""

LISTED: Final = 14
"""Ticks of the table below a plot: the last ones."""

MOST_ALARMS: Final = 10
"""Alarms on the page, the newest."""

FORMS: Final = {
    "csv": ("text/csv; charset=utf-8", "series.csv"),
    "json": ("application/json", "series.json"),
    "prometheus": ("text/plain; version=0.0.4; charset=utf-8", "series.prom"),
}
"""What may be downloaded: its type, and the end of its name."""

LEGEND: Final = (
    ("●", N_("a figure of every hospital, with the band of its interval")),
    ("○", N_("of fewer hospitals, or with what came in while one was away: not to be compared with others")),
    ("▒", N_("no figure: too few hospitals, or a level while one is away; nothing is filled in")),
    ("▲ ▼", N_("an alarm: above or below what is usual")),
)

_EACH: Final = {"15min": N_("in each 15 minutes"), "hour": N_("in each hour"), "day": N_("in each day")}
_AFTER: Final = {
    "15min": N_("at the end of each 15 minutes"),
    "hour": N_("at the end of each hour"),
    "day": N_("at the end of each day"),
}


@dataclass(frozen=True, slots=True)
class Row:
    """A figure in a table. ``interval``, ``note``: "" where there is none."""

    begins: str
    value: str
    interval: str
    hospitals: str
    note: str


@dataclass(frozen=True, slots=True)
class Plot:
    """One indicator. ``now``: its last row; ``gaps``: ticks without a figure; ``wide`` and ``narrow``: two pictures."""

    name: str
    about: str
    expected: str
    now: Row
    gaps: int
    wide: Markup
    narrow: Markup
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class AlarmWords:
    """An alarm as a line. ``stands``: it is not over."""

    sign: str
    words: str
    stands: bool


@dataclass(frozen=True, slots=True)
class Present:
    """A hospital in the last tick: in closed words, with a badge's tone."""

    site: str
    tone: str
    words: str
    last: str
    missed: int


@dataclass(frozen=True, slots=True)
class Curve:
    """``consortium``: against the coordinator and those who may collude, else against everyone."""

    epsilon: float | None
    consortium: bool


@dataclass(frozen=True, slots=True)
class Cost:
    """Of the whole campaign: ``curves`` has an epsilon against everyone and, in mode dist, one against those who may
    collude; None: the accountant's own check failed. ``single``: of one event alone, which is neither charged nor
    promised."""

    delta: float
    curves: tuple[Curve, ...]
    single: float | None
    bounds: str


def plots(campaign: Campaign, *, whole: bool = False) -> list[Plot]:
    """Every indicator, over the last ``RECENT`` ticks or all; nothing before the first tick is over."""
    if not campaign.figures:
        return []
    errors = {error.indicator.name: error for error in expected(campaign.plan)}
    return [_plot(campaign, indicator, errors[indicator.name], whole) for indicator in campaign.task.indicators]


def _plot(campaign: Campaign, indicator: Indicator, error: Expected, whole: bool) -> Plot:
    series = of(campaign.figures, indicator)
    raised = [one for one in campaign.raised if one.indicator == indicator.name]
    unit, tick = unit_of(indicator), campaign.task.tick
    shown = series if whole else series[-RECENT:]
    rows = tuple(_row(one, unit, len(campaign.hospitals), tick) for one in series[-LISTED:])
    usual, worst = figure(error.usual, unit), figure(error.worst, unit)
    reach = _("usually ± %(usual)s, at worst ± %(worst)s") if usual != worst else "± %(usual)s"
    return Plot(
        indicator.name,
        _(_AFTER[tick]) if isinstance(indicator, Level) else _(_EACH[tick]),
        (reach % {"usual": usual, "worst": worst}) if error.usual else "",
        rows[-1],
        sum(one.value is None for one in series),
        chart(indicator, shown, raised, WIDE),
        chart(indicator, shown[-RECENT // 2 :], raised, NARROW),
        rows[::-1],
    )


def _row(one: Figure, unit: str, hospitals: int, tick: str) -> Row:
    of_all = _("%(count)s of %(all)s") % {"count": number(one.hospitals), "all": number(hospitals)}
    begins = f"{one.begins:{'%Y-%m-%d' if tick == 'day' else '%Y-%m-%d %H:%M'}}"
    if one.value is None or one.low is None or one.high is None:
        return Row(begins, _("no figure"), "", of_all, note_words(one))
    places = {"low": figure(one.low), "high": figure(one.high)}
    return Row(begins, figure(one.value, unit), _("%(low)s to %(high)s") % places, of_all, note_words(one))


def note_words(one: Figure) -> str:
    """What is to be known beside a figure: ``Figure.note`` in the reader's language."""
    if not one.hospitals:
        return _("no sum: too few hospitals answered")
    said = [_("without %(sites)s") % {"sites": ", ".join(one.away)}] if one.away else []
    if one.back:
        said.append(_("with what came in while %(sites)s had no part in a sum") % {"sites": ", ".join(one.back)})
    return "; ".join(said)


def alarm_words(campaign: Campaign) -> list[AlarmWords]:
    """The newest alarms, those that stand first."""
    newest = sorted(campaign.raised, key=lambda one: (one.until is None, one.tick), reverse=True)
    return [_alarm(campaign, one) for one in newest[:MOST_ALARMS]]


def _alarm(campaign: Campaign, one: Raised) -> AlarmWords:
    indicator = next(each for each in campaign.task.indicators if each.name == one.indicator)
    above = _("%(indicator)s is above what is usual (%(usual)s), by the tick that began %(begins)s.")
    below = _("%(indicator)s is below what is usual (%(usual)s), by the tick that began %(begins)s.")
    places = {
        "indicator": one.indicator.replace("_", " "),
        "usual": figure(one.usual, unit_of(indicator)),
        "begins": moment(campaign.task.begins(one.tick)),
    }
    words = (above if one.direction == "above" else below) % places
    if one.until is not None:
        words += " " + _("Over by the tick that began %(begins)s.") % {
            "begins": moment(campaign.task.begins(one.until))
        }
    return AlarmWords("▲" if one.direction == "above" else "▼", words, one.until is None)


def present(campaign: Campaign) -> list[Present]:
    """Every hospital in the last tick. One that is not in its sum is away; nothing stands in for it."""
    found = []
    for one in campaign.hospitals:
        last = moment(campaign.task.begins(one.last)) if one.last else ""
        if one.last == campaign.done and campaign.done:
            tone, words = "good", _("in the sum")
        elif campaign.last_is_void:
            tone, words = "alert", _("no sum was opened")
        else:
            tone, words = ("alert", _("away")) if campaign.done else ("plain", _("no tick is over yet"))
        found.append(Present(one.site, tone, words, last, one.missed))
    return found


def live_words(campaign: Campaign) -> dict[str, str]:
    """What the page says of the moment, by the name of the place."""
    task, count = campaign.task, len(campaign.hospitals)
    here = count - len(campaign.away)
    over = campaign.done >= task.ticks
    return {
        "ticks": _("%(count)s of %(all)s") % {"count": number(campaign.done), "all": number(task.ticks)},
        "here": _("%(count)s of %(all)s") % {"count": number(here), "all": number(count)}
        if campaign.done
        else _("none"),
        "next": _("none: the campaign is over") if over else moment(task.clock(campaign.done + 2)),
    }


def away_words(campaign: Campaign) -> str:
    """Who is not in the last tick that has a sum, "" for nobody; a void tick is another matter."""
    if not campaign.away or campaign.last_is_void:
        return ""
    names = ", ".join(campaign.away)
    return ngettext(
        "%(sites)s is away: its patients are in no figure of the last tick.",
        "%(sites)s are away: their patients are in no figure of the last tick.",
        len(campaign.away),
    ) % {"sites": names}


def absence(plan: StudyPlan, campaign: Campaign) -> list[str]:
    """What happens to a tick in absence, why one or two hospitals are LOCAL, and how many ticks were void."""
    said = [absence_words(plan), retry_words(campaign.task)]
    if campaign.void:
        words = ngettext("%(count)s tick has no sum so far.", "%(count)s ticks have no sum so far.", campaign.void)
        said.append(words % {"count": number(campaign.void)})
    return said


def cost(plan: StudyPlan, campaign: Campaign) -> Cost | None:
    """What the whole campaign costs; None without differential privacy."""
    site, delta = plan.participants[0].site, plan.privacy.delta
    event, together = plan.round_event(site), plan.consortium_event(site)
    if not isinstance(event, TreeGaussian) or delta is None:
        return None
    alone = event.model_copy(update={"noise_multiplier": event_level_noise(campaign.task, event.noise_multiplier)})
    bounds = ", ".join(f"{each.name} {numeral(each.contributions)}" for each in campaign.task.indicators)
    curves = [Curve(_epsilon(event, delta), consortium=False)]
    if plan.privacy.claim is Claim.EPSILON_BOTH and isinstance(together, TreeGaussian):
        curves.append(Curve(_epsilon(together, delta), consortium=True))
    return Cost(delta, tuple(curves), _epsilon(alone, delta), bounds)


@lru_cache(maxsize=64)
def _epsilon(event: TreeGaussian, delta: float) -> float | None:
    try:
        return epsilon([event], delta)
    except ArithmeticError:
        return None


def download(campaign: Campaign, form: str) -> Response:
    """The whole series as a file, the same as ``wardround live table`` prints; a figure that is not there is none."""
    plan, figures, raised = campaign.plan, campaign.figures, campaign.raised
    made = {
        "csv": lambda: as_csv(plan, figures),
        "json": lambda: as_json(plan, figures, expected(plan), raised) + "\n",
        "prometheus": lambda: as_prometheus(plan, figures, raised),
    }
    kind, name = FORMS[form]
    kept = f'attachment; filename="{plan.study}-{plan.digest[:12]}-{name}"'
    return Response(made[form](), media_type=kind, headers={"content-disposition": kept})


def legend() -> Sequence[tuple[str, str]]:
    return [(sign, _(meaning)) for sign, meaning in LEGEND]
