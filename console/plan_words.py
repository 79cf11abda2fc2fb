"""A plan in words: all that an officer answers for when she approves it.

The words exist once: a page shows them as headed facts, the command line as lines. Others wrote the plan, so its texts
are shown with every control character spelt out: no title clears the screen, starts a line of its own or turns the
direction of writing (CWE-150). ``plan_changes`` says what changed since she last approved one.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from wardround.console.i18n import _, ngettext, numeral
from wardround.console.reports import indicators_words, statistics_words
from wardround.console.reports.numbers import listed
from wardround.console.reports.task_words import label_words, model_words, unit_words, weights_words
from wardround.console.reports.words import picture_words, strategy_words
from wardround.protocol.contract import NumberColumn
from wardround.protocol.indicators import Indicators
from wardround.protocol.plan import Claim, PrivacyMode, StudyPlan
from wardround.protocol.secagg import colluding
from wardround.protocol.statistics import Statistics


@dataclass(frozen=True, slots=True)
class Term:
    """One term of a plan. ``given``: the text is the plan's own, not our words; ``code``: it is to be compared."""

    name: str
    text: str
    given: bool = False
    code: bool = False


@dataclass(frozen=True, slots=True)
class ColumnTerm:
    """A column that is read: ``allowed`` are its range, or its codes with their meanings, which are ``given``."""

    name: str
    meaning: str
    unit: str
    allowed: str
    given: bool


@dataclass(frozen=True, slots=True)
class Section:
    """Terms that belong together. ``warnings`` come first: what a reader must not miss."""

    key: str
    heading: str
    terms: tuple[Term, ...]
    warnings: tuple[Term, ...] = ()
    columns: tuple[ColumnTerm, ...] = ()


_NO_BREAK: Final = "\N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}"
"""Spaces that French has before its colons and between thousands: they are shown as what they are."""


def plain(text: str) -> str:
    """``text`` on one line, as a terminal may show it: what is not printable is escaped, wide gaps are closed."""
    return re.sub(r"(?<=\S) {2,}", " ", shown_line(text))


def shown_line(text: str) -> str:
    """A line of others' code: as ``plain``, but its spaces stay, for they mean something."""
    return "".join(
        char if char.isprintable() or char in _NO_BREAK else char.encode("unicode_escape").decode() for char in text
    )


def in_words(plan: StudyPlan) -> Iterator[str]:
    """Every term of the plan as lines, in the order in which people ask."""
    return map(plain, _lines(plan))


def _lines(plan: StudyPlan) -> Iterator[str]:
    yield plan.title
    yield f"{_('Plan')} {plan.digest}"
    for section in sections(plan):
        yield from (f"{warning.name.upper()}: {warning.text}" for warning in section.warnings)
        if section.columns:
            yield f"{section.heading}:"
        for column in section.columns:
            yield f"  {column.name}: {column.meaning}, {column.allowed} {column.unit}".rstrip()
        indent = "  " if section.columns else ""
        yield from (f"{indent}{term.name}: {term.text}" for term in section.terms)


def sections(plan: StudyPlan) -> tuple[Section, ...]:
    """Every term of the plan under its heading, in the same order."""
    return (
        Section("why", _("Why, and who answers for it"), tuple(_why(plan))),
        Section("who", _("Who takes part"), tuple(_takes_part(plan))),
        _reads(plan),
        Section("training", _("What is computed"), tuple(_training(plan))),
        Section("leaves", _("What leaves your site"), tuple(_leaves(plan))),
        Section("protection", _("How patients are protected"), tuple(_protection(plan)), tuple(_warnings(plan))),
        Section("exact", _("Names that are exact"), tuple(_exact(plan))),
    )


def charge_noun(plan: StudyPlan, count: int) -> str:
    """What the ledger charges ``count`` times: rounds, or a campaign of indicators as a whole; at the command line."""
    noun = "campaign" if isinstance(plan.task, Indicators) else "round"
    return noun if count == 1 else noun + "s"


def campaign_words(plan: StudyPlan) -> tuple[Term, ...]:
    """What a campaign publishes and how often, who may be away and how it is charged; nothing of another plan."""
    if not isinstance(plan.task, Indicators):
        return ()
    task, absence = plan.task, f"{indicators_words.absence_words(plan)} {indicators_words.retry_words(plan.task)}"
    return (
        *(
            Term(_("Published: %(indicator)s") % {"indicator": name}, words)
            for name, words in indicators_words.asked(plan, task)
        ),
        Term(_("How often and how long"), indicators_words.ticks_words(task)),
        Term(_("Who may be away"), absence),
        Term(_("Charged"), indicators_words.charge_words(task)),
    )


def conditions_words(delta: float, against: str) -> str:
    """``privacy.meaning.conditions`` in the reader's language: what must stand near every epsilon."""
    return _(
        "at delta %(delta)s; unit: one patient of one site; adjacency: add or remove one patient; against %(against)s"
    ) % {"delta": numeral(delta), "against": against}


def everyone_words() -> str:
    """Against whom a site's own noise protects."""
    return _("everyone, whoever colludes")


def consortium_words(plan: StudyPlan) -> str:
    """Against whom the noise of several sites protects."""
    count = max(colluding(len(plan.participants)), 1)
    return ngettext(
        "the coordinator and at most %(count)s other hospital",
        "the coordinator and at most %(count)s other hospitals",
        count,
    ) % {"count": numeral(count)}


def _why(plan: StudyPlan) -> Iterator[Term]:
    about = plan.governance
    yield Term(_("Purpose"), about.purpose, given=True)
    yield Term(_("Controllers"), ", ".join(f"{one.name} ({one.role})" for one in about.controllers), given=True)
    yield Term(_("Legal basis"), about.legal_basis, given=True)
    yield Term(_("Ethics reference"), about.ethics_reference, given=True)
    yield Term(_("Who receives the model"), ", ".join(about.recipients), given=True)
    yield Term(_("Permitted use"), about.permitted_use, given=True)
    yield Term(_("Proposed on"), about.proposed_on.isoformat(), given=True)
    yield Term(_("Expires on"), about.expires_on.isoformat(), given=True)


def _takes_part(plan: StudyPlan) -> Iterator[Term]:
    each = (
        ngettext("%(site)s (about %(count)s patient)", "%(site)s (about %(count)s patients)", one.declared_patients)
        % {"site": one.site, "count": numeral(one.declared_patients)}
        for one in plan.participants
    )
    yield Term(_("Hospitals"), ", ".join(each))
    places = {"quorum": numeral(plan.quorum), "count": numeral(len(plan.participants))}
    yield Term(
        _("Quorum"),
        ngettext(
            "A round needs %(quorum)s of %(count)s hospital",
            "A round needs %(quorum)s of %(count)s hospitals",
            len(plan.participants),
        )
        % places,
    )
    if isinstance(plan.task, Indicators):
        yield from (term for term in campaign_words(plan) if term.name == _("Who may be away"))
    if plan.must_include:
        yield Term(_("Must be in every round"), ", ".join(plan.must_include), given=True)


def _reads(plan: StudyPlan) -> Section:
    contract = plan.contract
    heading = _("What is read at your site")
    if isinstance(plan.task, Indicators):
        kinds = sorted({kind for each in plan.task.indicators for kind in each.kinds})
        words = _("a patient's identifier, the time and the amount of each; none of them leaves the site")
        terms = [Term(_("Kinds of events"), ", ".join(kinds), given=True), Term(_("Of an event"), words)]
        return Section("reads", heading, tuple(terms))
    if contract is None:
        words = _("The plan describes no columns: it was made by a program, for simulations only.")
        return Section("reads", heading, (Term(_("Columns"), words),))
    columns = []
    for column in contract.columns:
        if isinstance(column, NumberColumn):
            reach = _("%(low)s to %(high)s") % {"low": numeral(column.minimum), "high": numeral(column.maximum)}
            unit = "" if column.unit == "1" else unit_words(column.unit)
            columns.append(ColumnTerm(column.name, column.meaning, unit, reach, given=False))
        else:
            codes = "; ".join(f"{code} = {meaning}" for code, meaning in column.codes.items())
            columns.append(ColumnTerm(column.name, column.meaning, "", codes, given=True))
    terms = [] if contract.image is None else [Term(_("Pictures"), picture_words(contract.image))]
    counts = isinstance(plan.task, Statistics)
    terms.append(Term(_("Read besides") if counts else _("What the model predicts"), label_words(contract)))
    if contract.patient_id is not None:
        words = _("column '%(column)s'; it never leaves the site") % {"column": contract.patient_id}
        terms.append(Term(_("Tells patients apart"), words))
    return Section("reads", heading, tuple(terms), columns=tuple(columns))


def _training(plan: StudyPlan) -> Iterator[Term]:
    local = plan.local
    if local.steps is not None:
        much = ngettext("%(count)s step", "%(count)s steps", local.steps)
    else:
        much = ngettext("%(count)s pass over the data", "%(count)s passes over the data", local.epochs or 0)
    much %= {"count": numeral(local.steps or local.epochs or 0)}
    yield Term(_("Model"), model_words(plan))
    if isinstance(plan.task, Statistics):
        yield Term(_("Whose records"), statistics_words.whose_words(plan.task))
        if (follows := plan.follows) is not None:
            words = _("the model after rounds %(rounds)s of the training of plan %(plan)s")
            yield Term(
                _("Evaluated"),
                words % {"rounds": listed([numeral(one) for one in follows.rounds]), "plan": follows.plan},
            )
        for name, words in statistics_words.asked(plan.task):
            yield Term(_("Asked: %(query)s") % {"query": name}, words)
    if isinstance(plan.task, Indicators):
        for name, words in indicators_words.asked(plan, plan.task):
            yield Term(_("Published: %(indicator)s") % {"indicator": name}, words)
    for words in weights_words(plan):
        yield Term(_("Trained elsewhere"), words)
    yield Term(_("Strategy"), strategy_words(plan), given=True)
    if isinstance(plan.task, Indicators):
        yield Term(_("How often and how long"), indicators_words.ticks_words(plan.task))
        yield Term(_("Alarms"), indicators_words.alarm_words(plan.task))
    else:
        words = ngettext(
            "%(count)s round of %(much)s at your site", "%(count)s rounds of %(much)s at your site", plan.rounds
        )
        yield Term(_("Rounds"), words % {"count": numeral(plan.rounds), "much": much})
    yield Term(
        _("Waiting"),
        ngettext(
            "Each round is waited for %(seconds)s s at most and tried %(count)s time at most",
            "Each round is waited for %(seconds)s s at most and tried %(count)s times at most",
            plan.attempts,
        )
        % {"seconds": numeral(plan.deadline_seconds), "count": numeral(plan.attempts)},
    )
    if (beside := plan.evaluation_plan) is not None and beside.follows is not None:
        words = _(
            "after rounds %(rounds)s on the patients who test, by plan %(plan)s: that one is approved by itself, and "
            "charged to their own budget"
        )
        yield Term(
            _("Evaluated meanwhile"),
            words % {"rounds": listed([numeral(one) for one in beside.follows.rounds]), "plan": beside.digest},
        )
    if plan.fall_back_share:
        words = _(
            "about %(share)s of the training patients are drawn in no round; at the end your site compares its own "
            "model with the study's on them and goes on with the better one. The choice and its figures never leave"
        )
        yield Term(_("Fall-back"), words % {"share": numeral(plan.fall_back_share)})


def _leaves(plan: StudyPlan) -> Iterator[Term]:
    if isinstance(plan.task, Indicators):
        words = _(
            "one vector of noised sums, readable by the coordinator, and signatures. No identifier, event or text."
        )
        if plan.privacy.secure_aggregation:
            words = _("one vector of noised sums under masks, and signatures. No identifier, event or text.")
        yield Term(_("In a tick"), words)
        return
    if plan.privacy.secure_aggregation:
        words = _("one vector under masks, and signatures. No loss, count, metric or text.")
    else:
        words = _("one vector, readable by the coordinator, and signatures. No loss, count, metric or text.")
    yield Term(_("In a round"), words)


def _warnings(plan: StudyPlan) -> Iterator[Term]:
    """Where patients are not protected, or from fewer: plainly so."""
    terms, count = plan.privacy, len(plan.participants)
    seen = _("the coordinator sees each hospital's own update.")
    if count < 3:
        pilot = ngettext("This is a pilot of %(count)s hospital", "This is a pilot of %(count)s hospitals", count)
        more = "" if terms.mode is PrivacyMode.NONE else " " + _("Noise alone protects its patients.")
        text = _("So there is no secure aggregation: %(seen)s") % {"seen": seen}
        yield Term(pilot % {"count": numeral(count)}, text + more)
    elif not terms.secure_aggregation:
        yield Term(_("There is no secure aggregation"), seen)
    if terms.claim is Claim.SIMULATION_ONLY:
        yield Term(_("There is no protection at all"), _("for public or synthetic data only."))
    elif terms.mode is PrivacyMode.NONE:
        words = _("there is no differential privacy, and no epsilon bounds what the sums tell of a patient.")
        yield Term(_("No privacy guarantee, sums only"), words)
    if isinstance(plan.task, Indicators) and plan.task.rehearsal_seconds is not None:
        words = _("a tick passes in %(seconds)s s. For made-up events only: no figure of it is of a real day.")
        yield Term(_("This is a rehearsal"), words % {"seconds": numeral(plan.task.rehearsal_seconds)})
    if terms.outsiders_only:
        words = _("sums are hidden from outsiders only.")
        yield Term(_("One authority directs the coordinator and a hospital"), words)


def _protection(plan: StudyPlan) -> Iterator[Term]:
    """How patients are protected, and from whom."""
    terms = plan.privacy
    if terms.delta is not None and terms.epsilon is not None:
        most = _("at most %(epsilon)s %(conditions)s")
        said = {"epsilon": numeral(terms.epsilon), "conditions": conditions_words(terms.delta, everyone_words())}
        yield Term(_("Epsilon of the whole study"), most % said)
        if terms.epsilon_consortium is not None and terms.claim is Claim.EPSILON_BOTH:
            against = consortium_words(plan)
            conditions = conditions_words(terms.delta, against)
            said = {"epsilon": numeral(terms.epsilon_consortium), "conditions": conditions}
            yield Term(_("Against %(against)s only") % {"against": against}, most % said)
        assert terms.sampling_probability is not None and terms.noise_multiplier is not None
        if isinstance(plan.task, Indicators):
            yield Term(_("Charged"), indicators_words.charge_words(plan.task))
        if isinstance(plan.task, Statistics | Indicators):
            said_by = statistics_words if isinstance(plan.task, Statistics) else indicators_words
            yield Term(_("Mechanism"), said_by.mechanism_words(plan))
            yield from _aggregation(plan)
            return
        words = _(
            "each step draws each patient with probability %(q)s, clips the patient's gradient to norm %(clip)s, and "
            "adds Gaussian noise of %(noise)s times that norm"
        )
        yield Term(
            _("Mechanism"),
            words
            % {
                "q": numeral(terms.sampling_probability),
                "clip": numeral(terms.clip_norm),
                "noise": numeral(terms.noise_multiplier),
            },
        )
    yield from _aggregation(plan)


def _aggregation(plan: StudyPlan) -> Iterator[Term]:
    terms, count = plan.privacy, len(plan.participants)
    if terms.secure_aggregation and not terms.outsiders_only:
        words = _(
            "The coordinator learns sums over at least %(least)s hospitals, never one hospital's update, as long as it "
            "colludes with at most %(few)s of the %(count)s"
        )
        yield Term(
            _("Secure aggregation"),
            words % {"least": numeral(plan.sum_threshold), "few": numeral(colluding(count)), "count": numeral(count)},
        )


def _exact(plan: StudyPlan) -> Iterator[Term]:
    yield Term(_("Plan"), plan.digest, given=True, code=True)
    yield Term(_("Code version"), plan.code_version, given=True, code=True)
    yield Term(_("Behaviour"), plan.behaviour, given=True, code=True)
