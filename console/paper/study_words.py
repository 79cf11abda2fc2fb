"""What the statement and the DPIA annex say alike of a study: purpose, columns, what left, promise, approvals.

Facts of the plan stand as the plan has them, in its own language.
"""

import json
from collections.abc import Iterator

from wardround.client.governance import CONSORTIUM_DOMAIN
from wardround.console.paper.blocks import (
    Block,
    Box,
    Bullets,
    Cell,
    Column,
    Fact,
    Facts,
    Heading,
    Row,
    Table,
    Text,
    Tone,
)
from wardround.console.paper.model import About, Line, Paper, Spending
from wardround.console.paper.terms import Words, clean, delta_text
from wardround.console.reports import indicators_words
from wardround.console.reports.task_words import label_words, unit_words, weights_words
from wardround.console.reports.words import picture_words
from wardround.protocol.contract import DataContract, NumberColumn
from wardround.protocol.indicators import Indicators
from wardround.protocol.plan import Claim, PrivacyMode, StudyPlan
from wardround.protocol.secagg import colluding
from wardround.protocol.statistics import Statistics


def standing(about: About, words: Words) -> str:
    """Whether officers let the study run here."""
    _ = words._
    if about.refused:
        return _("refused by an officer of this site")
    if not about.granted:
        return _("not approved at this site")
    return _("approved") if any(one.blocks for one in about.granted) else _("approved once, and revoked")


def purpose(about: About, words: Words) -> Iterator[Block]:
    """Why, who answers for it, and until when."""
    _, terms = words._, about.plan.governance
    begun, until = (words.day(day.isoformat()) for day in (terms.proposed_on, terms.expires_on))
    yield Heading(_("Purpose and responsibility"))
    yield Facts(
        (
            Fact(_("Purpose"), clean(terms.purpose)),
            Fact(_("Controllers"), clean("; ".join(f"{one.name} ({one.role})" for one in terms.controllers))),
            Fact(_("Legal basis, as the plan names it"), clean(terms.legal_basis)),
            Fact(_("Ethics reference"), clean(terms.ethics_reference)),
            Fact(_("Recipients of the model"), clean("; ".join(terms.recipients))),
            Fact(_("Permitted use"), clean(terms.permitted_use)),
            Fact(_("Valid"), f"{begun} \N{EN DASH} {until}"),
            Fact(_("Takes part"), clean(", ".join(one.site for one in about.plan.participants))),
            Fact(_("Standing at this site"), standing(about, words)),
        )
    )


def columns(about: About, words: Words) -> Iterator[Block]:
    """What is read of the site's data."""
    _, contract = words._, about.plan.contract
    yield Heading(_("What is read at this site"))
    if isinstance(about.plan.task, Indicators):
        kinds = sorted({kind for each in about.plan.task.indicators for kind in each.kinds})
        said = _(
            "Events of these kinds, each with a patient's identifier, a time and an amount: {kinds}. No other is read."
        )
        yield Text(said.format(kinds=clean(", ".join(kinds))))
        yield Facts(
            tuple(
                Fact(clean(name), clean(asked)) for name, asked in indicators_words.asked(about.plan, about.plan.task)
            )
        )
        return
    if contract is None:
        yield Text(_("The plan describes no columns: it was made by a program, for simulations only."))
        return
    rows = [
        Row((Cell(clean(c.name), code=True), Cell(clean(c.meaning)), Cell(_range(c, words)))) for c in contract.columns
    ]
    rows.append(
        Row(
            (
                Cell(clean(", ".join(contract.label.columns)), code=True),
                Cell(clean(label_words(contract))),
                Cell(_("read besides") if isinstance(about.plan.task, Statistics) else _("what the model predicts")),
            )
        )
    )
    if contract.patient_id is not None:
        rows.append(
            Row(
                (
                    Cell(clean(contract.patient_id), code=True),
                    Cell(_("tells patients apart")),
                    Cell(_("never leaves the site")),
                )
            )
        )
    yield Table(
        _("No other column is read."),
        (Column(_("Column"), 3), Column(_("Meaning"), 5), Column(_("Range or codes"), 4)),
        tuple(rows),
    )
    yield from _pictures(contract, words)


def left(about: About, words: Words) -> Iterator[Block]:
    """What left the site, and when."""
    _, plan = words._, about.plan
    yield Heading(_("What left this site, and when"))
    masked = plan.privacy.secure_aggregation
    each = words.ngettext(
        "In each answer one vector of {count} number left the site",
        "In each answer one vector of {count} numbers left the site",
        plan.layout.size,
    )
    how = (
        _("under masks, so that only a sum over hospitals can be opened")
        if masked
        else _("readable by the coordinator")
    )
    yield Text(
        _("{each}, {how}, with signatures. No record, count, metric or text of a patient.").format(each=each, how=how)
    )
    if not about.left:
        yield Text(_("No answer of this study has left this site so far."))
        return
    total = sum(one.answers for one in about.left)
    rows = tuple(
        Row(
            tuple(
                map(
                    Cell,
                    (words.day(one.span), words.numbers(one.first_round, one.last_round), words.number(one.answers)),
                )
            )
        )
        for one in about.left
    )
    yield Table(
        words.ngettext(
            "{count} answer in all; an answer that was sent again counts again.",
            "{count} answers in all; an answer that was sent again counts again.",
            total,
        ),
        (Column(_("When (UTC)"), 4), Column(_("Rounds"), 4), Column(_("Answers"), 2, right=True)),
        rows,
    )


def promise(about: About, words: Words) -> Iterator[Block]:
    """The privacy promise as it may be written, with both curves where there are two, or plainly none."""
    _, plan, terms = words._, about.plan, about.plan.privacy
    yield Heading(_("How patients are protected"))
    if terms.mode is PrivacyMode.NONE:
        masked = terms.secure_aggregation
        yield Box(words.unbounded() if masked else _("no protection"), tuple(_unbounded(plan, words)), Tone.ALERT)
        return
    spent = [one for one in about.spendings if one.epsilon is not None]
    sentences = [_spent_words(one, plan, words) for one in spent]
    if not spent:
        sentences = [_("Nothing has been charged for this study at this site so far.")]
    yield Box(_("So far"), tuple(sentences))
    yield Facts(tuple(_promise_facts(about, words)))
    yield from _domains_table(about, words)
    yield Text(
        _(
            "Accountant: dp-accounting, the smaller of its Rényi and PLD bounds. Assumed: this site's machine ran the "
            "version named below, and its operating system's random numbers cannot be predicted."
        ),
        muted=True,
    )


def approvals(about: About, words: Words) -> Iterator[Block]:
    """Who approved, when, and at which entry of the ledger."""
    _ = words._
    yield Heading(_("Who approved"))
    if not about.approvals:
        yield Text(_("No officer of this site has approved this plan."))
        return
    rows = tuple(_approval(line, words) for line in about.approvals)
    yield Table(
        _("Entries of this site's ledger, each signed by the officers with their own keys."),
        (Column(_("Entry"), 20), Column(_("When"), 42, whole=True), Column(_("Officers"), 34), Column(_("What"), 74)),
        rows,
    )


def exact(paper: Paper, about: About, words: Words) -> Iterator[Block]:
    """Digests and versions."""
    _ = words._
    yield Heading(_("Names that are exact"))
    yield Facts(
        (
            Fact(_("Plan digest"), about.digest, code=True),
            Fact(_("Code version of the plan"), clean(about.plan.code_version), code=True),
            Fact(_("Behaviour digest of the plan"), about.plan.behaviour, code=True),
            Fact(_("Plan received"), words.moment(about.received_at)),
            *software(paper, words),
        )
    )


def software(paper: Paper, words: Words) -> Iterator[Fact]:
    """What made the paper."""
    _ = words._
    versions = ", ".join(f"{name} {version}" for name, version in sorted(paper.software.items()) if name != "behaviour")
    yield Fact(_("This paper was made by"), clean(versions))
    yield Fact(_("Behaviour digest installed here"), clean(paper.software.get("behaviour", "")), code=True)


def not_claimed(about: About | None, words: Words) -> Iterator[Block]:
    """What the paper may not be quoted for."""
    _ = words._
    items = [
        _(
            "It does not say that nobody can be recognised in data or model. An epsilon bounds how much one person's "
            "part can be told; it is not zero, and that judgement is a legal one."
        ),
        _(
            "It does not say that the study is lawful. A law asks for purposes, legal bases, contracts and people; a "
            "number can support such an assessment, and is none."
        ),
        _("It does not say that nothing leaves the hospital: a vector leaves in each round."),
        _("Secure aggregation hides single contributions, never what the sum tells."),
        _("Each site's promise is about its own records: for a patient of several sites the costs can add up."),
        _("The unit is one patient: that the hospital took part is not hidden."),
        _("It protects neither from the hospital's own machine or staff, nor from poisoned data or false updates."),
        _("Nothing is said about timing, memory or power."),
        _("A budget is for life: time, a new study or a new model refills none."),
    ]
    if about is not None and about.plan.privacy.claim is Claim.EPSILON_BOTH:
        items.insert(
            0,
            _("The figure against the coordinator holds for no more colluding hospitals than it names."),
        )
    yield Heading(_("What this paper may not be quoted for"))
    yield Bullets(tuple(items))


def _range(column: object, words: Words) -> str:
    if isinstance(column, NumberColumn):
        unit = "" if column.unit == "1" else f" {unit_words(column.unit)}"
        low, high = (words.marked(f"{one:g}") for one in (column.minimum, column.maximum))
        return clean(f"{low} \N{EN DASH} {high}{unit}")
    codes = getattr(column, "codes", {})
    return clean("; ".join(f"{code} = {meaning}" for code, meaning in codes.items()))


def _pictures(contract: DataContract, words: Words) -> Iterator[Block]:
    _ = words._
    if contract.image is not None:
        yield Text(_("Of each picture: {what}.").format(what=clean(picture_words(contract.image))))


def _unbounded(plan: StudyPlan, words: Words) -> Iterator[str]:
    _ = words._
    if plan.privacy.secure_aggregation:
        yield _(
            "This study has no differential privacy. The coordinator sees only sums over all {sites} hospitals, and "
            "nothing bounds what these tell of a patient."
        ).format(sites=words.number(len(plan.participants)))
        yield _("No epsilon can be stated. Two officers of the site signed that it may run, and why.")
    else:
        yield _("This study has no differential privacy and no secure aggregation: for public or synthetic data only.")


def _spent_words(one: Spending, plan: StudyPlan, words: Words) -> str:
    _ = words._
    assert one.epsilon is not None
    if isinstance(plan.task, Indicators):
        return _(
            "This site's part in the whole campaign is differentially private for any single patient: {epsilon}, "
            "charged once on '{domain}'."
        ).format(epsilon=words.sentence(one.epsilon), domain=clean(one.domain))
    rounds = words.ngettext("{count} charged round", "{count} charged rounds", sum(c.blocks for c in one.charges))
    return _(
        "This site's part in the study so far is differentially private for any single patient: {epsilon}, after "
        "{rounds} on '{domain}'."
    ).format(epsilon=words.sentence(one.epsilon), rounds=rounds, domain=clean(one.domain))


def _promise_facts(about: About, words: Words) -> Iterator[Fact]:
    _, plan, terms = words._, about.plan, about.plan.privacy
    modes = {
        PrivacyMode.LOCAL: _("local: this site adds all of the noise for its patients itself"),
        PrivacyMode.DIST: _("dist: each site adds a share of the noise, so there are two figures"),
    }
    yield Fact(_("Mode"), modes.get(terms.mode, clean(str(terms.mode))))
    if terms.noise_multiplier is not None and terms.sampling_probability is not None:
        counts = isinstance(plan.task, Statistics | Indicators)
        yield Fact(
            _("Mechanism"),
            _(
                "every patient in the sum, who moves all figures together by a vector of length {clip} at most, "
                "Gaussian noise of {sigma} times that"
            ).format(
                clip=words.marked(f"{terms.clip_norm:g}"),
                sigma=words.marked(f"{terms.noise_multiplier:g}"),
            )
            if counts
            else _(
                "patients drawn by Poisson sampling with probability {q}, each patient's gradient clipped to "
                "norm {clip}, Gaussian noise of {sigma} times that"
            ).format(
                q=words.marked(f"{terms.sampling_probability:g}"),
                clip=words.marked(f"{terms.clip_norm:g}"),
                sigma=words.marked(f"{terms.noise_multiplier:g}"),
            ),
        )
    if terms.delta is not None:
        yield Fact("δ", words.marked(delta_text(terms.delta)))
    yield Fact(_("Unit"), _("one patient of one site"))
    yield Fact(_("Adjacency"), _("add or remove one patient"))
    yield Fact(_("Who may collude"), _colluders(plan, words))
    yield Fact(_("Secure aggregation"), _aggregation(plan, words))
    for line in weights_words(plan):
        yield Fact(_("Trained elsewhere"), clean(line))


def _colluders(plan: StudyPlan, words: Words) -> str:
    _ = words._
    if plan.privacy.claim is not Claim.EPSILON_BOTH:
        return _("everyone outside this site, coordinator and all other hospitals included")
    few = colluding(len(plan.participants))
    allowed = (
        _("one other hospital or the coordinator, by itself")
        if few == 0
        else words.ngettext(
            "the coordinator and {count} other hospital", "the coordinator and {count} other hospitals", few
        )
    )
    return _("first figure: everyone outside this site; second figure: {allowed}").format(allowed=allowed)


def _aggregation(plan: StudyPlan, words: Words) -> str:
    _ = words._
    if not plan.privacy.secure_aggregation:
        return _("off: the coordinator sees this site's own noised update")
    if plan.privacy.outsiders_only:
        return _("on, against outsiders only: one authority directs the coordinator and a hospital")
    return words.ngettext(
        "on: sums over at least {count} hospital are opened",
        "on: sums over at least {count} hospitals are opened",
        plan.sum_threshold,
    )


def _domains_table(about: About, words: Words) -> Iterator[Block]:
    """One row a domain: charged so far, and what all approved rounds would cost."""
    _ = words._
    if not about.granted:
        return
    spent = {one.domain: one for one in about.spendings}
    rows = []
    for one in about.granted:
        held = spent.get(one.domain)
        so_far = Cell(_("nothing charged")) if held is None else words.cell(held.epsilon)
        most = words.cell(one.epsilon) if one.blocks else Cell(_("revoked"))
        name = (
            _("against the coordinator and colluding hospitals")
            if one.domain == CONSORTIUM_DOMAIN
            else _("against everyone")
        )
        blocks = (
            _("the whole campaign approved")
            if isinstance(about.plan.task, Indicators)
            else words.ngettext("{count} round approved", "{count} rounds approved", one.blocks)
        )
        below = _("{against}; {rounds}").format(against=name, rounds=blocks)
        rows.append(Row((Cell(clean(one.domain), below), so_far, most)))
    yield Table(
        _("What the ledger has charged, and what all rounds that officers approved would cost."),
        (Column(_("Data domain"), 3), Column(_("Charged so far"), 4), Column(_("All approved rounds"), 4)),
        tuple(rows),
    )


def _approval(line: Line, words: Words) -> Row:
    _ = words._
    fact = json.loads(line.content or "{}").get("fact", {})
    officers = clean(", ".join(one["officer"] for one in fact.get("approvals", ())))
    when = Cell(words.moment(line.at))
    if line.kind == "waive":
        said = _("waiver for '{domain}': no privacy guarantee, sums only; reason: {reason}").format(
            domain=clean(fact["domain"]), reason=clean(fact["reason"])
        )
        return Row((Cell(words.number(line.number)), when, Cell(officers), Cell(said)), Tone.ALERT)
    if fact.get("blocks"):
        rounds = words.ngettext("{count} round", "{count} rounds", fact["blocks"])
        said = _("approval of {rounds} on '{domain}'").format(rounds=rounds, domain=clean(fact["domain"]))
    else:
        said = _("approval for '{domain}' revoked").format(domain=clean(fact.get("domain", "")))
    return Row((Cell(words.number(line.number)), when, Cell(officers), Cell(said)))
