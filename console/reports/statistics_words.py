"""What a statistics study asks, in words for the people who approve it, in the reader's language."""

from wardround.console.i18n import _, ngettext, numeral
from wardround.console.reports.numbers import choice, listed
from wardround.protocol.evaluated import EvaluatedModel
from wardround.protocol.plan import StudyPlan
from wardround.protocol.queries import (
    Correlation,
    Count,
    Evaluation,
    Histogram,
    LinearRegression,
    LogisticRegression,
    Mean,
    PiecewiseExponential,
    PredictionError,
    Quantiles,
    SegmentationEvaluation,
    Sum,
    Survival,
    SurvivalEvaluation,
    Variance,
)
from wardround.protocol.query import BaseQuery, By, Range, Where
from wardround.protocol.statistics import Statistics


def asked(task: Statistics) -> list[tuple[str, str]]:
    """(name, words) of every query: what is counted of whom, with every bound that an officer answers for."""
    return [(query.name, _query_words(query)) for query in task.queries]


def whose_words(task: Statistics) -> str:
    """Whose records are read, and whether figures of one hospital are released; their own budgets are charged."""
    words = {
        "everyone": _("every patient of the site, who trains and who tests: the budgets of both are charged"),
        "training": _("the patients who train; their budget is charged"),
        "test": _("the patients who test; their budget is charged"),
    }[task.patients]
    if not task.by_site:
        return words
    alone = _("the figures of each hospital by itself are released, with its name and its own full noise")
    return f"{words}; {alone}"


def mechanism_words(plan: StudyPlan) -> str:
    """What protects the patients in a study that counts."""
    words = _(
        "every patient is in the sum; all figures together are scaled so that one patient moves them by a vector of "
        "length 1 at most, and each gets Gaussian noise of standard deviation %(noise)s"
    )
    return words % {"noise": numeral(plan.privacy.noise_multiplier or 0.0)}


def _query_words(query: BaseQuery) -> str:
    parts = [_what(query)]
    if query.by:
        parts.append(_("by %(columns)s") % {"columns": listed([_by(each) for each in query.by])})
    if query.where:
        parts.append(_("only where %(rules)s") % {"rules": listed([_rule(rule) for rule in query.where])})
    if query.at_least_sites:
        places = {"sites": numeral(query.at_least_sites), "patients": numeral(query.patients_at_site)}
        words = _(
            "a group is shown only where at least %(sites)s hospitals are known to have such patients, a hospital of "
            "%(patients)s in full"
        )
        parts.append(words % places)
    count = query.rows_per_patient
    parts.append(
        ngettext("a patient counts as at most %(count)s row", "a patient counts as at most %(count)s rows", count)
        % {"count": numeral(count)}
    )
    return "; ".join(parts)


def _what(query: BaseQuery) -> str:
    match query:
        case Count():
            return _("how many patients there are")
        case Sum():
            return _("the sum of %(column)s") % {"column": _range(query.of)}
        case Mean():
            return _("the mean of %(column)s") % {"column": _range(query.of)}
        case Variance():
            return _("variance and standard deviation of %(column)s") % {"column": _range(query.of)}
        case Histogram():
            places = {"count": numeral(len(query.cuts) + 1), "column": f"'{query.column}'"}
            return _("how many patients are in each of %(count)s intervals of %(column)s") % places
        case Quantiles():
            return _("quantiles of %(column)s") % {"column": _range(query.of)}
        case Correlation():
            return _("the correlation of %(columns)s") % {"columns": listed([_range(of) for of in query.of])}
        case LinearRegression():
            columns = listed([_range(of) for of in query.of])
            return _("linear regression of %(outcome)s on %(columns)s") % {
                "outcome": _range(query.outcome),
                "columns": columns,
            }
        case LogisticRegression():
            columns = listed([*(_range(of) for of in query.of), *(f"'{name}'" for name in query.flags)])
            return _(
                "logistic regression of '%(outcome)s' on %(columns)s, in rounds of which each is charged; penalty "
                "%(ridge)s"
            ) % {"outcome": query.outcome, "columns": columns, "ridge": numeral(query.ridge)}
        case Survival():
            return _("survival by the columns '%(time)s' and '%(event)s'") % {"time": query.time, "event": query.event}
        case PiecewiseExponential():
            places = {"count": numeral(len(query.times)), "time": query.time, "event": query.event}
            return _("rates of '%(event)s' in %(count)s intervals of '%(time)s'") % places
        case Evaluation():
            places = _names(query.model) | {
                "outcome": query.outcome,
                "count": numeral(query.bins),
                "loss": numeral(query.largest_loss),
            }
            if query.model.file is None:
                words = _(
                    "how well the model in training predicts '%(outcome)s': its probability in %(count)s intervals, "
                    "Brier score, log loss up to %(loss)s"
                )
                return words % places
            words = _(
                "how well the finished model %(model)s of plan %(plan)s predicts '%(outcome)s': its probability in "
                "%(count)s intervals, Brier score, log loss up to %(loss)s"
            )
            return words % places
        case PredictionError():
            places = _names(query.model) | {"outcome": query.outcome, "most": numeral(query.largest_error)}
            if query.model.file is None:
                return _("how far the model in training is from '%(outcome)s', up to %(most)s") % places
            return (
                _("how far the finished model %(model)s of plan %(plan)s is from '%(outcome)s', up to %(most)s")
                % places
            )
        case SurvivalEvaluation():
            return _survival_evaluation(query)
        case SegmentationEvaluation():
            return _segmentation_evaluation(query)
    raise TypeError(f"no words for a query of type {type(query).__name__}")


def _survival_evaluation(query: SurvivalEvaluation) -> str:
    places = _names(query.model) | {
        "time": query.time,
        "event": query.outcome,
        "count": numeral(query.bins),
        "times": listed([numeral(time) for time in query.times]),
    }
    if query.model.file is None:
        words = _(
            "how well the model in training ranks patients by '%(time)s' and '%(event)s': its risk in %(count)s "
            "intervals, at the times %(times)s"
        )
        return words % places
    if not query.baseline:
        words = _(
            "how well the finished model %(model)s of plan %(plan)s ranks patients by '%(time)s' and '%(event)s': its "
            "risk in %(count)s intervals, at the times %(times)s"
        )
        return words % places
    words = _(
        "how well the finished model %(model)s of plan %(plan)s predicts survival by '%(time)s' and '%(event)s': its "
        "risk in %(count)s intervals, and its Brier score at the times %(times)s"
    )
    return words % places


def _segmentation_evaluation(query: SegmentationEvaluation) -> str:
    structures = listed([f"'{structure}'" for structure in query.structures])
    places = _names(query.model) | {"structures": structures, "column": query.outcome}
    if query.model.file is None:
        words = _(
            "how well the model in training marks %(structures)s: the mean of patients' Dice against the masks of "
            "'%(column)s'"
        )
    else:
        words = _(
            "how well the finished model %(model)s of plan %(plan)s marks %(structures)s: the mean of patients' Dice "
            "against the masks of '%(column)s'"
        )
    if query.largest_volume is None:
        return words % places
    pooled = _("and Dice of all patients together, where a patient's volume counts up to %(most)s voxels")
    return f"{words % places}, {pooled % {'most': numeral(query.largest_volume)}}"


def _names(model: EvaluatedModel) -> dict[str, str]:
    """Of a released model the beginnings of its hash and of the plan that trained it."""
    return {"model": (model.hash or "")[:12], "plan": (model.trained_by or "")[:12]}


def _range(of: Range) -> str:
    """A column and to what its values are clipped."""
    return _("'%(column)s' (%(low)s to %(high)s)") % {
        "column": of.column,
        "low": numeral(of.lower),
        "high": numeral(of.upper),
    }


def _by(each: By) -> str:
    return f"'{each.column}'" + (f" ({', '.join(map(numeral, each.cuts))})" if each.cuts else "")


def _rule(rule: Where) -> str:
    if rule.codes:
        return f"'{rule.column}' = {choice(rule.codes)}"
    low = "" if rule.at_least is None else f"{numeral(rule.at_least)} ≤ "
    high = "" if rule.below is None else f" < {numeral(rule.below)}"
    return f"{low}'{rule.column}'{high}"
