"""A coordinator that lies in a round: each lie ends in a refusal by name, an entry in the site's ledger, and no share
that leaves.

The hospitals are real folders with real ledgers (``conftest.py``); the coordinator calls what a transport would. One
test for each line of docs/attacks.md. Lies of the set-up are in ``test_malicious_setup.py``, lies that need a second
attempt, session or process in ``test_malicious_replays.py``.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from wardround.client.store.folder import SiteFolder
from wardround.console.cli import app
from wardround.privacy.secagg.server import AttemptDesk
from wardround.protocol.errors import Unavailable
from wardround.protocol.identity import Identity
from wardround.protocol.messages import Masked, Refusal
from wardround.protocol.secagg import Consent, Upload, signed_bytes

Make = Callable[..., Any]
ME, NAMES = "bergen", ("aarau", "bergen", "cork", "delft", "evora")


def test_an_honest_attempt_is_opened_and_only_then_shares_leave(consortium: Make) -> None:
    """The control of every test below: what they look for is there when it may be."""
    here = consortium()
    desk = here.set_up()
    proposal = here.propose(desk)
    table = here.uploads(desk, proposal, NAMES[1:])
    here.nothing_left(proposal)
    for kind in ("shares", "seeds", "own", "pairs"):
        leaky = here.sites["evora"]
        leaky.left.append(leaky.secrets(proposal)[kind][0].hex().encode())
        with pytest.raises(AssertionError, match="evora let go of"):
            here.nothing_left(proposal)
        leaky.left.pop()
    total = here.total(table)
    assert total.shape == (here.length,)
    for name in NAMES[1:]:
        site = here.sites[name]
        # Four survivors' shares (its own among them) and the seed of the pair with the one who was lost.
        assert (site.gave("shares", proposal), site.gave("seeds", proposal)) == (4, 1)
        assert site.gave("own", proposal) == site.gave("pairs", proposal) == 0
        assert site.refusals() == []


def test_an_officer_reads_in_ledger_and_evidence_what_the_coordinator_did(consortium: Make) -> None:
    """What every other test looks up in the ledger is what these two commands print."""
    here = consortium()
    desk = here.set_up()
    proposal = here.propose(desk)
    whole = here.uploads(desk, proposal).survivors()
    here.consents(proposal, whole, (ME,))
    here.attack(ME, "two lists", 1, "consent", proposal, here.listed(proposal.hash, *whole.uploads[:4]))
    home = SiteFolder.open(here.sites[ME].folder)
    shown = CliRunner().invoke(app, ["ledger", "show", str(home.database)]).stdout
    facts = [json.loads(line)["fact"] for line in shown.splitlines()]
    assert [fact["reason"] for fact in facts if fact["kind"] == "refuse"] == [
        "it sent two lists of survivors for one attempt; the session has ended"
    ]
    kept = CliRunner().invoke(app, ["site", "evidence", str(home.path)]).stdout
    assert kept.count(" request  SHA-256 ") == 2 and "give it to the governance officers" in kept


@pytest.mark.parametrize(
    ("participants", "why"),
    [
        ((ME,), "below the plan's threshold"),
        (("aarau", ME), "below the plan's threshold"),
        (("aarau", ME, "cork"), "below the plan's threshold"),
        (("aarau", "cork", "delft", "evora"), "with this one"),
        ((*NAMES, "evora"), "each once"),
        ((*NAMES, "zurich"), "not sites of this session"),
    ],
    ids=["one", "two", "t-1", "without the site", "a duplicate", "a ghost"],
)
def test_too_few_doubled_or_invented_participants_get_no_vector(consortium: Make, participants: Any, why: str) -> None:
    here = consortium()
    desk = here.set_up()
    proposal = here.propose(desk, participants=participants)
    answer = here.sites[ME].said("answer", here.request(), proposal, here.plan.governance.proposed_on)
    assert isinstance(answer, Refusal) and answer.code == "protocol"
    assert here.sites[ME].ledger.charged(here.plan.digest) == 0, "a lie cost budget"
    here.refused(ME, why.split(", ")[0], 1)
    here.nothing_left(here.propose(desk))


@pytest.mark.parametrize("view", ["participants", "model"])
def test_split_views_of_participants_or_model_are_found_before_anything_is_opened(consortium: Make, view: str) -> None:
    here = consortium()
    desk, today = here.set_up(), here.plan.governance.proposed_on
    shown = {name: here.propose(desk) for name in NAMES}
    requests = {name: here.request() for name in NAMES}
    if view == "participants":
        shown[ME] = here.propose(desk, participants=NAMES[:4])
    else:
        # Round 1 starts at the plan's model for everybody; a later one could be shown differently.
        shown = {name: here.propose(desk, 2) for name in NAMES}
        requests = {name: here.request(2) for name in NAMES}
        requests[ME] = here.request(2, shift=0.5)
        shown[ME] = here.propose(desk, 2, model_hash=requests[ME].model_hash)
    answers = {name: here.sites[name].said("answer", requests[name], shown[name], today) for name in NAMES}
    assert all(isinstance(answer, Masked) for answer in answers.values())
    number = shown[ME].round_number
    uploads = tuple(answers[name].upload for name in NAMES if name in shown[ME].participants)
    here.attack(ME, "not one that this site made", number, "consent", shown[ME], here.listed(shown[ME].hash, *uploads))
    others = here.listed(shown["aarau"].hash, *(answers[name].upload for name in NAMES))
    here.attack("aarau", "the upload of 'bergen' is not one", number, "consent", shown["aarau"], others)
    for name in NAMES:
        here.nothing_left(shown[name], name)


LISTS: dict[str, tuple[tuple[str, ...], str]] = {
    "one": ((ME,), "below the plan's threshold"),
    "two": (("aarau", ME), "below the plan's threshold"),
    "t-1": (("aarau", ME, "cork"), "below the plan's threshold"),
    "without the site": (("aarau", "cork", "delft", "evora"), "this site's own upload"),
    "a duplicate": ((*NAMES, "evora"), "each once"),
    "out of order": (NAMES[::-1], "each once"),
}


@pytest.mark.parametrize("lie", LISTS)
def test_a_list_of_too_few_or_of_doubled_survivors_is_not_signed(consortium: Make, lie: str) -> None:
    here = consortium()
    desk = here.set_up()
    proposal = here.propose(desk)
    uploads = {upload.site: upload for upload in here.uploads(desk, proposal).survivors().uploads}
    sites, why = LISTS[lie]
    listed = here.listed(proposal.hash, *(uploads[site] for site in sites))
    here.attack(ME, why, 1, "consent", proposal, listed)
    here.attack(ME, "before this site has signed a list", 1, "open", proposal, [])
    here.nothing_left(proposal)


def test_split_lists_of_survivors_never_get_enough_signatures(consortium: Make) -> None:
    here = consortium()
    desk = here.set_up()
    proposal = here.propose(desk)
    whole = here.uploads(desk, proposal).survivors()
    part = here.listed(whole.proposal, *whole.uploads[:4])
    consents = here.consents(proposal, whole, NAMES[2:]) + here.consents(proposal, part, NAMES[:2])
    for name, listed in [("cork", whole), ("aarau", part)]:
        fitting = [consent for consent in consents if consent.survivors == listed.hash]
        here.attack(name, "below the plan's threshold", 1, "open", proposal, fitting)
        here.attack(name, "not of survivors, each once", 1, "open", proposal, fitting * 2)
        here.attack(name, "is not under this list|not of survivors", 1, "open", proposal, consents)
    here.nothing_left(proposal)


def test_two_lists_for_one_attempt_end_the_session(consortium: Make) -> None:
    here = consortium()
    desk = here.set_up()
    proposal = here.propose(desk)
    whole = here.uploads(desk, proposal).survivors()
    here.consents(proposal, whole)
    part = here.listed(whole.proposal, *whole.uploads[:4])
    here.attack(ME, "two lists of survivors for one attempt", 1, "consent", proposal, part)
    here.attack(ME, "the session has ended", 1, "open", proposal, here.consents(proposal, whole, ("cork",)))
    here.nothing_left(proposal)


def test_a_share_and_a_seed_of_one_site_never_leave_in_one_attempt(consortium: Make) -> None:
    """With both, the coordinator could take every mask off one site's vector."""
    here = consortium()
    desk = here.set_up()
    proposal = here.propose(desk)
    table = here.uploads(desk, proposal)
    whole = table.survivors()
    here.total(table)
    # Now it says that cork was lost, to get the seeds of the pairs with cork.
    without = here.listed(whole.proposal, *(upload for upload in whole.uploads if upload.site != "cork"))
    here.attack(ME, "two lists of survivors", 1, "consent", proposal, without)
    assert here.sites[ME].gave("seeds", proposal) == 0 and here.sites[ME].gave("shares", proposal) == 5


def test_a_whole_list_is_opened_at_once_and_no_key_of_a_pair_leaves(consortium: Make) -> None:
    """The control of what follows: the same sum as by signatures, and the ledger says the same of it."""
    here = consortium()
    desk = here.set_up()
    proposal, later = here.propose(desk), here.propose(desk, 2)
    table = here.uploads(desk, proposal)
    here.nothing_left(proposal)
    opened = here.whole(table)
    assert opened.tolist() == here.total(table).tolist(), "signatures change nothing"
    here.total(here.uploads(desk, later))
    for name in NAMES:
        site = here.sites[name]
        assert (site.gave("shares", proposal), site.gave("seeds", proposal)) == (5, 0)
        assert site.gave("own", proposal) == site.gave("pairs", proposal) == 0
        facts = [fact for fact in site.ledger.facts() if fact.kind in ("sign_survivors", "open_sum")]
        assert [fact.kind for fact in facts] == ["sign_survivors", "open_sum"] * 2
        assert {fact.survivors for fact in facts[:2]} == {table.survivors().hash}


@pytest.mark.parametrize("lacks", [1, 2, 4])
def test_a_list_that_lacks_somebody_is_not_opened_at_once(consortium: Make, lacks: int) -> None:
    """It would need keys of pairs with who is not on it, and t signatures before."""
    here = consortium()
    desk = here.set_up()
    proposal = here.propose(desk)
    whole = here.uploads(desk, proposal).survivors()
    kept = [upload for upload in whole.uploads if upload.site == ME or upload.site > NAMES[lacks]][: 5 - lacks]
    here.attack(
        ME, "the list lacks some who were proposed", 1, "open_whole", proposal, here.listed(whole.proposal, *kept)
    )
    here.nothing_left(proposal)
    # The rule was broken, the session is not: what may be opened still is.
    assert here.sites[ME].said("open_whole", proposal, whole).seeds == ()


@pytest.mark.parametrize("first", ["whole", "part"])
def test_a_whole_list_and_a_part_of_it_never_meet_at_one_site(consortium: Make, first: str) -> None:
    here = consortium()
    desk = here.set_up()
    proposal = here.propose(desk)
    whole = here.uploads(desk, proposal).survivors()
    part = here.listed(whole.proposal, *whole.uploads[:4])
    if first == "whole":
        here.sites[ME].open_whole(proposal, whole)
        here.attack(ME, "two lists of survivors", 1, "consent", proposal, part)
    else:
        here.consents(proposal, part, (ME,))
        here.attack(ME, "two lists of survivors", 1, "open_whole", proposal, whole)
        here.nothing_left(proposal, ME)
    assert here.sites[ME].gave("seeds", proposal) == 0
    assert len(here.sites[ME].process.evidence.all()) == 2, "both lists are kept with the coordinator's signature"


def test_a_whole_list_to_some_and_a_part_to_others_opens_one_sum(consortium: Make) -> None:
    """Two open all five at once; the three others cannot be led to a list of four, which takes four signatures."""
    here = consortium()
    desk = here.set_up()
    proposal = here.propose(desk)
    table = here.uploads(desk, proposal)
    whole = table.survivors()
    part = here.listed(whole.proposal, *(upload for upload in whole.uploads if upload.site != ME))
    for name in ("aarau", ME):
        table.add_opening(here.sites[name].said("open_whole", proposal, whole))
    consents = here.consents(proposal, part, NAMES[2:])
    for name in NAMES[2:]:
        here.attack(name, "below the plan's threshold", 1, "open", proposal, consents)
        assert here.sites[name].gave("shares", proposal) == here.sites[name].gave("seeds", proposal) == 0
    with pytest.raises(Unavailable, match="2 survivors opened"):
        table.total()


def test_a_void_that_is_feigned_after_a_whole_opening_buys_no_subset(consortium: Make) -> None:
    here = consortium()
    desk = here.set_up()
    here.whole(here.uploads(desk, here.propose(desk)))
    again = here.propose(desk, 1, 2, participants=NAMES[:4])
    table = here.uploads(desk, again)
    for name in NAMES[:4]:
        here.attack(name, "a second sum over inputs", 1, "open_whole", again, table.survivors())
    here.nothing_left(again)
    here.whole(here.uploads(desk, here.propose(desk, 1, 3)))


def test_replayed_rounds_and_sessions_get_nothing_new(consortium: Make) -> None:
    here = consortium()
    desk, today = here.set_up(), here.plan.governance.proposed_on
    first, second = here.propose(desk), here.propose(desk, 2)
    table = here.uploads(desk, first)
    here.total(table)
    here.total(here.uploads(desk, second))
    site = here.sites[ME]
    before = list(site.left)
    # The same requests again, also of the old round, get the same bytes, and do not end the session.
    assert here.consents(first, table.survivors(), (ME,))[0] == table.consents()[1]
    site.open(first, table.consents())
    assert set(site.left) == set(before)
    # What was uploaded is gone once its sum was opened.
    answer = site.said("answer", here.request(), first, today)
    assert isinstance(answer, Refusal)
    # A session under a name that was used.
    here.attack(ME, "a session that was used before", 0, "keys", desk.session, today)


def test_forged_signatures_under_a_list_open_nothing(consortium: Make) -> None:
    here = consortium()
    desk = here.set_up()
    proposal = here.propose(desk)
    survivors = here.uploads(desk, proposal).survivors()
    own = here.consents(proposal, survivors, (ME,))
    forged = [Consent(name, survivors.hash).signed_by(Identity.generate(name)) for name in NAMES if name != ME]
    here.attack(ME, "is not under this list", 1, "open", proposal, own + forged)
    here.attack(ME, "below the plan's threshold", 1, "open", proposal, own)
    here.nothing_left(proposal)


def test_an_upload_that_nobody_made_stands_on_no_list(consortium: Make) -> None:
    """A ghost site in the coordinator's hand, or a vector of its own under a hospital's name."""
    here = consortium()
    desk = here.set_up()
    proposal = here.propose(desk)
    survivors = here.uploads(desk, proposal, NAMES[:4]).survivors()
    for name in ("evora", "zurich"):
        ghost = Upload(name, proposal.hash, "00" * 32).signed_by(Identity.generate(name))
        listed = here.listed(proposal.hash, *survivors.uploads, ghost)
        here.attack(ME, "'evora' is not one|not participants", 1, "consent", proposal, listed)
    here.nothing_left(proposal)


def test_the_limit_a_false_total_that_is_told_to_all_alike_is_believed(consortium: Make) -> None:
    """Secure aggregation makes views consistent, not true. What bounds this is differential privacy, not masks."""
    here = consortium()
    desk = here.set_up()
    true = here.total(here.uploads(desk, here.propose(desk)))
    false = here.request(2)  # a model that no total gave
    table = AttemptDesk(desk, proposal := here.propose(desk, 2))
    for name in NAMES:
        answer = here.sites[name].said("answer", false, proposal, here.plan.governance.proposed_on)
        assert isinstance(answer, Masked)
        table.add_upload(answer.upload, answer.vector)
    told = here.total(table)
    assert not np.array_equal(told, true)
    # Every site was charged for what it answered, and the filter counts it like any other round.
    assert all(site.ledger.charged(here.plan.digest) == 2 for site in here.sites.values())


def test_a_request_that_nobody_signed_is_not_answered(consortium: Make) -> None:
    """Somebody between coordinator and hospital; and a coordinator that would later deny what it asked."""
    here = consortium()
    desk, today = here.set_up(), here.plan.governance.proposed_on
    proposal = here.propose(desk)
    unsigned = replace(proposal, signature=bytes(64))
    assert isinstance(here.sites[ME].said("answer", here.request(), unsigned, today), Refusal)
    here.refused(ME, "has not signed what is asked", 1)
    survivors = here.uploads(desk, proposal).survivors()
    forged = replace(survivors, uploads=survivors.uploads[:4])
    here.attack(ME, "has not signed what is asked", 1, "consent", proposal, forged)
    here.nothing_left(proposal)
    # A forgery proves nothing against the coordinator, and ends no session.
    assert here.sites[ME].process.evidence.all() == ()
    here.consents(proposal, survivors, (ME,))


@pytest.mark.parametrize("lie", ["two proposals", "two lists"])
def test_two_requests_that_cannot_both_be_honest_are_kept_with_their_signatures(consortium: Make, lie: str) -> None:
    here = consortium()
    desk, today = here.set_up(), here.plan.governance.proposed_on
    proposal = here.propose(desk)
    survivors = here.uploads(desk, proposal).survivors()
    if lie == "two lists":
        here.consents(proposal, survivors, (ME,))
        both = (survivors, here.listed(proposal.hash, *survivors.uploads[:4]))
        here.attack(ME, "two lists of survivors", 1, "consent", proposal, both[1])
    else:
        both = (proposal, here.propose(desk, participants=NAMES[:4]))
        assert isinstance(here.sites[ME].said("answer", here.request(), both[1], today), Refusal)
        here.refused(ME, "two proposals", 1)
    here.sites[ME].restart()
    exhibits = here.sites[ME].process.evidence.all()
    assert {exhibit.content for exhibit in exhibits} == {request.evidence for request in both}
    for exhibit in exhibits:
        told = json.loads(exhibit.content)
        assert here.operator.public.verifies(bytes.fromhex(told["signature"]), signed_bytes(told["header"]))
    here.nothing_left(proposal, "aarau")
