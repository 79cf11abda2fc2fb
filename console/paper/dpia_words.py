"""The annex to a data protection impact assessment (GDPR Art. 35(7)): facts that the software knows, and blanks.

Whether processing is necessary, proportionate and lawful is for people to say; here they find where to say it.
"""

from collections.abc import Iterator

from wardround.console.paper import study_words
from wardround.console.paper.anchor_words import checkpoint, footer
from wardround.console.paper.audit_words import budget_blocks
from wardround.console.paper.blocks import Blank, Block, Box, Bullets, Heading, Sheet, Text
from wardround.console.paper.model import About, Paper
from wardround.console.paper.terms import Words, clean
from wardround.protocol.plan import PrivacyMode


def dpia_sheet(paper: Paper, about: About, digest: str, signed: str, words: Words) -> Sheet:
    """``digest`` names the signed content; ``signed`` is the file name under which it is attached."""
    _ = words._
    kind, law = _("DPIA annex"), _("DPIA annex (GDPR Art. 35)")
    return Sheet(
        eyebrow=f"Wardround · {law} · {clean(paper.site)} · {words.moment(paper.made_at)}",
        title=clean(about.plan.title),
        lead=_("A template: what is printed are facts that the software knows; what is asked, people must write."),
        blocks=tuple(_blocks(paper, about, words)),
        footer=footer(paper, kind, digest, words),
        language=paper.language,
        signed=signed,
    )


def _blocks(paper: Paper, about: About, words: Words) -> Iterator[Block]:
    _ = words._
    asked = _("To be written:")
    yield Box(
        _("How to use this annex"),
        (
            _("It supports an assessment and is none. Fields marked 'To be written' are empty on purpose."),
            _("It is signed with its blanks empty: write on the printed copy, or in a document of your own beside it."),
        ),
    )
    yield Heading(_("(a) Systematic description of the processing: Art. 35(7)(a)"))
    yield from _below(study_words.purpose(about, words))
    yield Blank(asked, _("Interests pursued by the controllers, and the context of the processing"))
    yield from _below(study_words.columns(about, words))
    yield Blank(asked, _("Whose data these are: which patients, from when to when, and how they were informed"))
    yield from _below(study_words.left(about, words))
    yield Blank(asked, _("How long data, model and this site's records are kept, and by whom"))
    yield Heading(_("(b) Necessity and proportionality: Art. 35(7)(b)"))
    yield Text(_("The plan names the legal basis, the permitted use and the day on which it ends; see (a)."))
    yield Blank(asked, _("Why this processing is necessary for the purpose, and why these columns and no fewer"), 4)
    yield Blank(
        asked, _("Legal basis in your law, and how patients' rights (information, access, objection) are served"), 4
    )
    yield Heading(_("(c) Risks to the rights and freedoms of patients: Art. 35(7)(c)"))
    yield Bullets(tuple(_risks(about, words)))
    yield Blank(asked, _("Likelihood and severity of each risk here, and risks that the software cannot know"), 5)
    yield Heading(_("(d) Measures: Art. 35(7)(d)"))
    yield from _below(study_words.promise(about, words))
    for budget in about.budgets:
        yield from budget_blocks(budget, words)
    yield from _below(study_words.approvals(about, words))
    yield Heading(_("What the software does besides"), 3)
    yield Bullets(tuple(_measures(words)))
    yield Blank(asked, _("Measures of the hospital: access, physical security, training, contracts, incidents"), 5)
    yield Heading(_("Advice and decision"))
    yield Blank(asked, _("Advice of the data protection officer: Art. 35(2)"))
    yield Blank(asked, _("Views of patients or their representatives, where sought: Art. 35(9)"))
    yield Blank(asked, _("Decision, remaining risk, and whether the authority is consulted: Art. 36"))
    yield Blank(asked, _("Name, function, date, signature"), 2)
    yield from study_words.not_claimed(about, words)
    yield from study_words.exact(paper, about, words)
    yield from checkpoint(paper, words)


def _below(blocks: Iterator[Block]) -> Iterator[Block]:
    """The same blocks one level further down."""
    for block in blocks:
        yield Heading(block.text, block.level + 1) if isinstance(block, Heading) else block


def _risks(about: About, words: Words) -> Iterator[str]:
    _, terms = words._, about.plan.privacy
    if terms.mode is PrivacyMode.NONE:
        yield _(
            "Somebody who sees a sum or the model learns about a single patient: nothing bounds it "
            "(no privacy guarantee, sums only)."
        )
    else:
        yield _(
            "Somebody who sees what left learns whether a person was among the patients: bounded as stated in (d), "
            "and not zero."
        )
    if not terms.secure_aggregation:
        yield _("The coordinator sees this site's own update in each round.")
    yield _(
        "A patient who is known at several sites can be told from all of their parts: the costs add up, and no site "
        "knows of the other."
    )
    yield _("The model can be wrong for patients elsewhere. It is no medical device.")
    yield _("The hospital's own machine or staff can misuse records: outside of what the software can prevent.")


def _measures(words: Words) -> Iterator[str]:
    _ = words._
    yield _("Records stay at the hospital. What leaves in a round is one vector with signatures.")
    yield _(
        "The budget is charged before a patient is drawn; a crash gives nothing back once anything may have been drawn."
    )
    yield _(
        "Every charge, approval, refusal and release is an entry of a signed ledger that anybody with the key can "
        "verify."
    )
    yield _("Patients who opted out are left out of every round from the next one on.")
    yield _("An approval can be revoked at any time; work ends before its next step.")
