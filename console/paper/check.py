"""Whether a paper is what its site signed, and what can be shown of it without trusting that site's screen.

Works on JSON, HTML and PDF, without a network and without the ledger. Everything that was looked at is a finding; so is
what could not be looked at. ``proofs`` looks at the entries, ``figures`` at the arithmetic.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from wardround.client.store.keys import fingerprint
from wardround.console.paper import as_html, as_json, as_pdf
from wardround.console.paper.as_json import Signed
from wardround.console.paper.figures import wrong_figures
from wardround.console.paper.gather import software
from wardround.console.paper.model import Paper, Witnessed
from wardround.console.paper.proofs import wrong_entries
from wardround.console.paper.sheets import render
from wardround.protocol.checkpoint import Checkpoint, verify
from wardround.protocol.errors import ProtocolViolation, UsageError
from wardround.protocol.identity import PublicIdentity
from wardround.protocol.roster import Roster
from wardround.protocol.tree import Head, verify_consistency


class Result(StrEnum):
    """``UNDONE``: it was asked for, or belongs to every check, and could not be done, so the paper is not accepted."""

    HOLDS = "holds"
    FAILS = "FAILS"
    UNDONE = "COULD NOT BE CHECKED"
    OPEN = "not checked"


@dataclass(frozen=True, slots=True)
class Finding:
    result: Result
    says: str


@dataclass(frozen=True, slots=True)
class Known:
    """What the auditor has from elsewhere: the site's key or its fingerprint, a roster, checkpoints others kept."""

    key: bytes | None = None
    fingerprint: str | None = None
    roster: Roster | None = None
    checkpoints: Sequence[bytes] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """``signed`` is what the file carries, good or not."""

    signed: Signed
    findings: tuple[Finding, ...]

    @property
    def accepted(self) -> bool:
        """Nothing failed, and nothing that had to be looked at was left out."""
        return all(one.result in (Result.HOLDS, Result.OPEN) for one in self.findings)


def format_of(data: bytes) -> str:
    """``.pdf``, ``.json`` or ``.html``, by what the bytes begin with."""
    return ".pdf" if data.startswith(b"%PDF-") else ".json" if data.startswith(b"{") else ".html"


def signed_in(data: bytes) -> Signed:
    """The signed content that a file of any format carries. Raises UsageError where there is none, or two."""
    suffix = format_of(data)
    carried = data if suffix == ".json" else {".pdf": as_pdf, ".html": as_html}[suffix].signed_in(data)
    return as_json.parse(carried)


def check(data: bytes, known: Known) -> Verdict:
    """Look at everything. Raises UsageError when ``data`` carries no signed content in its one spelling."""
    signed = signed_in(data)
    findings: list[Finding] = []
    for finding in _findings(data, signed, known):
        findings.append(finding)
    return Verdict(signed, tuple(findings))


def _findings(data: bytes, signed: Signed, known: Known) -> Iterator[Finding]:
    paper = signed.paper
    key = bytes.fromhex(paper.key)
    if not signed.holds(key):
        yield Finding(Result.FAILS, f"the content is not signed with the key that it names for '{paper.site}'")
        return
    yield Finding(Result.HOLDS, f"'{paper.site}' signed the content with the key {fingerprint(key)}")
    whose = list(_whose_key(paper, key, known))
    yield from whose
    log = PublicIdentity(paper.site, key)
    try:
        head = verify(paper.anchor.note.encode(), log).checkpoint.head
    except ProtocolViolation as error:
        yield Finding(Result.FAILS, f"the checkpoint: {error.message}")
        return
    yield Finding(Result.HOLDS, f"the same key signed the checkpoint of {head.size:,} entries")
    faults = wrong_entries(paper, head)
    if faults:
        yield from (Finding(Result.FAILS, fault) for fault in faults[:10])
        return
    yield Finding(Result.HOLDS, "every entry that is listed is at its number in that ledger, and says what is printed")
    yield from _witnesses(paper, head, known)
    yield from _former(paper, head, log)
    yield from _kept(paper, head, log, known)
    yield from _figures(paper)
    yield from _page(data, signed)
    yield from _open(paper)


def _whose_key(paper: Paper, key: bytes, known: Known) -> Iterator[Finding]:
    asked = False
    if known.key is not None:
        asked = True
        same = known.key == key
        yield Finding(
            Result.HOLDS if same else Result.FAILS, f"the key is {'' if same else 'not '}the one that you gave"
        )
    if known.fingerprint is not None:
        asked = True
        same = "".join(known.fingerprint.split()).lower() == fingerprint(key).replace(" ", "")
        says = f"the key's fingerprint is {'' if same else 'not '}the one that you gave"
        yield Finding(Result.HOLDS if same else Result.FAILS, says)
    if known.roster is not None:
        asked = True
        listed = known.roster.identities.get(paper.site)
        which = f"epoch {known.roster.epoch} of the roster that you gave ({known.roster.fingerprint[:19]} ...)"
        if listed is None:
            yield Finding(Result.FAILS, f"{which} names no site '{paper.site}'")
        else:
            same = listed.key == key
            yield Finding(
                Result.HOLDS if same else Result.FAILS,
                f"the key is {'' if same else 'not '}that of '{paper.site}' in {which}",
            )
    if not asked:
        yield Finding(
            Result.OPEN,
            "whose key it is: compare the fingerprint by telephone, or give --key, --fingerprint or --roster",
        )


def _witnesses(paper: Paper, head: Head, known: Known) -> Iterator[Finding]:
    for one in paper.anchor.witnesses:
        seen = Head(one.size, bytes.fromhex(one.root))
        witness = PublicIdentity(one.witness, bytes.fromhex(one.key))
        if one.key == paper.key or one.witness == paper.site:
            yield Finding(Result.FAILS, f"the site witnesses its own ledger as '{one.witness}'")
        elif not _signed(paper.site, seen, witness, one):
            yield Finding(Result.FAILS, f"the countersignature of '{one.witness}' does not belong to its checkpoint")
        elif not _one_history(seen, head, one.proof):
            yield Finding(Result.FAILS, f"what '{one.witness}' countersigned is another history than this paper's")
        else:
            covers = "all of them" if one.size >= head.size else f"the first {one.size:,} of {head.size:,} entries"
            yield Finding(Result.HOLDS, f"'{one.witness}' countersigned this ledger: {covers}")
            yield from _whose_witness(one, known)
    if not paper.anchor.witnesses:
        yield Finding(Result.OPEN, "whether the ledger's end was cut off: nobody else has signed it")


def _whose_witness(one: Witnessed, known: Known) -> Iterator[Finding]:
    listed = None if known.roster is None else known.roster.identities.get(one.witness)
    if listed is None:
        yield Finding(Result.OPEN, f"whether that key is '{one.witness}': no roster that you gave names it")
    elif listed.key.hex() != one.key:
        yield Finding(Result.FAILS, f"the key of witness '{one.witness}' is not the one of the roster that you gave")
    else:
        yield Finding(Result.HOLDS, f"the key of witness '{one.witness}' is the one of the roster that you gave")


def _signed(site: str, seen: Head, witness: PublicIdentity, one: Witnessed) -> bool:
    try:
        text = Checkpoint(site, seen).note().text.encode()
    except UsageError:
        return False
    return witness.verifies(bytes.fromhex(one.signature), text)


def _former(paper: Paper, head: Head, log: PublicIdentity) -> Iterator[Finding]:
    former = paper.anchor.former
    if former is None:
        if paper.audit is not None:
            yield Finding(Result.OPEN, "whether it continues an earlier report: it names none")
        return
    try:
        before = verify(former.note.encode(), log).checkpoint.head
    except ProtocolViolation as error:
        yield Finding(Result.FAILS, f"the former checkpoint: {error.message}")
        return
    if verify_consistency(before, head, [bytes.fromhex(step) for step in former.proof]):
        yield Finding(Result.HOLDS, f"the ledger continues the former report's checkpoint of {before.size:,} entries")
    else:
        yield Finding(Result.FAILS, "the ledger does not continue the former report's checkpoint")


def _kept(paper: Paper, head: Head, log: PublicIdentity, known: Known) -> Iterator[Finding]:
    """Compare checkpoints that the auditor has with every head that the paper proves to be of one history."""
    heads = {head.size: head.root}
    heads |= {one.size: bytes.fromhex(one.root) for one in paper.anchor.witnesses}
    if paper.anchor.former is not None:
        former = verify(paper.anchor.former.note.encode(), log).checkpoint.head
        heads[former.size] = former.root
    for note in known.checkpoints:
        try:
            seen = verify(note, log).checkpoint.head
        except ProtocolViolation as error:
            yield Finding(Result.FAILS, f"the checkpoint that you gave: {error.message}")
            continue
        if seen.size not in heads:
            yield Finding(
                Result.UNDONE,
                f"your checkpoint of {seen.size:,} entries: the paper has no proof for that size; ask for an audit "
                "report that was made with it (--former)",
            )
        elif heads[seen.size] == seen.root:
            yield Finding(Result.HOLDS, f"the checkpoint of {seen.size:,} entries that you gave is of this history")
        else:
            yield Finding(
                Result.FAILS,
                f"your checkpoint of {seen.size:,} entries is of another history: the site signed both, keep them",
            )


def _one_history(one: Head, other: Head, proof: Sequence[str]) -> bool:
    first, second = sorted((one, other), key=lambda head: head.size)
    return verify_consistency(first, second, [bytes.fromhex(step) for step in proof])


def _figures(paper: Paper) -> Iterator[Finding]:
    try:
        faults = wrong_figures(paper)
    except ModuleNotFoundError:
        yield Finding(Result.UNDONE, "the figures: the accountant (dp-accounting) is not installed here")
        return
    yield from (Finding(Result.FAILS, fault) for fault in faults[:10])
    if not faults:
        yield Finding(
            Result.HOLDS,
            "every epsilon and every share of a budget follows from the events and numbers of rounds beside it",
        )


def _page(data: bytes, signed: Signed) -> Iterator[Finding]:
    suffix = format_of(data)
    if suffix == ".json":
        return
    page = suffix[1:].upper()
    try:
        same = render(signed, suffix) == data
    except UsageError as error:
        yield Finding(Result.UNDONE, f"the {page} page: {error.message}")
        return
    if same:
        yield Finding(Result.HOLDS, f"the {page} page is, byte for byte, what this program makes of the signed content")
    elif (made := signed.paper.software) != (here := software()):
        other = ", ".join(sorted(name for name in made.keys() | here.keys() if made.get(name) != here.get(name)))
        yield Finding(
            Result.UNDONE,
            f"the {page} page was made by other versions ({other}): believe the signed content alone, and make a page "
            "of it with --page",
        )
    else:
        yield Finding(Result.FAILS, f"the {page} page does not say what was signed: it was changed")


def _open(paper: Paper) -> Iterator[Finding]:
    """What no paper can show."""
    if paper.audit is not None and paper.audit.runs:
        yield Finding(Result.OPEN, "the counts of entries in ranges, and refusals in them: the site's signed word")
    yield Finding(
        Result.OPEN,
        "numbers of rounds and answers: the site's signed word; a copy of the ledger shows them "
        "(wardround ledger verify)",
    )
    yield Finding(Result.OPEN, "whether the site's machine ran the version that it names")
