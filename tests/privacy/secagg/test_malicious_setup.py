"""A coordinator that lies before the first round: about keys, roster, terms, owners, and who has seen what.

A session that begins with a lie would make every later check worthless, so each lie ends here: in a refusal by name, an
entry in the site's ledger under round 0, and nothing that leaves. One test for each line of docs/attacks.md. The last
one is the control: a set-up in which every message comes twice, and nobody lies.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from wardround.client.store.roster import PinnedRoster
from wardround.privacy.secagg.server import SetupDesk
from wardround.protocol.errors import ProtocolViolation
from wardround.protocol.identity import Identity
from wardround.protocol.outgoing import bytes_to_send, parse_step

Make = Callable[..., Any]
ME, NAMES = "bergen", ("aarau", "bergen", "cork", "delft", "evora")


def offered(here: Any, reason: str, today: Any = None, **changes: Any) -> None:
    """A session on these terms is refused by ``ME``."""
    day = today or here.plan.governance.proposed_on
    here.attack(ME, reason, 0, "keys", here.terms(**changes), day)


def test_a_forged_key_in_a_sites_message_is_refused(consortium: Make) -> None:
    here = consortium()
    keys = here.keyed()
    forged = replace(keys[0], x25519=keys[2].x25519)
    for lie in (forged, forged.signed_by(Identity.generate("aarau"))):
        here.attack(ME, "its signature does not belong", 0, "deal", [lie, *keys[1:]])
        here.sites[ME].restart()
        here.keyed()


def test_a_swapped_roster_gives_no_session(consortium: Make) -> None:
    here = consortium()
    members = here.terms().members
    stranger = replace(members[0], key=Identity.generate("aarau").public.key)
    for changes in ({"roster": "00" * 32}, {"members": (stranger, *members[1:])}):
        offered(here, "other terms than plan and roster give", **changes)


def test_a_stale_roster_gives_no_session(consortium: Make) -> None:
    """A site that follows epoch 2 joins nothing under epoch 1, and nobody can lead it back."""
    here = consortium()
    second = here.next_roster(here.roster)
    pinned = PinnedRoster(here.sites[ME].ledger._store, here.keys[ME])
    pinned.advance(second.canonical)
    offered(here, "other terms than plan and roster give")
    with pytest.raises(ProtocolViolation, match="cannot come behind one of epoch 2"):
        pinned.advance(here.roster.canonical)
    late = here.plan.governance.proposed_on + timedelta(days=366)
    offered(here, "has expired", late, roster=second.digest)


def test_a_lowered_threshold_gives_no_session(consortium: Make) -> None:
    here = consortium()
    assert here.terms().threshold == 4
    offered(here, "other terms", threshold=3, colluding=0)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"length": 7}, "other terms"),
        ({"bits": 64}, "other terms"),
        ({"plan": "00" * 32}, "other terms"),
        ({"coordinator": Identity.generate("coordinator").public}, "other terms"),
        ({"rounds": (1, 2, 3)}, "other rounds than the plan's"),
        ({"rounds": ()}, "other rounds than the plan's"),
        ({"attempts": 11}, "11 attempts at a round"),
    ],
    ids=["length", "ring", "plan", "coordinator", "a round too many", "no rounds", "attempts"],
)
def test_terms_that_are_not_the_plans_give_no_session(consortium: Make, changes: dict[str, Any], why: str) -> None:
    """Another scale of the integers, somebody else to sign requests, masks for rounds that nobody approved."""
    offered(consortium(), why, **changes)


def test_several_sites_of_one_owner_are_one_site(consortium: Make) -> None:
    """Two keys of one legal entity in a session would count as two towards the threshold."""
    here = consortium(owners={"cork": "Chain Ltd", "delft": "chain LTD"})
    with pytest.raises(ProtocolViolation, match="'cork' and 'delft' are one legal entity"):
        here.set_up()
    # A coordinator that does not ask that itself is refused by each site.
    offered(here, "are one legal entity")


def test_a_site_that_is_shown_another_set_up_finds_out_before_it_is_used(consortium: Make) -> None:
    """Two ghosts of one site: bergen sees other keys of cork than the rest do."""
    here = consortium()
    keys = here.keyed()
    other = replace(keys[2], nonce=bytes(32)).signed_by(here.sites["cork"].process.identity)
    shown = {name: [*keys[:2], other, *keys[3:]] if name == ME else keys for name in NAMES}
    deals = [here.sites[name].said("deal", shown[name]) for name in NAMES]
    here.attack(ME, "it showed 'aarau' other keys than this site", 0, "agree", deals, [])


def test_a_deal_that_one_site_is_not_shown_is_found_by_what_all_sign(consortium: Make) -> None:
    """evora would count four sites where the others count five."""
    here = consortium()
    deals, parcels = here.dealt()
    fewer = [parcel for parcel in parcels["evora"] if parcel.dealer != ME]
    agreements = [here.sites[name].said("agree", deals, parcels[name]) for name in NAMES[:4]]
    agreements += [here.sites["evora"].said("agree", [deal for deal in deals if deal.site != ME], fewer)]
    here.attack(ME, "it showed 'evora' another set-up than this site", 0, "begin", agreements)
    here.attack("aarau", "it showed 'evora' another set-up than this site", 0, "begin", agreements)


@pytest.mark.parametrize(
    ("lie", "why"),
    [
        ("changed", "the parcel of 'aarau' is not the one that it signed"),
        ("another's", "the parcel of 'aarau' is not the one that it signed"),
        ("withheld", "one parcel of each dealer"),
        ("twice", "one parcel of each dealer"),
    ],
)
def test_parcels_that_are_changed_or_withheld_are_not_accepted(consortium: Make, lie: str, why: str) -> None:
    here = consortium()
    deals, parcels = here.dealt()
    first, *rest = parcels[ME]
    given = {
        "changed": [replace(first, envelope=first.envelope[:-1] + b"\x00"), *rest],
        "another's": [parcels["cork"][0], *rest],
        "withheld": rest,
        "twice": [first, first, *rest],
    }
    here.attack(ME, why, 0, "agree", deals, given[lie])


@pytest.mark.parametrize("step", ["deal", "agree", "begin"])
def test_a_set_up_among_one_two_or_t_minus_1_is_refused_at_every_step(consortium: Make, step: str) -> None:
    """Whoever signs the same set-up is the session (U0): it is never smaller than the plan's threshold."""
    here = consortium()
    if step == "deal":
        keys, parcels, said = here.keyed(), {}, []
    else:
        (deals, parcels), keys = here.dealt(), []
        said = [] if step == "agree" else [here.sites[n].said("agree", deals, parcels[n]) for n in NAMES]
    for count, name in enumerate(NAMES[:3], start=1):
        some = sorted([name, *[other for other in NAMES if other != name][: count - 1]])
        few = lambda messages, some=some: [message for message in messages if message.site in some]  # noqa: E731
        if step == "deal":
            here.attack(name, "enough sites", 0, step, few(keys))
        elif step == "agree":
            parts = [parcel for parcel in parcels[name] if parcel.dealer in some]
            here.attack(name, "enough sites", 0, step, few(deals), parts)
        else:
            here.attack(name, "too few sites agreed", 0, step, few(said))
            assert not here.sites[name].process.ready


def test_keys_from_before_a_restart_are_not_those_of_the_set_up_that_is_repeated(consortium: Make) -> None:
    here = consortium()
    before = here.keyed()
    here.sites[ME].restart()
    now = [here.sites[ME].said("keys", here.terms(), here.plan.governance.proposed_on)]
    assert now[0] != before[1]
    here.attack(ME, "other keys for this site than it sent", 0, "deal", before)


@pytest.mark.parametrize("lie", ["deal", "agree"])
def test_after_a_lie_every_later_step_of_the_set_up_is_refused_by_name(consortium: Make, lie: str) -> None:
    """Nothing that a coordinator sends next may crash a site: a crash is no refusal, and stands in no ledger."""
    here = consortium()
    if lie == "deal":
        keys = here.keyed()
        here.attack(ME, "its signature does not belong", 0, "deal", [replace(keys[0], nonce=bytes(32)), *keys[1:]])
        deals, parcels = [here.sites[name].said("deal", keys) for name in NAMES if name != ME], []
    else:
        deals, sealed = here.dealt()
        keys, parcels = [], sealed[ME]
        here.attack(ME, "enough sites", 0, "agree", deals[:3], parcels)
    for step, asked in (("deal", [keys]), ("agree", [deals, parcels]), ("begin", [[]])):
        here.attack(ME, f"'{step}' of the set-up is not possible when it is ended", 0, step, *asked)
    assert not here.sites[ME].process.ready


def test_honest_redelivery_of_a_set_up_gets_the_same_bytes(consortium: Make) -> None:
    """Every request of a set-up twice: nothing is drawn anew, nobody is accused, and the session works."""
    here = consortium()
    desk, today = SetupDesk(here.terms(), here.operator), here.plan.governance.proposed_on

    def twice(name: str, step: str, *asked: Any) -> Any:
        first, again = (bytes_to_send(getattr(here.sites[name], step)(*asked)) for _ in range(2))
        assert first == again, f"{step} again gave other bytes"
        return parse_step(first, name)

    for name in NAMES:
        desk.add_keys(twice(name, "keys", here.terms(), today)[0])
    for name in NAMES:
        desk.add_deal(*twice(name, "deal", desk.keys()))
    for name in NAMES:
        desk.add_agreement(twice(name, "agree", desk.deals(), desk.parcels_for(name))[0])
    for name in NAMES:
        for _ in range(2):
            here.sites[name].begin(desk.agreements())
    assert here.total(here.uploads(desk, here.propose(desk))).shape == (here.length,)
    assert all(site.refusals() == [] for site in here.sites.values())
