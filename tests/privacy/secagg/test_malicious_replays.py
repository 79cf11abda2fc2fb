"""A coordinator that asks twice: at another attempt, in another session, after a restart, of a restored machine.

Two sums over the same inputs and different sites differ by single inputs, so what a site has opened binds it for ever.
One test for each line of docs/attacks.md.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from wardround.privacy.secagg.server import SetupDesk
from wardround.protocol.errors import Unavailable
from wardround.protocol.ledger import Recover, approve
from wardround.protocol.messages import Masked, Refusal
from wardround.protocol.tree import Head

Make = Callable[..., Any]
ME, NAMES = "bergen", ("aarau", "bergen", "cork", "delft", "evora")


def opened_without(here: Any, desk: SetupDesk, attempt: int, lost: str) -> Any:
    """An attempt at round 1 whose sum is opened without ``lost``: its proposal."""
    proposal = here.propose(desk, 1, attempt)
    here.total(here.uploads(desk, proposal, [name for name in NAMES if name != lost]))
    return proposal


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
    today = here.plan.governance.proposed_on
    assert isinstance(here.sites[ME].said("answer", here.request(), proposal, today), Refusal)


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


def test_one_snapshot_that_no_witness_knows_of_is_not_enough_for_a_second_sum(consortium: Make, snapshot: Any) -> None:
    """The restored hospital has forgotten the opening and would sign another list; t - 1 others have not."""
    here = consortium()
    desk = here.set_up()
    table = here.uploads(desk, proposal := here.propose(desk))
    consents = here.consents(proposal, table.survivors())
    restore = snapshot(here.sites[ME])
    for name in NAMES:
        here.sites[name].open(proposal, consents)
    restore()
    desk = here.set_up("after the restore")
    again = here.propose(desk, 1, 2)
    survivors = here.uploads(desk, again, [name for name in NAMES if name != "cork"]).survivors()
    signed = here.consents(again, survivors, (ME,))
    for name in survivors.sites:
        if name != ME:
            here.attack(name, "a second sum over inputs that were opened", 1, "consent", again, survivors)
    here.attack(ME, "1 signatures under the list, below the plan's threshold", 1, "open", again, signed)
    here.nothing_left(again)


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


def test_a_session_that_is_older_than_its_days_is_not_answered(consortium: Make) -> None:
    """Thirty days, however many rounds it has masks for."""
    here = consortium()
    desk, today = here.set_up(), here.plan.governance.proposed_on
    proposal, site = here.propose(desk), here.sites[ME]
    assert isinstance(site.said("answer", here.request(), proposal, today + timedelta(days=31)), Refusal)
    here.refused(ME, "the session is over since", 1)
    assert site.ledger.charged(here.plan.digest) == 0
    here.nothing_left(proposal)
    assert isinstance(site.said("answer", here.request(), proposal, today + timedelta(days=30)), Masked)


def test_a_coordinator_that_voids_every_round_spends_no_more_than_the_officers_granted(consortium: Make) -> None:
    """Budget exhaustion: it never lists anybody, and asks again and again, from the same model and from others."""
    here = consortium()
    today, site, said = here.plan.governance.proposed_on, here.sites[ME], []
    for time in range(6):
        desk = here.set_up(f"session {time}")
        request = here.request(2, 1 + time % 3, shift=0.5 * (time // 3))
        proposal = here.propose(desk, 2, 1 + time % 3, model_hash=request.model_hash)
        said.append(site.said("answer", request, proposal, today))
    # The first model gets its one answer, masked again each time; another model for the round gets none.
    assert [isinstance(each, Masked) for each in said] == [True] * 3 + [False] * 3
    here.refused(ME, "round 2 was answered from another model", 2)
    assert site.ledger.charged(here.plan.digest) == 1
