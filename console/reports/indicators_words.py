"""What a campaign of indicators asks and promises, in words for the people who approve it, in the reader's language."""

from collections.abc import Iterator
from typing import Final

from wardround.console.i18n import N_, _, marked, ngettext, numeral, spoken
from wardround.console.reports.numbers import rough
from wardround.protocol.indicators import Count, Indicator, Indicators, Level, Total
from wardround.protocol.plan import Claim, StudyPlan
from wardround.protocol.secagg import SMALLEST, threshold
from wardround.strategies.series import expected, unit_of

SPANS: Final = {"15min": N_("15 minutes"), "hour": N_("an hour"), "day": N_("a day")}


def asked(plan: StudyPlan, task: Indicators) -> Iterator[tuple[str, str]]:
    """(name, words) of every indicator: what is counted, the bound of a patient, and how exact it will be."""
    for error in expected(plan):
        indicator = error.indicator
        parts = [_what(indicator), _bound(indicator)]
        if error.usual:
            reach = {
                "confidence": numeral(round(100 * task.confidence, 6)),
                "usual": figure(error.usual, unit_of(indicator)),
                "worst": figure(error.worst, unit_of(indicator)),
            }
            words = _("%(confidence)s %% interval with every hospital there: ± %(usual)s")
            if error.worst > error.usual:
                words = _(
                    "%(confidence)s %% interval with every hospital there: usually ± %(usual)s, at worst ± %(worst)s"
                )
            parts.append(words % reach)
        yield indicator.name, "; ".join(parts)


def ticks_words(task: Indicators) -> str:
    """How often and how long; the budget ends with it."""
    words = _("%(ticks)s ticks of %(span)s, from %(first)s to %(last)s UTC; then campaign and budget are over")
    return words % {
        "ticks": numeral(task.ticks),
        "span": _(SPANS[task.tick]),
        "first": f"{task.begins(1):%Y-%m-%d %H:%M}",
        "last": f"{task.begins(task.ticks + 1):%Y-%m-%d %H:%M}",
    }


def charge_words(task: Indicators) -> str:
    """How often the ledger charges it: not by the tick."""
    words = _(
        "once, for all %(ticks)s ticks and all %(levels)s levels of their tree together, to every data domain of the "
        "site, before the first event is read"
    )
    return words % {"ticks": numeral(task.ticks), "levels": numeral(task.levels)}


def mechanism_words(plan: StudyPlan) -> str:
    """What protects the patients."""
    noise = plan.privacy.noise_multiplier or 0.0
    if plan.privacy.claim is Claim.EPSILON_BOTH:
        words = _(
            "all sums of the campaign, of all levels and indicators, are scaled so that one patient with everything of "
            "theirs moves them together by a vector of length 1 at most; each hospital adds its share of Gaussian "
            "noise, of standard deviation %(noise)s, and every sum that is opened has at least %(shares)s shares that "
            "those who may collude do not know, of %(together)s together"
        )
        together = numeral(round(noise * plan.honest_sites**0.5, 3))
        return words % {"noise": numeral(noise), "shares": numeral(plan.honest_sites), "together": together}
    words = _(
        "all sums of the campaign, of all levels and indicators, are scaled so that one patient with everything of "
        "theirs moves them together by a vector of length 1 at most, and each gets Gaussian noise of standard "
        "deviation %(noise)s"
    )
    return words % {"noise": numeral(noise)}


def absence_words(plan: StudyPlan) -> str:
    """What happens to a tick when hospitals are away, and why one or two have no secure sum."""
    sites = len(plan.participants)
    if plan.privacy.secure_aggregation:
        spare = sites - threshold(sites, plan.min_sites)
        places = {"sites": numeral(sites), "needed": numeral(sites - spare), "spare": numeral(spare)}
        if not spare:
            words = _(
                "A tick needs all %(sites)s hospitals: with one of them offline its secure sum is void, and a gap."
            )
        else:
            words = _("A tick needs %(needed)s of %(sites)s hospitals: %(spare)s may be offline.")
        return words % places
    said = []
    if plan.min_sites == 1 == sites:
        said.append(_("The one hospital makes a tick, with its own full noise."))
    elif plan.min_sites == 1:
        said.append(_("Any hospital makes a tick, added in the open, each with its own full noise."))
    else:
        words = _("A tick needs %(needed)s of %(sites)s hospitals, added in the open, each with its own full noise.")
        said.append(words % {"needed": numeral(plan.min_sites), "sites": numeral(sites)})
    if sites < SMALLEST:
        said.append(_("There is no secure sum: %(why)s.") % {"why": alone_words(sites)})
    return " ".join(said)


def alone_words(sites: int) -> str:
    """Why one or two hospitals have privacy mode LOCAL and nothing else: ``protocol.indicators.alone``."""
    if sites == 1:
        return _("one hospital's sum is its own, so only its own full noise (LOCAL) protects its patients")
    return _(
        "of two hospitals each knows the other's part of a sum by taking away its own, so only the full noise of each "
        "(LOCAL) protects their patients"
    )


def retry_words(task: Indicators) -> str:
    """What the plan's ``on_absence`` says of a tick that too few answer."""
    return {
        "wait": _("A tick that too few answer is tried again, and is left out when that does not help."),
        "gap": _("A tick that too few answer is left out at once; nothing is filled in for it."),
        "local": _("Whoever answers is added; who is away is not filled in."),
    }[task.on_absence]


def alarm_words(task: Indicators) -> str:
    """The rule of its alarms, which reads what is published and costs nothing."""
    alarm = task.alarm
    weekly = _("What is usual is that of the same weekday and time of day.") if alarm.weekly else ""
    words = _(
        "CUSUM on the published series, which costs nothing: after %(settling)s ticks, %(baseline)s figures say what "
        "is usual; let pass are %(drift)s standard deviations a tick, and an alarm is above %(threshold)s"
    )
    said = words % {
        "settling": numeral(alarm.settling),
        "baseline": numeral(alarm.baseline),
        "drift": numeral(alarm.drift),
        "threshold": numeral(alarm.threshold),
    }
    return f"{said}. {weekly}" if weekly else said


def figure(value: float, unit: str = "") -> str:
    """A noised figure, as exactly as it is worth: whole from 100 on, else three digits; with its unit."""
    return f"{marked(rough(value), spoken())} {unit}".rstrip()


def _what(indicator: Indicator) -> str:
    match indicator:
        case Count():
            return _("how many events '%(event)s' each tick has, each counted as 1 at most") % {
                "event": indicator.event
            }
        case Level():
            words = _("how many are there at the end of each tick: '%(enters)s' less '%(leaves)s', from 0 at the start")
            return words % {"enters": indicator.enters, "leaves": indicator.leaves}
        case Total():
            words = _("the sum of '%(event)s' in each tick, each within 0 to %(upper)s %(unit)s")
            places = {"event": indicator.event, "upper": numeral(indicator.upper), "unit": indicator.unit}
            return (words % places).rstrip()
    raise TypeError(f"no words for an indicator of type {type(indicator).__name__}")


def _bound(indicator: Indicator) -> str:
    count = indicator.contributions
    return ngettext(
        "a patient has at most %(count)s contribution to it in the whole campaign, and later ones do not count",
        "a patient has at most %(count)s contributions to it in the whole campaign, and later ones do not count",
        count,
    ) % {"count": numeral(count)}
