"""The privacy statement of one study at one site, in words."""

from collections.abc import Iterator

from wardround.console.paper import study_words
from wardround.console.paper.anchor_words import checkpoint, footer
from wardround.console.paper.blocks import Block, Sheet
from wardround.console.paper.model import About, Paper
from wardround.console.paper.terms import Words, clean


def statement_sheet(paper: Paper, about: About, digest: str, signed: str, words: Words) -> Sheet:
    """``digest`` names the signed content; ``signed`` is the file name under which it is attached."""
    _ = words._
    kind = _("Privacy statement")
    return Sheet(
        eyebrow=f"Wardround · {kind} · {clean(paper.site)} · {words.moment(paper.made_at)}",
        title=clean(about.plan.title),
        lead=_(
            "What the study '{study}' reads at {site}, what left, what it cost patients' privacy, and who approved it."
        ).format(study=clean(about.plan.study), site=clean(paper.site)),
        blocks=tuple(_blocks(paper, about, words)),
        footer=footer(paper, kind, digest, words),
        language=paper.language,
        signed=signed,
    )


def _blocks(paper: Paper, about: About, words: Words) -> Iterator[Block]:
    yield from study_words.promise(about, words)
    yield from study_words.purpose(about, words)
    yield from study_words.columns(about, words)
    yield from study_words.left(about, words)
    yield from study_words.approvals(about, words)
    yield from study_words.not_claimed(about, words)
    yield from study_words.exact(paper, about, words)
    yield from checkpoint(paper, words)
