"""``report verify``: what holds is accepted, and every lie that was thought of is noticed, in each of the formats."""

import json
import re
import zlib
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest

from wardround.client.store.keys import fingerprint
from wardround.console.paper import as_html, as_pdf
from wardround.console.paper.as_json import parse, sign
from wardround.console.paper.check import Finding, Known, Result, check, signed_in
from wardround.console.paper.gather import audit_report, statement
from wardround.console.paper.model import Kind, Paper
from wardround.console.paper.proofs import wrong_entries
from wardround.console.paper.sheets import render
from wardround.protocol.canonical import LABEL_APPROVAL, LABEL_PAPER, encode
from wardround.protocol.checkpoint import Checkpoint
from wardround.protocol.errors import UsageError
from wardround.protocol.identity import Identity
from wardround.protocol.owners import Governance, Owner, Party
from wardround.protocol.roster import Roster
from wardround.protocol.tree import Head, Tree, leaf_hash
from wardround.protocol.witness import cosign

FORMATS = (".json", ".html", ".pdf")


def failures(data: bytes, known: Known | None = None) -> list[str]:
    """What was found to be wrong; a file that is none at all is wrong too."""
    try:
        verdict = check(data, known or Known())
    except UsageError as error:
        return [error.message]
    assert verdict.accepted is not any(_bad(one) for one in verdict.findings)
    return [one.says for one in verdict.findings if _bad(one)]


def _bad(one: Finding) -> bool:
    return one.result in (Result.FAILS, Result.UNDONE)


def _starts(faults: list[str], words: str) -> bool:
    return any(fault.startswith(words) for fault in faults)


def holding(data: bytes, known: Known | None = None) -> str:
    return "\n".join(one.says for one in check(data, known or Known()).findings if one.result is Result.HOLDS)


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("suffix", FORMATS)
def test_a_paper_is_accepted_and_says_what_was_looked_at(story: Any, kind: Kind, suffix: str) -> None:
    data = render(story.paper(kind), suffix)
    assert failures(data, Known(key=story.site.identity.public.key)) == []
    held = holding(data, Known(key=story.site.identity.public.key))
    assert "the key is the one that you gave" in held
    assert "'south' countersigned this ledger" in held
    assert ("byte for byte" in held) is (suffix != ".json")


def test_what_was_not_checked_is_said(story: Any) -> None:
    open_ = [one.says for one in check(story.audit().file, Known()).findings if one.result is Result.OPEN]
    assert any("whose key it is" in says for says in open_)
    assert any("counts of entries in ranges" in says for says in open_)
    assert any("continues an earlier report" in says for says in open_)
    assert any("site's machine ran the version" in says for says in open_)


# Bytes


@pytest.mark.parametrize("suffix", FORMATS)
def test_one_changed_byte_anywhere_is_noticed(story: Any, suffix: str) -> None:
    good = render(story.statement(), suffix)
    # Places over the whole file, and both ends; making a PDF again takes half a second each time.
    places = sorted({*range(0, len(good), len(good) // (12 if suffix == ".pdf" else 60)), len(good) - 1})
    missed = []
    for place in places:
        bad = good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :]
        if not failures(bad):
            missed.append(place)
    assert missed == []


@pytest.mark.parametrize("suffix", FORMATS)
def test_bytes_added_or_cut_off_are_noticed(story: Any, suffix: str) -> None:
    good = render(story.statement(), suffix)
    for bad in (good + b"\n", b" " + good, good[:-1], good + good, b""):
        assert failures(bad)


def test_a_number_that_was_changed_on_the_html_page_is_noticed(story: Any) -> None:
    good = render(story.statement(), ".html")
    shown = story.statement().paper.about.spendings[0].epsilon.value.encode()
    assert shown in good
    assert _starts(failures(good.replace(b"\xce\xb5 " + shown, b"\xce\xb5 0.10")), "the HTML page does not say")


def test_a_number_that_was_changed_on_the_pdf_page_is_noticed(story: Any) -> None:
    good = render(story.statement(), ".pdf")
    stream = re.search(rb"/Filter /FlateDecode\n/Length (\d+)\n>>\nstream\n", good)
    assert stream is not None
    begin, length = stream.end(), int(stream[1])
    page = zlib.decompress(good[begin : begin + length])
    packed = zlib.compress(page.replace(b" Tf", b" Tf ", 1), 9)
    bad = good[:begin] + packed[:length].ljust(length, b"\x00") + good[begin + length :]
    assert _starts(failures(bad), "the PDF page does not say")


def test_an_update_that_is_appended_to_a_pdf_is_noticed(story: Any) -> None:
    good = render(story.statement(), ".pdf")
    update = b"1 0 obj\n<< /Type /Pages /Kids [] /Count 0 >>\nendobj\nstartxref\n0\n%%EOF\n"
    assert _starts(failures(good + update), "the PDF page does not say")


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_page_of_one_paper_with_the_content_of_another_is_noticed(story: Any, suffix: str) -> None:
    if suffix == ".json":
        return
    one, other = story.statement(), story.statement(Kind.DPIA)
    page = render(one, suffix)
    swapped = (
        page.replace(b64encode(one.file), b64encode(other.file))
        if suffix == ".html"
        else page.replace(one.file, other.file)
    )
    assert swapped != page
    assert any("does not say what was signed" in says for says in failures(swapped))


def test_a_content_in_another_spelling_is_refused(story: Any) -> None:
    data = json.loads(story.statement().file)
    for bad in (json.dumps(data).encode(), json.dumps(data, indent=1).encode()):
        assert failures(bad) == ["the paper is not in its one spelling: it was changed"]
    with pytest.raises(UsageError, match="no paper of this version"):
        parse(encode(data | {"more": 1}))
    with pytest.raises(UsageError, match="no paper of this version"):
        parse(encode({"content": data["content"] | {"more": 1}, "signature": data["signature"]}))


def test_two_contents_in_one_file_are_refused(story: Any) -> None:
    one, other = story.statement(), story.statement(Kind.DPIA)
    link = b'<a href="data:application/json;base64,' + b64encode(other.file) + b'">x</a></body>'
    with pytest.raises(UsageError, match="carries no signed content"):
        as_html.signed_in(render(one, ".html").replace(b"</body>", link))
    with pytest.raises(UsageError, match="carries no signed content"):
        as_pdf.signed_in(render(one, ".pdf") + b"\nstream\n" + other.file + b"\nendstream\n")


def test_every_format_carries_the_same_signed_bytes(story: Any) -> None:
    signed = story.audit(story.kept)
    assert {signed_in(render(signed, suffix)).file for suffix in FORMATS} == {signed.file}
    assert b64decode(b64encode(signed.file)) == signed.file


# Signatures and keys


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_forged_signature_is_noticed(story: Any, suffix: str) -> None:
    signed = story.statement()
    forged = replace(signed, signature=bytes(64))
    assert failures(render(forged, suffix)) == ["the content is not signed with the key that it names for 'north'"]


def test_a_signature_for_another_purpose_is_none_on_a_paper(story: Any) -> None:
    signed, private = story.statement(), story.site.identity
    for message in (signed.content, LABEL_APPROVAL.encode() + b"\x00" + signed.content):
        forged = replace(signed, signature=private.sign(message))
        assert failures(forged.file)
    good = replace(signed, signature=private.sign(LABEL_PAPER.encode() + b"\x00" + signed.content))
    assert failures(good.file) == []


def test_a_paper_of_another_sites_key_is_noticed_by_whoever_knows_the_key(story: Any, tmp_path: Any) -> None:
    mallory = Identity.generate("north")
    paper = story.statement().paper
    forged = sign(replace(paper, key=mallory.public.key.hex()), mallory)
    assert "the checkpoint is not signed with the known key of 'north'" in failures(forged.file)[0]
    note = Checkpoint("north", Head(65, bytes(32))).note().signed_by(mallory).encode().decode()
    anchor = replace(paper.anchor, note=note)
    forged = sign(replace(paper, key=mallory.public.key.hex(), anchor=anchor), mallory)
    key = story.site.identity.public.key
    assert "the key is not the one that you gave" in failures(forged.file, Known(key=key))
    said = failures(forged.file, Known(fingerprint=fingerprint(key)))
    assert "the key's fingerprint is not the one that you gave" in said


def test_a_fingerprint_may_be_given_as_it_was_read_out(story: Any) -> None:
    read = fingerprint(story.site.identity.public.key).upper().replace(" ", "  ")
    assert failures(story.statement().file, Known(fingerprint=read)) == []


def _roster(*sites: Identity) -> Roster:
    officers = [Identity.generate(name) for name in ("carla", "dora")]

    def owner(name: str, key: Identity) -> dict[str, Any]:
        return {"legal_entity": name, "controlling_authority": name, "key": key.public.key.hex()}

    valid = {"valid_from": date(2026, 1, 1), "valid_until": date(2027, 1, 1)}
    return Roster(
        consortium="hearts",
        epoch=1,
        previous=None,
        issued=date(2026, 1, 1),
        expires=date(2027, 1, 1),
        coordinator=Owner(**owner("Hub", Identity.generate("hub"))),
        parties=tuple(
            Party(site=one.site, **owner(f"Hospital {one.site}", one), **valid)
            for one in sorted(sites, key=lambda one: one.site)
        ),
        governance=Governance(m=2, keys={one.site: one.public.key.hex() for one in officers}),
    )


def test_a_roster_tells_whose_the_keys_of_site_and_witness_are(story: Any) -> None:
    data = story.audit().file
    north, south = story.site.identity, story.witness
    assert failures(data, Known(roster=_roster(north, south))) == []
    held = holding(data, Known(roster=_roster(north, south)))
    assert "the key is that of 'north'" in held and "the key of witness 'south' is the one of the roster" in held
    (said,) = failures(data, Known(roster=_roster(Identity.generate("north"), south)))
    assert said.startswith("the key is not that of 'north'")
    (said,) = failures(data, Known(roster=_roster(north, Identity.generate("south"))))
    assert said.startswith("the key of witness 'south' is not the one")
    (said,) = failures(data, Known(roster=_roster(south)))
    assert "names no site 'north'" in said


# What the site itself may not forge: entries, histories, figures


def _line(paper: Paper, index: int, **changes: Any) -> Paper:
    assert paper.audit is not None
    lines = list(paper.audit.lines)
    lines[index] = replace(lines[index], **changes)
    return replace(paper, audit=replace(paper.audit, lines=tuple(lines)))


def _fact(content: str, **changes: Any) -> str:
    data = json.loads(content)
    data["fact"] |= changes
    return encode(data).decode()


LIES: dict[str, tuple[str, Callable[[Paper], Paper]]] = {
    "an entry that says something else": (
        "entry 4 says something else than the ledger",
        lambda p: _line(p, 3, content=_fact(p.audit.lines[3].content, blocks=16)),  # type: ignore[union-attr, arg-type]
    ),
    "an entry at another number": ("entry 5 is not in the ledger", lambda p: _line(p, 3, number=5)),
    "an entry of another time": ("entry 4 is printed with another", lambda p: _line(p, 3, at="2026-11-23T09:00:00Z")),
    "an entry of another domain": ("entry 4 is printed with another", lambda p: _line(p, 3, domain="test")),
    "an entry of another kind": ("entry 4 is printed with another", lambda p: _line(p, 3, kind="refuse")),
    "an approval whose content is hidden": ("entry 4 hides what it says", lambda p: _line(p, 3, content=None)),
    "a leaf that is not there": ("entry 4 is not in the ledger", lambda p: _line(p, 3, leaf="ab" * 32)),
    "an entry that is left out": (
        "gap or a double entry",
        lambda p: replace(p, audit=replace(p.audit, lines=p.audit.lines[1:])),  # type: ignore[union-attr, type-var]
    ),
    "a range that counts fewer": (
        "gap or a double entry",
        lambda p: replace(
            p,
            audit=replace(p.audit, runs=(replace(p.audit.runs[0], kinds={"refuse": 3}), *p.audit.runs[1:])),  # type: ignore[union-attr, type-var]
        ),
    ),
    "fewer refusals than there are": (
        "numbers of entries by kind",
        lambda p: replace(p, audit=replace(p.audit, kinds={**p.audit.kinds, "refuse": 0})),  # type: ignore[union-attr, type-var]
    ),
    "a smaller epsilon of a domain": (
        "the epsilon of 'training' does not follow",
        lambda p: _budget(p, spent=replace(p.audit.budgets[0].spent, value="0.50")),  # type: ignore[union-attr]
    ),
    "another delta beside an epsilon": (
        "the epsilon of 'training' does not follow",
        lambda p: _budget(p, spent=replace(p.audit.budgets[0].spent, delta=1e-3)),  # type: ignore[union-attr]
    ),
    "more headroom in the filter": (
        "the filter's numbers of 'training' do not follow",
        lambda p: _budget(p, used=p.audit.budgets[0].used - 1),  # type: ignore[union-attr]
    ),
    "a smaller epsilon of a study": ("does not follow from its rounds", lambda p: _spending(p, "0.10")),
    "a witness that signed something else": (
        "does not belong to its checkpoint",
        lambda p: _witness(p, signature="00" * 64),
    ),
    "a witness of another history": (
        "does not belong to its checkpoint",
        lambda p: _witness(p, root="ab" * 32),
    ),
    "a witness without a proof": ("is another history", lambda p: _witness(p, proof=())),
    "the site as its own witness": ("the site witnesses its own ledger", lambda p: _witness(p, witness="north")),
    "a former report without its proof": (
        "does not continue the former report's checkpoint",
        lambda p: replace(p, anchor=replace(p.anchor, former=replace(p.anchor.former, proof=()))),  # type: ignore[type-var]
    ),
}


def _budget(paper: Paper, **changes: Any) -> Paper:
    assert paper.audit is not None
    return replace(paper, audit=replace(paper.audit, budgets=(replace(paper.audit.budgets[0], **changes),)))


def _spending(paper: Paper, value: str) -> Paper:
    assert paper.audit is not None
    one = paper.audit.budgets[0].spendings[0]
    assert one.epsilon is not None
    return _budget(paper, spendings=(replace(one, epsilon=replace(one.epsilon, value=value)),))


def _witness(paper: Paper, **changes: Any) -> Paper:
    return replace(paper, anchor=replace(paper.anchor, witnesses=(replace(paper.anchor.witnesses[0], **changes),)))


@pytest.mark.parametrize(
    ("lie", "suffix"),
    [
        *((lie, suffix) for lie in LIES for suffix in (".json", ".html")),
        ("an entry that says something else", ".pdf"),
        ("a smaller epsilon of a domain", ".pdf"),
    ],
)
def test_a_lie_that_the_site_itself_signed_is_noticed(story: Any, lie: str, suffix: str) -> None:
    says, change = LIES[lie]
    honest = story.audit(story.kept).paper
    assert honest.audit.lines[3].kind == "grant"
    forged = sign(change(honest), story.site.identity)
    # Making the pages of a lie may fail as well: what counts is that the file is not accepted.
    data = forged.file if suffix == ".json" else render(forged, suffix)
    assert any(says in said for said in failures(data)), failures(data)


def test_an_approval_that_no_officer_signed_is_noticed(story: Any) -> None:
    """The entry is in the tree, and its signature is another one: the site wrote a ledger of its own."""
    paper = story.audit().paper
    line = paper.audit.lines[3]
    fact = json.loads(line.content)["fact"]
    approvals = [one | {"signature": "00" * 64} for one in fact["approvals"]]
    content = _fact(line.content, approvals=approvals)
    tree = Tree([b"1", b"2", b"3", content.encode()])
    forged = replace(
        line, content=content, leaf=leaf_hash(content.encode()).hex(),
        path=tuple(step.hex() for step in tree.inclusion(3)),
    )  # fmt: skip
    about = story.statement().paper
    about = replace(about, about=replace(about.about, approvals=(forged,)))
    assert wrong_entries(about, tree.head()) == ["entry 4 is not signed by 'anna'"]


def test_more_rounds_than_officers_approved_are_noticed(story: Any) -> None:
    paper = story.statement().paper
    (granted,) = paper.about.granted
    forged = replace(paper, about=replace(paper.about, granted=(replace(granted, blocks=30),)))
    assert "what officers approved is not what their entries say" in failures(sign(forged, story.site.identity).file)


def test_another_plan_under_the_same_digest_is_refused(story: Any) -> None:
    paper = story.statement().paper
    plan = paper.about.plan.model_copy(update={"title": "Something else"})
    forged = sign(replace(paper, about=replace(paper.about, plan=plan)), story.site.identity)
    assert failures(forged.file) == ["the paper names another plan than the one that it holds"]


# Forks


def test_a_checkpoint_that_others_kept_is_compared(story: Any, witness: Identity) -> None:
    data = story.audit(story.kept).file
    assert failures(data, Known(checkpoints=[story.kept])) == []
    assert "that you gave is of this history" in holding(data, Known(checkpoints=[story.kept]))


def test_a_checkpoint_of_a_fork_is_noticed(story: Any) -> None:
    size = int(story.kept.decode().split("\n")[1])
    fork = Checkpoint("north", Head(size, b"\x07" * 32)).note().signed_by(story.site.identity).encode()
    (said,) = failures(story.audit(story.kept).file, Known(checkpoints=[fork]))
    assert "is of another history: the site signed both" in said


def test_a_checkpoint_of_a_size_without_a_proof_is_not_accepted_in_silence(story: Any) -> None:
    other = Checkpoint("north", Head(7, b"\x07" * 32)).note().signed_by(story.site.identity).encode()
    (said,) = failures(story.audit().file, Known(checkpoints=[other]))
    assert "the paper has no proof for that size" in said


def test_a_checkpoint_that_another_site_signed_is_not_compared(story: Any, witness: Identity) -> None:
    other = Checkpoint("north", Head(7, b"\x07" * 32)).note().signed_by(witness).encode()
    (said,) = failures(story.audit().file, Known(checkpoints=[other]))
    assert said.startswith("the checkpoint that you gave")


def test_a_witness_of_more_than_the_period_counts_for_all_of_it(story: Any, witness: Identity) -> None:
    story.site.now += timedelta(days=60)
    story.site.refuse(story.plan, 50)
    note = story.site.ledger.checkpoint()
    size = story.site.ledger.state.size
    held = int(story.kept.decode().split("\n")[1])
    proof = story.site.ledger.tree().consistency(held, size)
    story.site.ledger.countersign(cosign(note, story.kept, proof, story.site.identity.public, witness), witness.public)
    signed = story.audit()
    assert signed.paper.anchor.witnesses[0].size == size > int(signed.paper.anchor.note.split("\n")[1])
    assert failures(signed.file) == []
    assert "countersigned this ledger: all of them" in holding(signed.file)


# Other versions


@pytest.mark.parametrize("suffix", [".html", ".pdf"])
def test_a_page_that_other_versions_made_is_not_accepted_and_says_why(story: Any, suffix: str) -> None:
    paper = story.statement().paper
    older = sign(replace(paper, software=paper.software | {"fpdf2": "2.8.1"}), story.site.identity)
    data = render(older, suffix)
    assert failures(data) == [], "made here, so it is the same"
    changed = data.replace(b"anna", b"mona") if suffix == ".html" else data.replace(b"OneColumn", b"TwoColumn")
    assert changed != data
    (said,) = failures(changed)
    assert "made by other versions (fpdf2)" in said


def test_a_language_without_a_catalogue_makes_no_paper_and_is_not_accepted(story: Any) -> None:
    source = story.site.source()
    paper = statement(source, story.plan.digest, language="tlh")
    with pytest.raises(UsageError, match="no translation into 'tlh'"):
        render(sign(paper, source.identity), ".pdf")
    page = render(story.statement(), ".html")
    carried = b64encode(sign(paper, source.identity).file)
    swapped = re.sub(rb"base64,[A-Za-z0-9+/=]+", b"base64," + carried, page)
    (said,) = failures(swapped)
    assert "no translation" in said


def test_a_report_of_an_empty_period_is_accepted(story: Any) -> None:
    source = story.site.source()
    report = audit_report(source, date(2027, 1, 1), date(2027, 3, 31))
    assert failures(render(sign(report, source.identity), ".pdf")) == []
