"""A hospital that lies: the fault names it, nothing of it enters a sum, and the others go on where the protocol allows.

What a site may always do is mask a vector of nonsense: under masks nobody can see that. See docs/attacks.md.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from wardround.privacy.secagg.quantize import Quantizer
from wardround.privacy.secagg.ring import Ring, content_hash
from wardround.privacy.secagg.server import AttemptDesk, SetupDesk
from wardround.protocol.errors import ProtocolViolation, UsageError
from wardround.protocol.identity import Identity
from wardround.protocol.messages import Masked, Refusal
from wardround.protocol.secagg import Consent
from wardround.simulations.statement import privacy_statement

Make = Callable[..., Any]
LIAR, NAMES = "bergen", ("aarau", "bergen", "cork", "delft", "evora")


def answer_of(here: Any, desk: SetupDesk, name: str = LIAR) -> Masked:
    found = here.sites[name].said("answer", here.request(), here.propose(desk), here.plan.governance.proposed_on)
    assert isinstance(found, Masked)
    return found


def goes_on(here: Any, table: AttemptDesk) -> None:
    """The four others are enough, and their sum comes out."""
    for name in NAMES:
        if name != LIAR:
            found = answer_of(here, table._desk, name)
            table.add_upload(found.upload, found.vector)
    total = here.total(table)
    assert table.survivors().sites == tuple(name for name in NAMES if name != LIAR)
    assert np.abs(total).max() <= 4 * Ring(32).limit(5)


Tampered = Callable[[Any, Masked], tuple[Any, np.ndarray]]
UPLOADS: dict[str, tuple[Tampered, str]] = {
    "another vector than it signed": (lambda me, a: (a.upload, a.vector + np.uint32(1)), "not the one that it signed"),
    "a vector that is too short": (lambda me, a: (a.upload, a.vector[:-1]), "length and type"),
    "a vector that is too long": (lambda me, a: (a.upload, np.append(a.vector, np.uint32(0))), "length and type"),
    "another type": (lambda me, a: (a.upload, a.vector.astype("<u8")), "length and type"),
    "reals": (lambda me, a: (a.upload, a.vector.astype("<f4")), "length and type"),
    "a signature of another key": (
        lambda me, a: (a.upload.signed_by(Identity.generate(LIAR)), a.vector),
        "signature does not belong",
    ),
    "another attempt": (
        lambda me, a: (replace(a.upload, proposal="00" * 32).signed_by(me), a.vector),
        "for another proposal",
    ),
}


@pytest.mark.parametrize("lie", UPLOADS)
def test_an_upload_that_is_wrong_names_its_site_and_adds_nothing(consortium: Make, lie: str) -> None:
    here = consortium()
    desk = here.set_up()
    tamper, why = UPLOADS[lie]
    table = AttemptDesk(desk, here.propose(desk))
    with pytest.raises(ProtocolViolation, match=why) as fault:
        table.add_upload(*tamper(here.sites[LIAR].process.identity, answer_of(here, desk)))
    assert fault.value.site == LIAR
    goes_on(here, table)


def test_two_vectors_in_one_attempt_name_their_site(consortium: Make) -> None:
    here = consortium()
    desk = here.set_up()
    table, answer = AttemptDesk(desk, here.propose(desk)), answer_of(here, desk)
    table.add_upload(answer.upload, answer.vector)
    table.add_upload(answer.upload, answer.vector)  # a transport may deliver twice
    other = answer.vector + np.uint32(1)
    second = replace(answer.upload, content=content_hash(other)).signed_by(here.sites[LIAR].process.identity)
    with pytest.raises(ProtocolViolation, match="two vectors in one attempt") as fault:
        table.add_upload(second, other)
    assert fault.value.site == LIAR
    for name in NAMES:  # the first vector stays, and a sum comes out
        found = answer_of(here, desk, name)
        table.add_upload(found.upload, found.vector)
    assert np.abs(here.total(table)).max() <= 5 * Ring(32).limit(5)


def test_an_upload_that_comes_late_is_not_in_the_sum(consortium: Make) -> None:
    here = consortium()
    desk = here.set_up()
    table, answer = AttemptDesk(desk, here.propose(desk)), answer_of(here, desk)
    goes_on(here, table)
    with pytest.raises(ProtocolViolation, match="after the list of survivors") as fault:
        table.add_upload(answer.upload, answer.vector)
    assert fault.value.site == LIAR


def test_a_wrong_consent_names_its_site_and_the_others_are_enough(consortium: Make) -> None:
    here = consortium()
    desk = here.set_up()
    table = here.uploads(desk, proposal := here.propose(desk))
    me, survivors = here.sites[LIAR].process.identity, table.survivors()
    for lie, why in [
        (Consent(LIAR, "00" * 32).signed_by(me), "another list"),
        (Consent(LIAR, survivors.hash).signed_by(Identity.generate(LIAR)), "signature does not belong"),
    ]:
        with pytest.raises(ProtocolViolation, match=why) as fault:
            table.add_consent(lie)
        assert fault.value.site == LIAR
    others = [name for name in NAMES if name != LIAR]
    for consent in here.consents(proposal, survivors, others):
        table.add_consent(consent)
    for name in others:
        table.add_opening(here.sites[name].said("open", proposal, table.consents()))
    assert table.total().shape == (here.length,)


@pytest.mark.parametrize(
    "lie", ["a share that was not dealt", "a share that is missing", "a seed that nobody asked for"]
)
def test_a_wrong_opening_names_its_site_and_the_others_are_enough(consortium: Make, lie: str) -> None:
    here = consortium()
    desk = here.set_up()
    table = here.uploads(desk, proposal := here.propose(desk))
    for consent in here.consents(proposal, table.survivors()):
        table.add_consent(consent)
    made = {name: here.sites[name].said("open", proposal, table.consents()) for name in NAMES}
    (site, salt, share), *rest = made[LIAR].shares
    changes: dict[str, dict[str, Any]] = {
        "a share that was not dealt": {"shares": ((site, salt, bytes([share[0] ^ 1]) + share[1:]), *rest)},
        "a share that is missing": {"shares": tuple(rest)},
        "a seed that nobody asked for": {"seeds": (("cork", bytes(32)),)},
    }
    bad = replace(made[LIAR], **changes[lie]).signed_by(here.sites[LIAR].process.identity)
    with pytest.raises(ProtocolViolation, match=r"not the one that was dealt|one share for each survivor") as fault:
        table.add_opening(bad)
    assert fault.value.site == LIAR
    for name in NAMES:
        if name != LIAR:
            table.add_opening(made[name])
    assert table.total().shape == (here.length,)


def tampered(here: Any, to: str, **changes: Any) -> tuple[list[Any], dict[str, list[Any]]]:
    """Deals, and parcels by recipient; the liar's to ``to`` has changes, in a deal that it has signed anew."""
    deals, parcels = here.dealt()
    liar = NAMES.index(LIAR)
    parcels[to][liar] = replace(parcels[to][liar], **changes)
    named = tuple((name, parcels[name][liar].hash) for name in NAMES)
    deals[liar] = replace(deals[liar], parcels=named).signed_by(here.sites[LIAR].process.identity)
    return deals, parcels


@pytest.mark.parametrize("changes", [{"length": 7}, {"bits": 64}, {"plan": "00" * 32}], ids=["length", "ring", "plan"])
def test_a_site_with_another_scale_of_the_integers_is_in_another_session(
    consortium: Make, changes: dict[str, Any]
) -> None:
    """What an integer means follows from the plan, and the plan, ring and length are in the session's name."""
    here = consortium()
    keys, identity = here.keyed(), here.sites[LIAR].process.identity
    other = replace(keys[1], session=here.terms(**changes).digest).signed_by(identity)
    with pytest.raises(ProtocolViolation, match="for another session") as fault:
        SetupDesk(here.terms(), here.operator).add_keys(other)
    assert fault.value.site == LIAR
    # Nor does a coordinator that lets it in get past the others.
    here.attack("cork", "its keys are for another session", 0, "deal", [keys[0], other, *keys[2:]])


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"ciphertext": bytes(7)}, "its ML-KEM ciphertext is malformed"),
        ({"envelope": bytes(1200)}, "its envelope of shares cannot be opened"),
        ({"commitments": bytes(32 * 6)}, "not the one that it committed to"),
        ({"commitments": bytes(32)}, "one share for each attempt"),
    ],
    ids=["malformed ciphertext", "envelope of nothing", "false commitments", "too few commitments"],
)
def test_a_dealer_whose_parcel_is_wrong_is_named_before_anything_is_masked(
    consortium: Make, changes: dict[str, Any], why: str
) -> None:
    here = consortium()
    deals, parcels = tampered(here, "cork", **changes)
    before = len(here.sites["cork"].left)
    with pytest.raises(ProtocolViolation, match=why) as fault:
        here.sites["cork"].agree(deals, parcels["cork"])
    assert fault.value.site == LIAR and len(here.sites["cork"].left) == before
    here.refused("cork", why, 0)
    # People take the liar out, and the others have a session and a sum.
    desk = here.set_up("without the liar", without=LIAR)
    others = tuple(name for name in NAMES if name != LIAR)
    assert here.total(here.uploads(desk, here.propose(desk, participants=others))).shape == (here.length,)


def test_a_false_ciphertext_is_found_by_what_the_pair_confirms(consortium: Make) -> None:
    """It decapsulates to another secret without an error; masks of the pair would not cancel, and no sum be right."""
    here = consortium()
    deals, parcels = tampered(here, "cork", ciphertext=bytes(1088))
    here.sites[LIAR].process._setup._own_deal = deals[NAMES.index(LIAR)]  # the liar agrees with its lie
    agreements = [here.sites[name].said("agree", deals, parcels[name]) for name in NAMES]
    here.sites["aarau"].begin(agreements)  # whom the lie does not concern
    with pytest.raises(ProtocolViolation, match="does not have the secret that it should share") as fault:
        here.sites["cork"].begin(agreements)
    assert fault.value.site == LIAR
    here.refused("cork", "does not have the secret", 0)


@pytest.mark.parametrize(
    "value", [np.nan, np.inf, -np.inf, 1e9], ids=["NaN", "infinity", "minus infinity", "too large"]
)
def test_a_value_that_could_wrap_the_ring_never_leaves_its_own_site(consortium: Make, value: float) -> None:
    """A broken training, or a site that tries to overflow the sum with Wardround's own code."""
    here = consortium()
    desk, site = here.set_up(), here.sites[LIAR]
    with pytest.MonkeyPatch.context() as patch:
        quantize = Quantizer.quantize
        patch.setattr(
            Quantizer, "quantize", lambda self, values, key: quantize(self, np.append(values[:-1], value), key)
        )
        answer = site.said("answer", here.request(), here.propose(desk), here.plan.governance.proposed_on)
    assert isinstance(answer, Refusal) and answer.code == "unavailable"
    here.nothing_left(here.propose(desk), LIAR)
    quantizer = site.process._quantizer
    with pytest.raises(UsageError, match=r"not finite|exceeds the range"):
        quantizer.quantize(np.full(quantizer.length, value), bytes(32))


def test_one_of_three_learns_the_sum_of_two_and_the_screen_says_so(consortium: Make) -> None:
    """c = 0: with three sites nobody may side with the coordinator. What it learns is inside the printed epsilon."""
    here = consortium(sites=3)
    kept: dict[str, Any] = {}
    quantize = Quantizer.quantize
    desk = here.set_up()
    with pytest.MonkeyPatch.context() as patch:
        found: list[Any] = []
        patch.setattr(Quantizer, "quantize", lambda *given: found.append(quantize(*given)) or found[-1])
        table = here.uploads(desk, here.propose(desk))
        kept = dict(zip(("aarau", "bergen", "cork"), found, strict=True))
    rest = here.total(table) - kept["bergen"]
    assert np.array_equal(rest, kept["aarau"] + kept["cork"])
    said = privacy_statement(here.plan, 3.0)
    assert "differentially private" in said and "every other hospital" in said and "whoever colludes" in said


def test_honest_redelivery_never_ends_a_session(consortium: Make) -> None:
    """Every message of an attempt twice, as a transport may: the same bytes, and the sum comes out."""
    here = consortium()
    desk = here.set_up()
    proposal = here.propose(desk)
    table = AttemptDesk(desk, proposal)
    for name in NAMES:
        for _ in range(2):
            answer = answer_of(here, desk, name)
            table.add_upload(answer.upload, answer.vector)
    for _ in range(2):
        for consent in here.consents(proposal, table.survivors()):
            table.add_consent(consent)
    for _ in range(2):
        for name in NAMES:
            table.add_opening(here.sites[name].said("open", proposal, table.consents()))
    assert table.total().shape == (here.length,)
    for name in NAMES:
        left = here.sites[name].left
        assert len(left) == 9 and len(set(left)) == 6 and here.sites[name].refusals() == []
        assert here.sites[name].ledger.charged(here.plan.digest) == 1


def test_a_key_of_low_order_names_its_site(consortium: Make) -> None:
    """With it the shared secret would be zero, whoever computes it (RFC 7748, section 6.1)."""
    here = consortium()
    today, me = here.plan.governance.proposed_on, here.sites[LIAR].process.identity
    keys = [here.sites[name].said("keys", here.terms(), today) for name in NAMES]
    weak = [replace(each, x25519=bytes(32)).signed_by(me) if each.site == LIAR else each for each in keys]
    before = len(here.sites["cork"].left)
    with pytest.raises(ProtocolViolation, match="is of low order") as fault:
        here.sites["cork"].deal(weak)
    assert fault.value.site == LIAR and len(here.sites["cork"].left) == before
    here.refused("cork", "is of low order", 0)
