"""The whole protocol: exact sums whoever is lost, and every lie of a coordinator or a site refused by name."""

import hashlib
import os
from collections.abc import Collection
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wardround.privacy.secagg import client
from wardround.privacy.secagg.client import ATTEMPT_TRANSITIONS, Opened, SitePlayer
from wardround.privacy.secagg.keys import pair_mask_key
from wardround.privacy.secagg.masks import add_masks, pairwise
from wardround.privacy.secagg.ring import Ring
from wardround.privacy.secagg.server import AttemptDesk, SetupDesk
from wardround.privacy.secagg.session import SETUP_TRANSITIONS, Ready, Setup
from wardround.privacy.secagg.transcript import Transcript, attempt, set_up
from wardround.protocol.errors import ProtocolViolation, Unavailable, UsageError
from wardround.protocol.identity import Identity
from wardround.protocol.secagg import (
    Agreement,
    Consent,
    Deal,
    Keys,
    Opening,
    Proposal,
    Session,
    Survivors,
    Upload,
    colluding,
    threshold,
)

MODEL = "ee" * 32
OPERATOR = Identity.generate("operator")
NAMES = ("aarau", "bergen", "cork", "delft", "evora")


@dataclass(slots=True)
class Party:
    """A session of sites that have set it up, and their integers for one round."""

    session: Session
    identities: dict[str, Identity]
    desk: SetupDesk
    ready: dict[str, Ready]
    values: dict[str, np.ndarray]

    def players(self, opened: Collection[Opened] = ()) -> dict[str, SitePlayer]:
        return {site: SitePlayer(ready, tuple(opened)) for site, ready in self.ready.items()}

    def proposal(self, *sites: str, number: int = 1, try_: int = 1, **changes: Any) -> Proposal:
        made = Proposal(self.session.digest, number, try_, sites or self.sites, MODEL, "update")
        return replace(made, **changes).signed_by(OPERATOR)

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(sorted(self.values))

    def sum(self, sites: Collection[str]) -> list[int]:
        """Their integer sum, in Python's own integers."""
        return [sum(int(self.values[site][k]) for site in sites) for k in range(self.session.length)]


def party(
    names: tuple[str, ...] = NAMES,
    length: int = 40,
    bits: int = 32,
    rounds: tuple[int, ...] = (1, 2),
    attempts: int = 2,
    seed: int = 0,
) -> Party:
    identities = {name: Identity.generate(name) for name in names}
    n = len(names)
    session = Session("ab" * 32, "cd" * 32, "s1", tuple(i.public for i in identities.values()), threshold(n),
                      colluding(n), bits, length, rounds, attempts, OPERATOR.public)  # fmt: skip
    desk, ready = set_up(session, OPERATOR, list(identities.values()), os.urandom)
    limit, chance = Ring(bits).limit(n), np.random.default_rng(seed)
    values = {name: chance.integers(-limit, limit + 1, length) for name in names}
    values[names[0]][:2] = limit, -limit
    return Party(session, identities, desk, ready, values)


FIVE = party()


@pytest.mark.parametrize(("sites", "t", "c"), [(3, 3, 0), (4, 3, 1), (5, 4, 1), (10, 7, 3), (20, 14, 6), (50, 34, 16),
                                               (100, 67, 33)])  # fmt: skip
def test_the_threshold_is_the_designs(sites: int, t: int, c: int) -> None:
    assert (threshold(sites), colluding(sites)) == (t, c) and 2 * t > sites + c


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("sites", [3, 4, 7])
def test_the_sum_is_the_integer_sum_bit_for_bit(sites: int, bits: int) -> None:
    made = party(tuple(f"s{number}" for number in range(sites)), bits=bits, rounds=(1,), attempts=1, seed=sites)
    done = attempt(made.desk, made.players(), made.proposal(), made.values)
    assert done.total is not None and done.total.tolist() == made.sum(made.sites)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_whoever_is_lost_at_one_exchange_the_rest_is_summed_exactly_or_nothing_is(data: st.DataObject) -> None:
    """Five sites, threshold four: any loss that leaves four opens; the one combination that cannot is named."""
    lost = [data.draw(st.sets(st.sampled_from(NAMES), max_size=2)) for _ in range(3)]
    uploaded = [site for site in NAMES if site not in lost[0]]
    signed = [site for site in uploaded if site not in lost[1]]
    opened = [site for site in signed if site not in lost[2]]
    run = lambda: attempt(FIVE.desk, FIVE.players(), FIVE.proposal(), FIVE.values, lost)  # noqa: E731
    if len(opened) >= 4 and not (len(uploaded) < 5 and len(opened) < len(uploaded)):
        assert run().total.tolist() == FIVE.sum(uploaded)  # type: ignore[union-attr]
    else:
        with pytest.raises(Unavailable):
            run()


def test_a_pair_of_whom_one_was_lost_before_and_one_after_the_upload_voids_the_attempt() -> None:
    seven = party((*NAMES, "faro", "genoa"))
    with pytest.raises(Unavailable, match="'aarau' was lost before its upload and 'bergen' after it"):
        attempt(seven.desk, seven.players(), seven.proposal(), seven.values, (["aarau"], [], ["bergen"]))


def test_a_sub_set_of_the_sites_is_a_round_of_its_own() -> None:
    chosen = NAMES[:4]
    done = attempt(FIVE.desk, FIVE.players(), FIVE.proposal(*chosen), FIVE.values)
    assert done.total.tolist() == FIVE.sum(chosen)  # type: ignore[union-attr]


def test_what_is_uploaded_changes_with_round_attempt_participants_model_and_vector() -> None:
    uploads = {
        SitePlayer(FIVE.ready["cork"]).mask(proposal, proposal.model_hash, FIVE.values["cork"])[0].content
        for proposal in (
            FIVE.proposal(),
            FIVE.proposal(number=2),
            FIVE.proposal(try_=2),
            FIVE.proposal(*NAMES[:4]),
            FIVE.proposal(model_hash="ff" * 32),
            FIVE.proposal(vector="another"),
        )
    }
    assert len(uploads) == 6


def test_a_seed_of_one_attempt_is_of_no_use_in_another() -> None:
    """What is opened for a lost site in one attempt unmasks nothing of the next."""
    proposals = [FIVE.proposal(), FIVE.proposal(try_=2), FIVE.proposal(number=2), FIVE.proposal(model_hash="ff" * 32)]
    secret = FIVE.ready["aarau"].pairs["bergen"]
    assert len({pair_mask_key(secret, proposal.hash) for proposal in proposals}) == 4


# The coordinator lies


def masked(made: Party, proposal: Proposal | None = None) -> tuple[dict[str, SitePlayer], Proposal, Survivors]:
    """Players that have answered R1, and the list of all uploads."""
    players, proposal = made.players(), proposal or made.proposal()
    table = AttemptDesk(made.desk, proposal)
    for site in proposal.participants:
        table.add_upload(*players[site].mask(proposal, MODEL, made.values[site]))
    return players, proposal, table.survivors()


def consents(players: dict[str, SitePlayer], proposal: Proposal, survivors: Survivors) -> tuple[Consent, ...]:
    return tuple(players[site].consent(proposal, survivors) for site in survivors.sites)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"session": "00" * 32}, "no masks for"),
        ({"round_number": 3}, "no masks for"),
        ({"attempt": 3}, "no masks for"),
        ({"participants": NAMES[1:]}, "not sites of this session"),
        ({"participants": (*NAMES, "ghost")}, "not sites of this session"),
        ({"participants": ("aarau", "aarau", *NAMES[1:])}, "not sites of this session"),
        ({"participants": NAMES[::-1]}, "not sites of this session"),
        ({"participants": NAMES[:3]}, "below the plan's threshold"),
        ({"participants": NAMES[:1]}, "below the plan's threshold"),
        ({"model_hash": "00" * 32}, "another model"),
    ],
)
def test_a_proposal_that_the_plan_does_not_allow_is_not_answered(change: dict[str, Any], why: str) -> None:
    with pytest.raises(ProtocolViolation, match=why) as error:
        FIVE.players()["aarau"].mask(FIVE.proposal(**change), MODEL, FIVE.values["aarau"])
    assert error.value.site == "coordinator"


def test_the_same_request_gets_the_same_answer_and_another_one_ends_the_session() -> None:
    players, proposal, survivors = masked(FIVE)
    player = players["aarau"]
    once = player.mask(proposal, MODEL, FIVE.values["aarau"])
    again = player.mask(proposal, MODEL, FIVE.values["bergen"])
    assert once[0] == again[0] and once[1] is again[1]
    assert player.consent(proposal, survivors) == player.consent(proposal, survivors)
    with pytest.raises(ProtocolViolation, match="two proposals"):
        player.mask(replace(proposal, participants=NAMES[:4]).signed_by(OPERATOR), MODEL, FIVE.values["aarau"])
    for act in (
        lambda: player.mask(proposal, MODEL, FIVE.values["aarau"]),
        lambda: player.consent(proposal, survivors),
        lambda: player.open(proposal, ()),
    ):
        with pytest.raises(ProtocolViolation, match="session has ended"):
            act()


def test_two_lists_of_survivors_end_the_session() -> None:
    players, proposal, survivors = masked(FIVE)
    players["aarau"].consent(proposal, survivors)
    with pytest.raises(ProtocolViolation, match="two lists of survivors"):
        players["aarau"].consent(proposal, replace(survivors, uploads=survivors.uploads[:4]).signed_by(OPERATOR))


def lists(survivors: Survivors) -> dict[str, Survivors]:
    """Lists that nobody may sign, by the reason."""
    uploads = survivors.uploads
    forged = replace(uploads[1], content="00" * 32)
    stranger = replace(forged).signed_by(Identity.generate("bergen"))
    return {
        "another proposal": replace(survivors, proposal="00" * 32).signed_by(OPERATOR),
        "below the plan's threshold": replace(survivors, uploads=uploads[:3]).signed_by(OPERATOR),
        "participants, each once": replace(survivors, uploads=(uploads[0], *uploads)).signed_by(OPERATOR),
        "not participants, each once": replace(survivors, uploads=uploads[::-1]).signed_by(OPERATOR),
        "this site's own upload": replace(survivors, uploads=uploads[1:]).signed_by(OPERATOR),
        "upload of 'bergen' is not one": replace(survivors, uploads=(uploads[0], forged, *uploads[2:])).signed_by(
            OPERATOR
        ),
        "upload of 'bergen' is": replace(survivors, uploads=(uploads[0], stranger, *uploads[2:])).signed_by(OPERATOR),
    }


@pytest.mark.parametrize("why", sorted(lists(masked(FIVE)[2])))
def test_a_list_that_is_not_of_genuine_uploads_is_not_signed(why: str) -> None:
    players, proposal, survivors = masked(FIVE)
    with pytest.raises(ProtocolViolation, match=why):
        players["aarau"].consent(proposal, lists(survivors)[why])


def test_an_upload_of_another_session_round_or_model_does_not_fit_on_a_list() -> None:
    players, proposal, survivors = masked(FIVE)
    other = masked(FIVE, FIVE.proposal(number=2))[2].uploads
    mixed = replace(survivors, uploads=(survivors.uploads[0], *other[1:])).signed_by(OPERATOR)
    with pytest.raises(ProtocolViolation, match="upload of 'bergen'"):
        players["aarau"].consent(proposal, mixed)


def test_sites_that_were_shown_different_participants_or_models_do_not_sign_one_list() -> None:
    """Split views: the uploads carry what each site was shown, so the other's does not fit."""
    players = FIVE.players()
    shown = {site: FIVE.proposal(model_hash=MODEL if site != "evora" else "ff" * 32) for site in NAMES}
    uploads = tuple(players[site].mask(shown[site], shown[site].model_hash, FIVE.values[site])[0] for site in NAMES)
    for site in NAMES:
        with pytest.raises(ProtocolViolation):
            players[site].consent(shown[site], Survivors(shown[site].hash, uploads).signed_by(OPERATOR))


def test_nothing_is_opened_before_t_survivors_have_signed_the_same_list() -> None:
    players, proposal, survivors = masked(FIVE)
    with pytest.raises(ProtocolViolation, match="before this site has signed"):
        players["aarau"].open(proposal, ())
    signed = consents(players, proposal, survivors)
    other = replace(survivors, uploads=survivors.uploads[:4]).signed_by(OPERATOR)
    forged = replace(signed[1], site="cork")
    for given_, why in [
        (signed[:3], "3 signatures under the list"),
        ((signed[0], signed[0], *signed[2:4]), "each once"),
        ((*signed[:3], forged), "not of survivors|each once|not under this list"),
        ((*signed[:3], Consent("delft", other.hash).signed_by(FIVE.identities["delft"])), "'delft' is not under"),
        ((*signed[:3], Consent("ghost", survivors.hash)), "not of survivors"),
        ((*signed[:3], replace(signed[3], signature=bytes(64))), "'delft' is not under"),
    ]:
        with pytest.raises(ProtocolViolation, match=why):
            players["aarau"].open(proposal, given_)
    record, opening = players["aarau"].open(proposal, signed)
    assert record.survivors == NAMES and not opening.seeds


def test_a_site_gives_a_share_or_a_seed_of_another_and_never_both() -> None:
    players = FIVE.players()
    done = attempt(FIVE.desk, players, FIVE.proposal(), FIVE.values, (["evora"], [], []))
    openings = [message for message in done.messages if isinstance(message, Opening)]
    assert len(openings) == 4
    for opening in openings:
        shared, seeded = {site for site, _, _ in opening.shares}, {site for site, _ in opening.seeds}
        assert shared == set(NAMES[:4]) and seeded == {"evora"}


def test_inputs_that_were_opened_in_one_sum_are_never_opened_in_another() -> None:
    """Across attempts, and across sessions and restarts through the records on disk; the same set is no new sum."""
    players = FIVE.players()
    done = attempt(FIVE.desk, players, FIVE.proposal(), FIVE.values)
    with pytest.raises(ProtocolViolation, match="second sum over inputs"):
        attempt(FIVE.desk, players, FIVE.proposal(try_=2), FIVE.values, (["evora"], [], []))
    again = attempt(FIVE.desk, players, FIVE.proposal(number=2), FIVE.values)
    assert again.total.tolist() == FIVE.sum(NAMES)  # type: ignore[union-attr]

    later = party(seed=9)
    later.values = FIVE.values
    with pytest.raises(ProtocolViolation, match="second sum over inputs"):
        attempt(later.desk, later.players(done.opened), later.proposal(), later.values, (["evora"], [], []))
    fresh = later.values | {site: values // 2 for site, values in later.values.items()}
    assert (
        attempt(later.desk, later.players(done.opened), later.proposal(), fresh, (["evora"], [], [])).total is not None
    )


def test_a_site_that_restarts_answers_nothing_of_its_old_session() -> None:
    players, proposal, survivors = masked(FIVE)
    signed = consents(players, proposal, survivors)
    restarted = SitePlayer(FIVE.ready["aarau"])
    with pytest.raises(ProtocolViolation, match="has not masked for"):
        restarted.consent(proposal, survivors)
    with pytest.raises(ProtocolViolation, match="has not masked for"):
        restarted.open(proposal, signed)


# Set-up under attack


def setups(names: tuple[str, ...] = NAMES) -> tuple[Session, dict[str, Setup], dict[str, Keys]]:
    identities = {name: Identity.generate(name) for name in names}
    n = len(names)
    session = Session("ab" * 32, "cd" * 32, "s1", tuple(i.public for i in identities.values()), threshold(n),
                      colluding(n), 32, 4, (1,), 1, OPERATOR.public)  # fmt: skip
    made = {name: Setup(session, identity, os.urandom) for name, identity in identities.items()}
    return session, made, {name: setup.keys() for name, setup in made.items()}


def test_keys_that_are_forged_swapped_repeated_or_of_another_session_stop_the_set_up() -> None:
    _, _, keys = setups()
    mallory = Setup(FIVE.session, FIVE.identities["bergen"], os.urandom).keys()
    for why, change in {
        "another session": lambda all_: [all_[0], mallory, *all_[2:]],
        "signature does not belong": lambda all_: [all_[0], replace(all_[1], x25519=bytes(32)), *all_[2:]],
        "other keys for this site": lambda all_: [*all_[1:]],
        "each once, sorted": lambda all_: [all_[0], *all_],
        "enough sites": lambda all_: all_[:3],
        "signature does": lambda all_: [replace(all_[0], mlkem=all_[1].mlkem), *all_[1:]],
    }.items():
        session, made, keys = setups()
        with pytest.raises(ProtocolViolation, match=why):
            made["aarau"].deal(change([keys[name] for name in NAMES]))
    assert session.threshold == 4


def dealt() -> tuple[dict[str, Setup], dict[str, Deal], dict[str, dict[str, Any]]]:
    _, made, keys = setups()
    deals, parcels = {}, {}
    for name in NAMES:
        deals[name], sent = made[name].deal([keys[each] for each in NAMES])
        parcels[name] = {parcel.recipient: parcel for parcel in sent}
    return made, deals, parcels


def test_parcels_that_are_moved_changed_or_withheld_stop_the_set_up() -> None:
    def swapped(deals: Any, parcels: list[Any]) -> None:
        parcels[1] = replace(parcels[1], envelope=parcels[2].envelope)

    def other_commitments(deals: Any, parcels: list[Any]) -> None:
        parcels[1] = replace(parcels[1], commitments=bytes(len(parcels[1].commitments)))

    def withheld(deals: Any, parcels: list[Any]) -> None:
        del parcels[1]

    def own_deal_changed(deals: list[Any], parcels: Any) -> None:
        deals[0] = replace(deals[0], parcels=deals[0].parcels[:-1])

    for change, why in [
        (swapped, "parcel of 'bergen' is not the one"),
        (other_commitments, "parcel of 'bergen' is not the one"),
        (withheld, "one parcel of each dealer"),
        (own_deal_changed, "signature does not belong"),
    ]:
        made, deals, parcels = dealt()
        listed, mine = [deals[name] for name in NAMES], [parcels[name]["aarau"] for name in NAMES]
        change(listed, mine)
        with pytest.raises(ProtocolViolation, match=why):
            made["aarau"].agree(listed, mine)


def test_a_dealer_whose_share_is_not_what_it_committed_to_is_named_before_anything_is_masked() -> None:
    _, made, keys = setups()
    bergen = made["bergen"]
    real = bergen._parcel

    def lying(peer: Keys, shares: np.ndarray) -> Any:
        parcel = real(peer, shares)
        return replace(parcel, commitments=bytes(len(parcel.commitments)))

    bergen._parcel = lying  # type: ignore[method-assign]
    sent = {name: made[name].deal([keys[each] for each in NAMES]) for name in NAMES}
    deals = [sent[name][0] for name in NAMES]
    mine = [next(parcel for parcel in sent[name][1] if parcel.recipient == "aarau") for name in NAMES]
    with pytest.raises(ProtocolViolation, match="not the one that it committed to") as error:
        made["aarau"].agree(deals, mine)
    assert error.value.site == "bergen"


def test_a_coordinator_that_shows_two_set_ups_is_found_by_the_agreement() -> None:
    made, deals, parcels = dealt()
    agreements = []
    for name in NAMES:
        # evora is shown a set-up without bergen
        shown = [each for each in NAMES if not (name == "evora" and each == "bergen")]
        agreements.append(made[name].agree([deals[each] for each in shown], [parcels[each][name] for each in shown]))
    with pytest.raises(ProtocolViolation, match="another set-up"):
        made["aarau"].begin(agreements)


def test_steps_of_the_set_up_have_one_order() -> None:
    _, made, _ = setups()
    with pytest.raises(ProtocolViolation, match="is not possible"):
        made["aarau"].keys()
    with pytest.raises(ProtocolViolation, match="is not possible"):
        made["aarau"].agree([], [])
    assert len(SETUP_TRANSITIONS) == 4 and len(ATTEMPT_TRANSITIONS) == 4


@pytest.mark.parametrize(
    "changes",
    [
        {"threshold": 2},
        {"threshold": 6},
        {"members": FIVE.session.members[:2]},
        {"members": FIVE.session.members[::-1]},
        {"members": (*FIVE.session.members[:4], replace(FIVE.session.members[4], key=FIVE.session.members[0].key))},
        {"colluding": 4},
    ],
)
def test_terms_that_protect_nobody_make_no_session(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"secure sum|sorted by name"):
        replace(FIVE.session, **changes)


def test_one_owner_of_several_keys_in_a_session_is_refused_with_another_key() -> None:
    with pytest.raises(ValueError, match="no member"):
        Setup(FIVE.session, Identity.generate("aarau"), os.urandom)


# A site lies


@pytest.mark.parametrize(
    "values",
    [np.zeros(3, np.int64), np.zeros(40), np.full(40, 2**31), np.full(40, -(2**31)), np.zeros((40, 1), np.int64)],
)
def test_values_that_could_wrap_around_or_have_another_shape_never_leave_the_site(values: np.ndarray) -> None:
    with pytest.raises(UsageError):
        FIVE.players()["aarau"].mask(FIVE.proposal(), MODEL, values)


def test_the_coordinator_names_the_site_whose_upload_is_wrong() -> None:
    players, proposal = FIVE.players(), FIVE.proposal()
    upload, vector = players["bergen"].mask(proposal, MODEL, FIVE.values["bergen"])
    forged = Upload("bergen", proposal.hash, hashlib.sha256(bytes(160)).hexdigest())
    for bad, content, why in [
        (replace(upload, signature=bytes(64)), vector, "signature"),
        (replace(upload, site="aarau"), vector, "signature"),
        (upload, np.zeros_like(vector), "not the one that it signed"),
        (upload, vector[:-1], "length and type"),
        (upload, vector.astype("<u8"), "length and type"),
        (Upload("bergen", "00" * 32, upload.content).signed_by(FIVE.identities["bergen"]), vector, "another proposal"),
    ]:
        table = AttemptDesk(FIVE.desk, proposal)
        with pytest.raises(ProtocolViolation, match=why) as error:
            table.add_upload(bad, content)
        assert error.value.site in ("bergen", "aarau") and not table._sum.any()
    table = AttemptDesk(FIVE.desk, proposal)
    table.add_upload(upload, vector)
    table.add_upload(upload, vector)  # delivered twice
    with pytest.raises(ProtocolViolation, match="two vectors"):
        table.add_upload(forged.signed_by(FIVE.identities["bergen"]), np.zeros_like(vector))
    assert (table._sum == vector).all()


def test_the_coordinator_names_the_site_whose_share_is_wrong() -> None:
    players, proposal, survivors = masked(FIVE)
    signed = consents(players, proposal, survivors)
    table = AttemptDesk(FIVE.desk, proposal)
    for site in NAMES:
        table.add_upload(*players[site].mask(proposal, MODEL, FIVE.values[site]))
    opening = players["bergen"].open(proposal, signed)[1]
    first = opening.shares[0]
    for shares, seeds, why in [
        (((first[0], first[1], bytes(32)), *opening.shares[1:]), (), "not the one that was dealt"),
        (((first[0], bytes(16), first[2]), *opening.shares[1:]), (), "not the one that was dealt"),
        (opening.shares[:-1], (), "one share for each survivor"),
        (opening.shares, (("evora", bytes(32)),), "one share for each survivor"),
    ]:
        with pytest.raises(ProtocolViolation, match=why) as error:
            table.add_opening(replace(opening, shares=shares, seeds=seeds).signed_by(FIVE.identities["bergen"]))
        assert error.value.site == "bergen"
    with pytest.raises(ProtocolViolation, match="signature"):
        table.add_opening(replace(opening, signature=bytes(64)))
    table.add_opening(opening)


def test_an_upload_that_comes_after_the_list_is_refused() -> None:
    players, proposal = FIVE.players(), FIVE.proposal()
    table = AttemptDesk(FIVE.desk, proposal)
    for site in NAMES[:4]:
        table.add_upload(*players[site].mask(proposal, MODEL, FIVE.values[site]))
    table.survivors()
    with pytest.raises(ProtocolViolation, match="after the list"):
        table.add_upload(*players["evora"].mask(proposal, MODEL, FIVE.values["evora"]))


def test_below_the_threshold_nothing_is_listed_signed_or_opened() -> None:
    players, proposal = FIVE.players(), FIVE.proposal()
    table = AttemptDesk(FIVE.desk, proposal)
    for site in NAMES[:3]:
        table.add_upload(*players[site].mask(proposal, MODEL, FIVE.values[site]))
    for act in (table.survivors, table.consents, table.total):
        with pytest.raises(Unavailable, match=r"nothing was opened|at least 4"):
            act()


# What protects: the controls


def test_without_the_own_mask_a_late_upload_could_be_opened_by_the_seeds_alone() -> None:
    """Why each site has a mask of its own: without it the seeds of a feigned loss give the input away."""
    proposal = FIVE.proposal()
    others = [site for site in NAMES if site != "aarau"]
    signs = pairwise(1, [FIVE.session.numbers[site] for site in others])
    seeds = [
        (pair_mask_key(FIVE.ready["aarau"].pairs[site], proposal.hash), -s)
        for site, s in zip(others, signs, strict=True)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client, "add_masks", lambda vector, masks: add_masks(vector, masks[1:]))
        bare = SitePlayer(FIVE.ready["aarau"]).mask(proposal, MODEL, FIVE.values["aarau"])[1]
    add_masks(bare, seeds)
    assert (Ring(32).decode(bare) == FIVE.values["aarau"]).all()
    real = SitePlayer(FIVE.ready["aarau"]).mask(proposal, MODEL, FIVE.values["aarau"])[1].copy()
    add_masks(real, seeds)
    assert not (Ring(32).decode(real) == FIVE.values["aarau"]).any()


def test_pairs_share_one_secret_that_nobody_else_has() -> None:
    secrets = {frozenset((one, other)): FIVE.ready[one].pairs[other] for one, other in combinations(NAMES, 2)}
    assert all(
        FIVE.ready[other].pairs[one] == secrets[frozenset((one, other))] for one, other in combinations(NAMES, 2)
    )
    assert len(set(secrets.values())) == 10
    assert "ready" not in repr(FIVE.ready["aarau"]).lower() or "pairs" not in repr(FIVE.ready["aarau"])


def test_a_transcript_holds_every_message_in_order() -> None:
    noted = Transcript()
    identities = list(FIVE.identities.values())
    set_up(FIVE.session, OPERATOR, identities, os.urandom, noted)
    kinds = [type(message).__name__ for message in noted.messages]
    assert kinds == ["Keys"] * 5 + ["Deal", "tuple"] * 5 + ["Agreement"] * 5
    assert all(isinstance(message, Agreement) for message in noted.messages[-5:])
