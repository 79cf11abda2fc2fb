"""The checkpoint on a paper: what it is, who signed it besides the site, what it continues, and the QR code's text."""

from collections.abc import Iterator
from hashlib import sha256

from wardround.client.store.keys import fingerprint
from wardround.console.paper.blocks import Block, Box, Cell, Column, Fact, Facts, Footer, Heading, Row, Table, Tone
from wardround.console.paper.model import Anchor, Paper
from wardround.console.paper.terms import Words, clean
from wardround.protocol.checkpoint import Checkpoint, parse_checkpoint, parse_note


def checkpoint_of(anchor: Anchor, site: str) -> Checkpoint:
    """What the paper's checkpoint says; its signature is checked elsewhere. Raises ProtocolViolation when malformed."""
    return parse_checkpoint(parse_note(anchor.note.encode(), site).text, site)


def checkpoint_hash(anchor: Anchor, site: str) -> str:
    """SHA-256 of the text that its signatures cover, 64 hex digits: the QR code holds it."""
    return sha256(parse_note(anchor.note.encode(), site).text.encode()).hexdigest()


def checkpoint(paper: Paper, words: Words) -> Iterator[Block]:
    """The checkpoint in words, and its witnesses."""
    _, anchor = words._, paper.anchor
    found = checkpoint_of(anchor, paper.site)
    yield Heading(_("The ledger's signed checkpoint"))
    yield Facts(
        (
            Fact(_("Ledger of"), clean(paper.site)),
            Fact(_("Entries"), words.number(found.head.size)),
            Fact(_("Root of its tree"), found.head.root.hex(), code=True),
            Fact(_("Hash of the checkpoint"), checkpoint_hash(anchor, paper.site), code=True),
            Fact(_("Site's key"), paper.key, code=True),
            Fact(_("Its fingerprint"), fingerprint(bytes.fromhex(paper.key)), code=True),
            Fact(_("Continues"), _former(anchor, paper.site, words)),
        )
    )
    yield from _witnesses(anchor, found.head.size, words)


def footer(paper: Paper, kind: str, digest: str, words: Words) -> Footer:
    """The foot of every page."""
    _ = words._
    size, hash_ = checkpoint_of(paper.anchor, paper.site).head.size, checkpoint_hash(paper.anchor, paper.site)
    return Footer(
        lines=(
            f"{clean(paper.site)} · {kind} · {words.day(paper.made_at[:10])}",
            _("Check without a network: wardround report verify FILE --key KEY"),
            _("Checkpoint of {size} entries: {hash}").format(size=words.number(size), hash=hash_),
            _("Signed content: {digest}").format(digest=digest),
        ),
        code=f"wardround {paper.site} {size}\ncheckpoint {hash_}\ncontent {digest}",
        alternative=_("QR code with the hash of the checkpoint and of the signed content"),
        page=_("Page {page} of {pages}"),
    )


def _former(anchor: Anchor, site: str, words: Words) -> str:
    _ = words._
    if anchor.former is None:
        return _("no earlier report was given")
    before = parse_checkpoint(parse_note(anchor.former.note.encode(), site).text, site)
    return _("the former report's checkpoint of {size} entries; the proof is in the signed content").format(
        size=words.number(before.head.size)
    )


def _witnesses(anchor: Anchor, size: int, words: Words) -> Iterator[Block]:
    _ = words._
    if not anchor.witnesses:
        text = _(
            "Nobody else has signed this ledger. Whether its end was cut off can be seen only with a checkpoint that "
            "others kept."
        )
        yield Box(_("No witness"), (text,), Tone.ALERT)
        return
    rows = tuple(
        Row(
            (
                Cell(clean(one.witness)),
                Cell(words.number(one.size)),
                Cell(
                    _("all of this paper's entries")
                    if one.size >= size
                    else _("the first {count} of {size}").format(count=words.number(one.size), size=words.number(size))
                ),
                Cell(fingerprint(bytes.fromhex(one.key)), code=True),
            )
        )
        for one in anchor.witnesses
    )
    yield Table(
        _("Others who have signed this ledger."),
        (
            Column(_("Witness"), 3),
            Column(_("Entries"), 2, right=True),
            Column(_("Covers"), 4),
            Column(_("Fingerprint of the key"), 6),
        ),
        rows,
    )
