"""What every implementation must refuse: an honest input of a recorded session, changed in one way, and by whom.

A change is a patch of RFC 6902 (JSON Patch) on that input: add, replace or remove. ``blames`` names the party at
fault, as the receiver must see it: the coordinator, or a site; none where the receiver's own program is wrong. Where a
lie needs a signature, it is in the change.
"""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import TypeAdapter

from wardround.privacy.secagg.ring import Ring
from wardround.privacy.secagg.session import HASH_SIZE
from wardround.protocol.identity import Identity
from wardround.protocol.secagg import Agreement, Consent, Deal, Keys, Opening, Parcel, Proposal, Survivors, Upload

COORDINATOR = "coordinator"
STRANGER = "mallory"


def honest_input(session: Mapping[str, Any], exchange: str, receiver: str, sender: str = "", number: int = 1) -> Any:
    """What ``receiver`` was given in an exchange of a recorded session, by site ``sender`` if it is the coordinator."""
    attempt = next((each for each in session["attempts"] if each["round"] == number), None)
    assert attempt is not None
    proposal = {name: value for name, value in attempt["proposal"].items() if name != "hash"}
    survivors = {name: value for name, value in attempt["survivors"].items() if name != "hash"}
    found = {
        "S2": lambda: {"keys": session["keys"]},
        "S3": lambda: {
            "deals": session["deals"],
            "parcels": [parcel for parcel in session["parcels"] if parcel["recipient"] == receiver],
        },
        "end of set-up": lambda: {"agreements": session["agreements"]},
        "R1": lambda: {
            "proposal": proposal,
            "model_hash": proposal["model_hash"],
            "values": attempt["values"][receiver],
        },
        "R2": lambda: {"proposal": proposal, "survivors": survivors},
        "R3": lambda: {"proposal": proposal, "consents": attempt["consents"]},
        "R1 answer": lambda: {
            "upload": attempt["uploads"][sender]["message"],
            "vector": attempt["uploads"][sender]["vector"],
        },
        "R2 answer": lambda: {"consent": next(each for each in attempt["consents"] if each["site"] == sender)},
        "R3 answer": lambda: {"opening": next(each for each in attempt["openings"] if each["site"] == sender)},
    }[exchange]()
    return copy.deepcopy(found)


def flipped(text: str) -> str:
    """Hex digits with the lowest bit of the first byte changed."""
    return f"{int(text[:2], 16) ^ 1:02x}{text[2:]}"


def refused(casts: Mapping[str, Any], sessions: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every fault, in the order of the exchanges."""
    return [
        *_of_set_up(casts["three"], sessions),
        *_of_proposals(casts, sessions),
        *_of_lists(casts, sessions),
        *_of_openings(casts, sessions),
        *_of_answers(casts, sessions),
    ]


def _case(what: str, exchange: str, receiver: str, blames: str, *change: Mapping[str, Any], sender: str = "") -> Any:
    about = {"session": "three", "round": 1, "exchange": exchange, "receiver": receiver, "sender": sender}
    return about | {"what": what, "blames": blames, "change": [dict(operation) for operation in change]}


def _put(path: str, value: Any) -> dict[str, Any]:
    return {"op": "replace", "path": path, "value": value}


def _add(path: str, value: Any) -> dict[str, Any]:
    return {"op": "add", "path": path, "value": value}


def _remove(path: str) -> dict[str, Any]:
    return {"op": "remove", "path": path}


def _signed(kind: type, data: Mapping[str, Any], identity: Identity, **changes: Any) -> Any:
    """A message with changes that its site has signed: what a dishonest site can send."""
    adapter = TypeAdapter(kind)
    return adapter.dump_python(replace(adapter.validate_python(data), **changes).signed_by(identity), mode="json")


def _of_set_up(cast: Any, sessions: Mapping[str, Any]) -> list[dict[str, Any]]:
    session = sessions["three"]
    keys, deals, agreements = session["keys"], session["deals"], session["agreements"]
    first = deals[0]
    to_bergen = {parcel["dealer"]: parcel for parcel in session["parcels"] if parcel["recipient"] == "bergen"}
    of_aarau = {parcel["recipient"]: parcel for parcel in session["parcels"] if parcel["dealer"] == "aarau"}
    lying = dict(to_bergen["aarau"], commitments=flipped(to_bergen["aarau"]["commitments"]))
    lie = TypeAdapter(Parcel).validate_python(lying).hash
    parcels = tuple((to, lie if to == "bergen" else known) for to, known in first["parcels"])
    other = _signed(Deal, first, cast.identities["aarau"], seen="00" * 32)
    strange = _signed(Agreement, agreements[0], cast.identities["aarau"], seen="00" * 32)
    false = tuple((peer, bytes(HASH_SIZE)) for peer, _ in agreements[0]["confirmations"])
    unsure = _signed(Agreement, agreements[0], cast.identities["aarau"], confirmations=false)
    own = _signed(Keys, keys[1], cast.identities["bergen"], nonce=bytes(32))
    wide = sessions["wide"]["keys"][0]
    return [
        _case(
            "a signature that is not the site's",
            "S2",
            "bergen",
            "aarau",
            _put("/keys/0/signature", flipped(keys[0]["signature"])),
        ),
        _case(
            "the coordinator's own X25519 key in a site's message",
            "S2",
            "bergen",
            "aarau",
            _put("/keys/0/x25519", keys[2]["x25519"]),
        ),
        _case(
            "an ML-KEM key that was changed on the way",
            "S2",
            "bergen",
            "aarau",
            _put("/keys/0/mlkem", flipped(keys[0]["mlkem"])),
        ),
        _case("keys of another session", "S2", "bergen", "aarau", _put("/keys/0", wide)),
        _case("this site's keys from another set-up", "S2", "bergen", COORDINATOR, _put("/keys/1", own)),
        _case("fewer sites than the threshold", "S2", "bergen", COORDINATOR, _remove("/keys/2")),
        _case("one site twice", "S2", "bergen", COORDINATOR, _put("/keys/2", keys[0])),
        _case("a site that is no member", "S2", "bergen", STRANGER, _add("/keys/3", dict(keys[2], site=STRANGER))),
        _case("a dealer who saw other keys", "S3", "bergen", COORDINATOR, _put("/deals/0", other)),
        _case(
            "a deal that its site did not sign",
            "S3",
            "bergen",
            "aarau",
            _put("/deals/0/signature", flipped(first["signature"])),
        ),
        _case("fewer deals than the threshold", "S3", "bergen", COORDINATOR, _remove("/deals/2")),
        _case("this site's deal, changed", "S3", "bergen", "bergen", _put("/deals/1/parcels/0/1", "00" * 32)),
        _case("a parcel for somebody else", "S3", "bergen", COORDINATOR, _put("/parcels/0", of_aarau["cork"])),
        _case(
            "an envelope that was changed on the way",
            "S3",
            "bergen",
            COORDINATOR,
            _put("/parcels/0/envelope", flipped(to_bergen["aarau"]["envelope"])),
        ),
        _case(
            "a ciphertext that was changed on the way",
            "S3",
            "cork",
            COORDINATOR,
            _put("/parcels/0/ciphertext", flipped(of_aarau["cork"]["ciphertext"])),
        ),
        _case("no parcel of a dealer", "S3", "bergen", COORDINATOR, _remove("/parcels/0")),
        _case(
            "shares that their dealer did not commit to",
            "S3",
            "bergen",
            "aarau",
            _put("/parcels/0", lying),
            _put("/deals/0", _signed(Deal, first, cast.identities["aarau"], parcels=parcels)),
        ),
        _case(
            "another set-up was shown to a site", "end of set-up", "bergen", COORDINATOR, _put("/agreements/0", strange)
        ),
        _case(
            "a site without the secret of its pair", "end of set-up", "bergen", "aarau", _put("/agreements/0", unsure)
        ),
        _case(
            "an agreement that its site did not sign",
            "end of set-up",
            "bergen",
            "aarau",
            _put("/agreements/0/signature", flipped(agreements[0]["signature"])),
        ),
        _case("fewer agreements than the threshold", "end of set-up", "bergen", COORDINATOR, _remove("/agreements/2")),
    ]


def _of_proposals(casts: Mapping[str, Any], sessions: Mapping[str, Any]) -> list[dict[str, Any]]:
    honest = honest_input(sessions["three"], "R1", "bergen")["proposal"]

    def asked(**changes: Any) -> dict[str, Any]:
        """A proposal that the coordinator has signed."""
        return _put("/proposal", _signed(Proposal, honest, casts["three"].coordinator, **changes))

    sites = [member for member, _ in sessions["three"]["session"]["members"]]
    limit = Ring(32).limit(3)
    cases = [
        ("one participant", asked(participants=("bergen",)), COORDINATOR),
        ("two participants, below the threshold", asked(participants=("aarau", "bergen")), COORDINATOR),
        ("no participant", asked(participants=()), COORDINATOR),
        ("participants without the receiver", asked(participants=("aarau", "cork")), COORDINATOR),
        ("a participant twice", asked(participants=(*sites, "cork")), COORDINATOR),
        ("participants that are not sorted", asked(participants=("bergen", "aarau", "cork")), COORDINATOR),
        ("a participant that is no member", asked(participants=(*sites, STRANGER)), COORDINATOR),
        ("another model than the receiver's own", asked(model_hash="00" * 32), COORDINATOR),
        ("another session", asked(session=sessions["wide"]["digest"]), COORDINATOR),
        ("a round that the session has no masks for", asked(round_number=3), COORDINATOR),
        ("an attempt that the session has no masks for", asked(attempt=2), COORDINATOR),
        (
            "a proposal that the coordinator did not sign",
            _put("/proposal/signature", flipped(honest["signature"])),
            COORDINATOR,
        ),
        ("a value above the ring's limit", _put("/values/2", limit + 1), ""),
        ("a value below the ring's limit", _put("/values/2", -limit - 1), ""),
        ("a vector that is too short", _remove("/values/2"), ""),
    ]
    return [_case(what, "R1", "bergen", blames, operation) for what, operation, blames in cases]


def _of_lists(casts: Mapping[str, Any], sessions: Mapping[str, Any]) -> list[dict[str, Any]]:
    three = sessions["three"]["attempts"]
    uploads = {site: each["message"] for site, each in three[0]["uploads"].items()}
    aarau, bergen, cork = (uploads[site] for site in ("aarau", "bergen", "cork"))
    later = three[1]["uploads"]["aarau"]["message"]
    elsewhere = sessions["wide"]["attempts"][0]["uploads"]["aarau"]["message"]
    own = _signed(Upload, bergen, casts["three"].identities["bergen"], content="00" * 32)
    honest = honest_input(sessions["three"], "R2", "bergen")["survivors"]

    def asked(*listed: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
        """A list of survivors that the coordinator has signed."""
        found = tuple(TypeAdapter(Upload).validate_python(each) for each in listed)
        return _put("/survivors", _signed(Survivors, honest, casts["three"].coordinator, uploads=found, **changes))

    cases = [
        ("fewer survivors than the threshold", asked(aarau, bergen)),
        (
            "an upload that its site did not sign",
            asked({**aarau, "signature": flipped(aarau["signature"])}, bergen, cork),
        ),
        ("another content than the site signed", asked({**aarau, "content": "00" * 32}, bergen, cork)),
        ("an upload to another round", asked(later, bergen, cork)),
        ("an upload to another session", asked(elsewhere, bergen, cork)),
        ("the receiver's upload with another content", asked(aarau, own, cork)),
        ("a survivor twice", asked(aarau, bergen, bergen)),
        ("survivors that are not sorted", asked(bergen, aarau, cork)),
        ("a survivor that did not take part", asked(aarau, bergen, {**cork, "site": STRANGER})),
        ("a list for another proposal", asked(aarau, bergen, cork, proposal=three[1]["proposal"]["hash"])),
        ("a list that the coordinator did not sign", _put("/survivors/signature", flipped(honest["signature"]))),
    ]
    return [_case(what, "R2", "bergen", COORDINATOR, operation) for what, operation in cases]


def _of_openings(casts: Mapping[str, Any], sessions: Mapping[str, Any]) -> list[dict[str, Any]]:
    consents = sessions["three"]["attempts"][0]["consents"]
    other = _signed(Consent, consents[0], casts["three"].identities["aarau"], survivors="00" * 32)
    cases = [
        ("signatures of fewer than the threshold", _remove("/consents/0")),
        ("a signature under another list", _put("/consents/0", other)),
        ("a signature that is not the site's", _put("/consents/0/signature", flipped(consents[0]["signature"]))),
        ("one signature twice", _put("/consents/0", consents[1])),
        ("a signature of a stranger", _put("/consents/0/site", STRANGER)),
        ("consents from another round", _put("/consents/0", sessions["three"]["attempts"][1]["consents"][0])),
    ]
    return [_case(what, "R3", "bergen", COORDINATOR, operation) for what, operation in cases]


def _of_answers(casts: Mapping[str, Any], sessions: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a site may send the coordinator: the site is named, and nothing is added up."""
    first, identity = sessions["three"]["attempts"][0], casts["three"].identities["aarau"]
    upload, opening = first["uploads"]["aarau"], first["openings"][0]
    late = sessions["three"]["attempts"][1]
    survivors = TypeAdapter(Survivors).validate_python({k: v for k, v in late["survivors"].items() if k != "hash"})
    share = opening["shares"][1]
    wrong = ((opening["shares"][0]), (share[0], share[1], flipped(share[2])), opening["shares"][2])
    decoded = tuple((site, bytes.fromhex(salt), bytes.fromhex(value)) for site, salt, value in wrong)
    bad = _signed(Opening, opening, identity, shares=decoded)
    few = _signed(Opening, opening, identity, shares=decoded[:1] + decoded[2:])
    both = _signed(Opening, opening, identity, seeds=(("bergen", bytes(32)),))
    cases = [
        ("R1 answer", "a vector that is not the one that was signed", _put("/vector", flipped(upload["vector"]))),
        ("R1 answer", "a vector that is too short", _put("/vector", upload["vector"][:-8])),
        (
            "R1 answer",
            "an upload that the site did not sign",
            _put("/upload/signature", flipped(upload["message"]["signature"])),
        ),
        ("R1 answer", "an upload to another round", _put("/upload", late["uploads"]["aarau"]["message"])),
        (
            "R2 answer",
            "a signature under another list",
            _put("/consent", _signed(Consent, first["consents"][0], identity, survivors=survivors.hash)),
        ),
        (
            "R2 answer",
            "a consent that the site did not sign",
            _put("/consent/signature", flipped(first["consents"][0]["signature"])),
        ),
        ("R3 answer", "a share that was not dealt", _put("/opening", bad)),
        ("R3 answer", "a share that is missing", _put("/opening", few)),
        ("R3 answer", "a share and a seed of one site", _put("/opening", both)),
        (
            "R3 answer",
            "an opening that the site did not sign",
            _put("/opening/signature", flipped(opening["signature"])),
        ),
    ]
    return [_case(what, at, COORDINATOR, "aarau", operation, sender="aarau") for at, what, operation in cases]
