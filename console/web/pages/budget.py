"""*Budget* of a hospital: every data domain, and one domain with its spending over time, forecast and studies."""

from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter, Request
from markupsafe import Markup
from starlette.responses import Response

from wardround.console.web.given import given
from wardround.console.web.guards import Viewer, console
from wardround.console.web.i18n import N_, _, ngettext, number, percent, percent_tenth_up, span
from wardround.console.web.left_words import fits_words, left_words
from wardround.console.web.page import Page
from wardround.console.web.queries.budget import DomainBudget, StudySpending
from wardround.console.web.queries.timeline import Timeline
from wardround.console.web.rendering import render
from wardround.console.web.roles import Face, Role
from wardround.console.web.security import Refused
from wardround.console.web.spending_chart import LETTERS, Columns, bar, columns, swatch

READERS: Final = frozenset({Role.OFFICER, Role.IT, Role.AUDITOR})

router = APIRouter()
domain_router = APIRouter()

PAGE: Final = Page(face=Face.SITE, path="/budget", title=N_("Budget"), group="record", roles=READERS, router=router)
DOMAIN: Final = Page(
    face=Face.SITE,
    path="/budget/{domain}",
    title=N_("Budget of a data domain"),
    group="record",
    roles=READERS,
    router=domain_router,
)

ENDS: Final = {
    "day": N_("At the end of the day"),
    "week": N_("At the end of the week that began on"),
    "month": N_("At the end of the month"),
    "year": N_("At the end of the year"),
}


@dataclass(frozen=True, slots=True)
class Row:
    """A study in the table; ``letter`` and ``mark`` are its layer's in the picture, or "" among the others."""

    study: StudySpending
    letter: str
    mark: Markup


@router.get("/budget")
def budget(request: Request, looks: Viewer) -> Response:
    """Every domain with what is spent, granted and left."""
    domains: list[DomainBudget] = console(request).queries.budgets.domains()
    shown = [(one, left_words(one), _bar(one)) for one in domains]
    return render(request, "budget.html.j2", title=_("Budget"), domains=shown)


@domain_router.get("/budget/{domain}")
def budget_of_domain(request: Request, looks: Viewer, domain: str) -> Response:
    """One domain."""
    found: DomainBudget | None = console(request).queries.budgets.domain(domain)
    if found is None:
        raise Refused(404)
    order = {} if found.timeline is None else {layer.plan: index for index, layer in enumerate(found.timeline.layers)}
    rest = order.get(None)
    return render(
        request,
        "budget_domain.html.j2",
        title=_("Budget of %(name)s") % {"name": given(found.name, 60)},
        budget=found,
        left=left_words(found),
        forecast=forecast_words(found),
        bar=_bar(found),
        chart=None if found.timeline is None else _chart(found, found.timeline),
        rows=[_row(study, order.get(study.plan.digest, rest)) for study in found.studies],
        table=None if found.timeline is None else _table(found, found.timeline),
    )


def forecast_words(budget: DomainBudget) -> list[str]:
    """Where the filter stands if all that is granted runs, sentence by sentence."""
    forecast = budget.forecast
    if budget.closed:
        return [_("This data domain is closed, so no round that was granted can run on it.")]
    if not forecast.rounds:
        return [_("No round is granted and unused: nothing more is spent until an officer approves a study.")]
    rounds = ngettext("%(count)s granted round", "%(count)s granted rounds", forecast.rounds)
    studies = ngettext("%(count)s study", "%(count)s studies", forecast.studies)
    said = [
        _("If the %(rounds)s of %(studies)s that have not run yet all run, %(share)s of the allowance is spent.")
        % {
            "rounds": rounds % {"count": number(forecast.rounds)},
            "studies": studies % {"count": number(forecast.studies)},
            "share": percent_tenth_up(forecast.spent, budget.allowance),
        }
    ]
    if not forecast.fits:
        said.append(_("They do not all fit: the filter refuses every round that would pass the allowance."))
    elif forecast.rounds_left is not None and forecast.studies_left is not None:
        said.append(
            _("After that, %(studies)s like the last one would fit, or %(rounds)s of it.")
            % fits_words(forecast.studies_left, forecast.rounds_left)
        )
    said.append(
        _(
            "This is an upper bound, not a prediction in time: rounds that fail before they start cost nothing, and "
            "an officer can revoke what was granted."
        )
    )
    return said


def _bar(budget: DomainBudget) -> Markup:
    return bar(budget.spent, budget.forecast.granted, budget.allowance)


def _row(study: StudySpending, index: int | None) -> Row:
    if index is None:
        return Row(study, "", Markup())
    return Row(study, LETTERS[index], swatch(index))


def _chart(budget: DomainBudget, shown: Timeline) -> Markup:
    """The columns, named and described for those who do not see them."""
    description = _("From %(first)s to %(last)s; at the end %(share)s of the allowance. The table below says the same.")
    return columns(
        Columns(
            layers=[layer.spent for layer in shown.layers],
            allowance=budget.allowance,
            spans=[span(first, shown.step) for first in shown.spans],
            title=_("Spending of %(name)s over time, stacked by study") % {"name": given(budget.name, 60)},
            description=description
            % {
                "first": span(shown.spans[0], shown.step),
                "last": span(shown.spans[-1], shown.step),
                "share": percent_tenth_up(shown.together[-1], budget.allowance),
            },
            percent=percent,
        )
    )


def _table(budget: DomainBudget, shown: Timeline) -> dict[str, object]:
    """The same as the picture: the newest span first, a column for each layer and one for all together."""
    each = [layer.spent for layer in shown.layers]
    return {
        "ends": _(ENDS[shown.step]),
        "letters": LETTERS[: len(each)],
        "rows": [
            (first, [percent_tenth_up(spent[index], budget.allowance) for spent in (*each, shown.together)])
            for index, first in reversed(list(enumerate(shown.spans)))
        ],
        "step": shown.step,
    }
