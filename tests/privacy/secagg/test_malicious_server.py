"""A coordinator that lies: each lie ends in a refusal by name, an entry in the site's ledger, and no share that leaves.

The hospitals are real folders with real ledgers (``conftest.py``); the coordinator calls what a transport would. One
test for each line of docs/attacks.md.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from wardround.client.store.roster import PinnedRoster
from wardround.privacy.secagg.scale import session_for
from wardround.privacy.secagg.server import AttemptDesk, SetupDesk
from wardround.protocol.errors import ProtocolViolation, Unavailable
from wardround.protocol.identity import Identity
from wardround.protocol.ledger import Recover, approve
from wardround.protocol.messages import Masked, Refusal
from wardround.protocol.outgoing import bytes_to_send, parse_step
from wardround.protocol.secagg import Consent, Keys, Upload, signed_bytes
from wardround.protocol.tree import Head

Make = Callable[..., Any]
ME, NAMES = "bergen", ("aarau", "bergen", "cork", "delft", "evora")


def test_an_honest_attempt_is_opened_and_only_then_shares_leave(consortium: Make) -> None:
    """The control of every test below: what they look for is there when it may be."""
    here = consortium()
    desk = here.set_up()
    proposal = here.propose(desk)
    table = here.uploads(desk, proposal, NAMES[1:])
    here.nothing_left(proposal)
    total = here.total(table)
    assert total.shape == (here.length,)
    for name in NAMES[1:]:
        site = here.sites[name]
        # Four survivors' shares (its own among them) and the seed of the pair with the one who was lost.
        assert (site.gave("shares", proposal), site.gave("seeds", proposal)) == (4, 1)
        assert site.gave("own", proposal) == site.gave("pairs", proposal) == 0
        assert site.refusals() == []


def keyed(here: Any) -> tuple[Any, list[Keys]]:
    """S1 of every site, and the terms."""
    session = session_for(here.plan, list(here.keys.values()), roster=here.roster.digest, name="first",
                          coordinator=here.operator.public, length=here.length, rounds=(1, 2), attempts=3)  # fmt: skip
    return session, [here.sites[name].said("keys", session, here.plan.governance.proposed_on) for name in NAMES]


def test_a_forged_key_in_a_sites_message_is_refused(consortium: Make) -> None:
    here = consortium()
    _, keys = keyed(here)
    own = Identity.generate("aarau")
    forged = replace(keys[0], x25519=keys[2].x25519)
    for lie in (forged, forged.signed_by(own)):
        site = here.sites[ME]
        here.attack(ME, "its signature does not belong", 0, "deal", [lie, *keys[1:]])
        site.restart()
        keyed(here)


def test_a_swapped_roster_gives_no_session(consortium: Make) -> None:
    here = consortium()
    session, _ = keyed(here)
    today = here.plan.governance.proposed_on
    stranger = replace(session.members[0], key=Identity.generate("aarau").public.key)
    for changes in ({"roster": "00" * 32}, {"members": (stranger, *session.members[1:])}):
        here.attack(ME, "other terms than plan and roster give", 0, "keys", replace(session, **changes), today)


def test_a_stale_roster_gives_no_session(consortium: Make) -> None:
    """A site that follows epoch 2 joins nothing under epoch 1, and nobody can lead it back."""
    here = consortium()
    session, _ = keyed(here)
    second = here.next_roster(here.roster)
    site = here.sites[ME]
    pinned = PinnedRoster(site.ledger._store, here.keys[ME])
    pinned.advance(second.canonical)
    today = here.plan.governance.proposed_on
    here.attack(ME, "other terms than plan and roster give", 0, "keys", session, today)
    with pytest.raises(ProtocolViolation, match="cannot come behind one of epoch 2"):
        pinned.advance(here.roster.canonical)
    here.attack(ME, "has expired", 0, "keys", replace(session, roster=second.digest), today + timedelta(days=366))


def test_a_lowered_threshold_gives_no_session(consortium: Make) -> None:
    here = consortium()
    session, _ = keyed(here)
    today = here.plan.governance.proposed_on
    assert session.threshold == 4
    here.attack(ME, "other terms", 0, "keys", replace(session, threshold=3, colluding=0), today)


def test_several_sites_of_one_owner_are_one_site(consortium: Make) -> None:
    """Two keys of one legal entity in a session would count as two towards the threshold."""
    here = consortium(owners={"cork": "Chain Ltd", "delft": "chain  LTD".replace("  ", " ")})
    with pytest.raises(ProtocolViolation, match="'cork' and 'delft' are one legal entity"):
        here.set_up()
    # A coordinator that does not ask that itself is refused by each site.
    session = session_for(here.plan, list(here.keys.values()), roster=here.roster.digest, name="first",
                          coordinator=here.operator.public, length=here.length, rounds=(1, 2), attempts=3)  # fmt: skip
    here.attack(ME, "are one legal entity", 0, "keys", session, here.plan.governance.proposed_on)


def test_a_site_that_is_shown_another_set_up_finds_out_before_it_is_used(consortium: Make) -> None:
    here = consortium()
    _, keys = keyed(here)
    # Two ghosts of one site: bergen sees other keys of cork than the rest do.
    other = replace(keys[2], nonce=bytes(32)).signed_by(here.sites["cork"].process.identity)
    desks = {name: here.sites[name].deal([*keys[:2], other, *keys[3:]] if name == ME else keys) for name in NAMES}
    said = {name: parse_step(bytes_to_send(made), name) for name, made in desks.items()}
    deals = [said[name][0] for name in NAMES]
    parcels = [parcel for name in NAMES for parcel in said[name][1] if parcel.recipient == ME]
    here.attack(ME, "it showed 'aarau' other keys than this site", 0, "agree", deals, parcels)


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


def opened_without(here: Any, desk: SetupDesk, attempt: int, lost: str) -> Any:
    """An attempt at round 1 whose sum is opened without ``lost``: its proposal."""
    proposal = here.propose(desk, 1, attempt)
    here.total(here.uploads(desk, proposal, [name for name in NAMES if name != lost]))
    return proposal


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


@pytest.mark.parametrize("first", ["hidden", "opened"])
def test_a_share_and_a_seed_of_one_site_never_meet_across_attempts(consortium: Make, first: str) -> None:
    """Hidden at one attempt and opened at the next, or the reverse: no second sum, and other masks each time."""
    here = consortium()
    desk = here.set_up()
    one = opened_without(here, desk, 1, "cork") if first == "hidden" else here.propose(desk, 1, 1)
    if first == "opened":
        here.total(here.uploads(desk, one))
    two = here.propose(desk, 1, 2)
    lost = "cork" if first == "opened" else "nobody"
    table = here.uploads(desk, two, [name for name in NAMES if name != lost])
    for name in ("aarau", ME):
        here.attack(name, "a second sum over inputs that were opened", 1, "consent", two, table.survivors())
    here.nothing_left(two)
    # What left at the first attempt opens nothing of the second: every secret is of one attempt.
    for kind in ("shares", "seeds", "own"):
        assert not set(here.sites[ME].secrets(one)[kind]) & set(here.sites[ME].secrets(two)[kind])


def test_a_feigned_void_does_not_buy_the_sum_of_a_subset(consortium: Make) -> None:
    """It has the openings, calls the attempt void, and asks again without one site, to subtract."""
    here = consortium()
    desk = here.set_up()
    here.total(here.uploads(desk, here.propose(desk)))
    again = here.propose(desk, 1, 2)
    table = here.uploads(desk, again, NAMES[:4])
    for name in NAMES[:4]:
        here.attack(name, "a second sum over inputs", 1, "consent", again, table.survivors())
    here.nothing_left(again)
    # The identical set would tell it nothing new, and is opened: an honest coordinator may have lost the answers.
    third = here.propose(desk, 1, 3)
    here.total(here.uploads(desk, third))


def test_a_new_session_does_not_open_another_sum_over_cached_inputs(consortium: Make) -> None:
    here = consortium()
    desk = here.set_up()
    here.total(here.uploads(desk, here.propose(desk)))
    for name in NAMES:
        here.sites[name].restart()
    desk = here.set_up("second")
    again = here.propose(desk, 1, 2)
    table = here.uploads(desk, again, NAMES[1:])
    assert here.sites[ME].ledger.charged(here.plan.digest) == 1, "the stored answer is masked again, at no charge"
    for name in NAMES[1:]:
        here.attack(name, "a second sum over inputs", 1, "consent", again, table.survivors())
    here.nothing_left(again)


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


def test_after_a_restart_nothing_of_the_old_session_is_answered(consortium: Make) -> None:
    here = consortium()
    desk = here.set_up()
    proposal = here.propose(desk)
    table = here.uploads(desk, proposal)
    consents = here.consents(proposal, table.survivors())
    here.nothing_left(proposal)
    here.sites[ME].restart()
    here.attack(ME, "this site has no session", 1, "consent", proposal, table.survivors())
    here.attack(ME, "this site has no session", 1, "open", proposal, consents)


def test_a_snapshot_restored_between_list_and_opening_opens_no_second_sum(consortium: Make, snapshot: Any) -> None:
    """The file that comes back has never heard of the opening. The session is gone with the process; a witness's head
    stops new ones; and after two officers' recovery the round is over."""
    here = consortium()
    desk, today = here.set_up(), here.plan.governance.proposed_on
    proposal = here.propose(desk)
    table = here.uploads(desk, proposal)
    survivors, site = table.survivors(), here.sites[ME]
    consents = here.consents(proposal, survivors)
    restore = snapshot(site)
    site.open(proposal, consents)
    seen: Head = site.ledger.tree().head()
    restore()
    assert site.ledger.state.size < seen.size
    here.attack(ME, "this site has no session", 1, "open", proposal, consents)
    session = replace(desk.session, name="after the restore")
    assert site.ledger.rolled_back(seen, "cork")
    before = len(site.left)
    with pytest.raises(Unavailable, match=f"others have seen {seen.size} entries"):
        site.keys(session, today)
    assert len(site.left) == before
    # Two officers let the ledger go on; what was answered before may have been opened, so it is over.
    charges = site.ledger.state.missing_charges(seen.size)
    fact = Recover(seen_size=seen.size, seen_root=seen.root.hex(), charges=charges, reason="a restored machine")
    for officer in here.officers:
        fact = approve(fact, here.keys[ME].key.hex(), officer)
    site.ledger.record(fact)
    desk = here.set_up("after the recovery")
    again = here.propose(desk, 1, 2)
    answer = site.said("answer", here.request(1, 2), again, today)
    assert isinstance(answer, Refusal)
    here.refused(ME, "answered before a recovery", 1)
    here.nothing_left(again, ME)


def test_an_upload_of_another_session_does_not_stand_on_a_list(consortium: Make) -> None:
    here = consortium()
    desk = here.set_up()
    old = here.uploads(desk, here.propose(desk)).survivors()
    desk = here.set_up("second")
    proposal = here.propose(desk, 1, 2)
    survivors = here.uploads(desk, proposal).survivors()
    mixed = (old.uploads[0], *survivors.uploads[1:])
    here.attack(ME, "the upload of 'aarau' is not one", 1, "consent", proposal, here.listed(proposal.hash, *mixed))
    here.nothing_left(proposal)


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


def test_a_coordinator_that_voids_every_round_spends_no_more_than_the_officers_granted(consortium: Make) -> None:
    """Budget exhaustion: it never lists anybody, and asks again and again from other models."""
    here = consortium(rounds=1)
    today = here.plan.governance.proposed_on
    refusals = 0
    for time in range(12):
        desk = here.set_up(f"session {time}")
        request = here.request(1, 1 + time % 3, shift=0.0)
        proposal = here.propose(desk, 1, 1 + time % 3)
        refusals += isinstance(here.sites[ME].said("answer", request, proposal, today), Refusal)
    # One model, one answer: masked again each time, or refused; charged once.
    assert here.sites[ME].ledger.charged(here.plan.digest) == 1
    assert refusals < 12


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
