"""A hospital's own figures of a training in the reader's language: its own model and the shared one, on its own test
patients. For its own people: no page of a coordinator has them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from wardround.client.site_result import BenefitResult, EstimateResult, SiteResult
from wardround.console.reports.curves import calibration, roc
from wardround.console.reports.numbers import four_digits, metric_name
from wardround.console.web.figures_view import Panel
from wardround.console.web.given import given
from wardround.console.web.i18n import N_, _, ngettext, number

METRICS: Final = frozenset(
    (
        N_("Accuracy"),
        "AUROC",
        N_("Log loss"),
        N_("C-index"),
        N_("Mean absolute error"),
        N_("Root mean squared error"),
        "R²",
        "Dice",
        N_("Dice per patient"),
    )
)
"""The metrics that come with Wardround; one that a program made keeps its own name."""

MODELS: Final = {"own": N_("own model"), "shared": N_("shared model"), "personalised": N_("personalised model")}


@dataclass(frozen=True, slots=True)
class OwnRow:
    """One metric of each model, with its interval, and of shared minus own; "" where there is none."""

    metric: str
    own: str
    shared: str
    personalised: str
    gain: str


@dataclass(frozen=True, slots=True)
class OwnFigures:
    """What the page shows. ``reasons``: why a model or a metric is missing, in English as the report has it."""

    patients: str
    rounds: str
    rows: tuple[OwnRow, ...]
    personalised: bool
    verdicts: tuple[str, ...]
    reasons: tuple[str, ...]
    panels: tuple[Panel, ...]


def own_figures(report: SiteResult) -> OwnFigures:
    """The site's own report as a page shows it."""
    named = dict.fromkeys([*report.shared.metrics, *report.own.metrics])
    other = {} if report.personalised is None else report.personalised.metrics
    patients = {"train": number(report.train_patients), "test": number(report.test_patients)}
    return OwnFigures(
        _("%(train)s for training, %(test)s for testing") % patients,
        ngettext("%(count)s round", "%(count)s rounds", report.rounds_in_sum) % {"count": number(report.rounds_in_sum)},
        tuple(
            OwnRow(
                _metric(name),
                _estimate(report.own.metrics.get(name)),
                _estimate(report.shared.metrics.get(name)),
                _estimate(other.get(name)),
                _estimate(report.gain.get(name)),
            )
            for name in named
        ),
        report.personalised is not None,
        tuple(_verdicts(report)),
        tuple(dict.fromkeys(given(reason, 400) for reason in _reasons(report))),
        tuple(_panels(report)),
    )


def _metric(name: str) -> str:
    label = metric_name(name).label
    return _(label) if label in METRICS else given(label)


def _estimate(found: EstimateResult | None) -> str:
    if found is None:
        return ""
    if found.value is None:
        return _("not estimable")
    if found.low is None or found.high is None:
        return four_digits(found.value)
    places = {"value": four_digits(found.value), "low": four_digits(found.low), "high": four_digits(found.high)}
    return _("%(value)s [%(low)s to %(high)s]") % places


def _verdicts(report: SiteResult) -> Iterator[str]:
    for one in report.benefit:
        if (words := _verdict(one)) is not None:
            yield words
    if report.kept is not None:
        yield _("What the plan's fall-back keeps here: %(model)s.") % {"model": _(MODELS[report.kept.model])}


def _verdict(found: BenefitResult) -> str | None:
    """Whether a model helps, in one sentence; None where nothing could be compared."""
    by = found.better_by
    if by.value is None or by.low is None or by.high is None:
        return None
    words = {
        "helps": _("%(model)s: it helps, by %(by)s (interval %(low)s to %(high)s)."),
        "harms": _("%(model)s: it harms, by %(by)s (interval %(low)s to %(high)s)."),
        "not shown": _("%(model)s: no difference can be shown; better by %(by)s (interval %(low)s to %(high)s)."),
        "none": _("%(model)s: no verdict; better by %(by)s (interval %(low)s to %(high)s)."),
    }[found.verdict]
    value, low, high = (-by.value, -by.high, -by.low) if found.verdict == "harms" else (by.value, by.low, by.high)
    model = _(MODELS[found.model])
    return words % {
        "model": f"{model[:1].upper()}{model[1:]}",
        "by": four_digits(value),
        "low": four_digits(low),
        "high": four_digits(high),
    }


def _reasons(report: SiteResult) -> Iterator[str]:
    models = [one for one in (report.own, report.shared, report.personalised) if one is not None]
    found = [reason for one in models for reason in (one.reason, *(each.reason for each in one.metrics.values()))]
    found += [one.reason for one in report.benefit]
    found += [] if report.kept is None else [report.kept.because]
    yield from (reason for reason in found if reason)


def _panels(report: SiteResult) -> Iterator[Panel]:
    own, shared = report.own.curves, report.shared.curves
    if own.roc or shared.roc:
        yield Panel(_("ROC"), roc("own-roc", _("ROC"), own, shared))
    if own.calibration or shared.calibration:
        yield Panel(_("Calibration"), calibration("own-calibration", _("Calibration"), own, shared))
