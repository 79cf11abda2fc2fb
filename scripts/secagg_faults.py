"""What every implementation must refuse: an input of a recorded session, bent in one way or given at the wrong time.

A change is a patch of RFC 6902 (JSON Patch) on the honest input of an exchange: all but ``test``. ``after`` names
the exchange that the receiver has taken part in last, honestly. ``blames`` names the party at fault, as the receiver
must see it: the coordinator, or a site; none where the receiver's own program is wrong. ``reason`` is one of REASONS.
Where a lie needs a signature, it is in the change.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import TypeAdapter
from secagg_primitives import random_stream, read

from wardround.privacy.secagg.ring import Ring
from wardround.privacy.secagg.session import HASH_SIZE
from wardround.protocol.identity import Identity
from wardround.protocol.secagg import Agreement, Consent, Deal, Keys, Parcel, Proposal, Survivors, Upload

COORDINATOR: Final = "coordinator"
STRANGER: Final = "mallory"
ZEROS: Final = "00" * 32

REASONS: Final = {
    "signature": "not signed by the key that the terms name for its sender",
    "session": "made for another session",
    "members": "a list that is not of members, each once, in the order of their names, with the receiver",
    "quorum": "fewer than t",
    "own": "the receiver's own message, changed",
    "seen": "its sender was shown another set-up",
    "parcel": "parcels that are not the ones that their dealer signed",
    "form": "a part that has another size, does not open, or is a key of low order",
    "commitment": "a share that is not the one that its dealer committed to",
    "pair": "a site that does not show that it has the secret of the pair",
    "slot": "no masks for this session, round and attempt",
    "model": "another model than the one that the receiver was asked to start from",
    "bound": "made for another proposal or another list",
    "content": "a vector that is not the one that was signed",
    "range": "a value beyond the ring's limit",
    "cover": "not one share for each survivor and one seed for each that was lost",
    "second": "a second, other message where one was given",
    "turn": "not the exchange that comes next",
}
"""What is wrong, in the words of docs/secure-aggregation.md."""

ORDER: Final = ("S1", "S2", "S3", "end of set-up", "R1", "R2", "R3")
"""What a site takes part in."""

AT_ONCE: Final = "R2 and R3"
"""What stands for R2 and R3 where nobody was lost."""

ANSWERS: Final = ("S1 answer", "S2 answer", "S3 answer", "R1 answer", "R2 answer", "R3 answer")
"""What the coordinator gets."""


def way(after: str) -> tuple[str, ...]:
    """The exchanges of a receiver up to this one."""
    if after == AT_ONCE:
        return (*ORDER[:-2], AT_ONCE)
    order = ANSWERS if after in ANSWERS else ORDER
    return order[: order.index(after) + 1] if after else ()


def before(exchange: str) -> str:
    """The exchange that comes before this one for the same receiver; none before the first."""
    return ("", *way(exchange))[-2]


def honest_input(session: Mapping[str, Any], exchange: str, receiver: str, sender: str = "", number: int = 1) -> Any:
    """What ``receiver`` was given in an exchange of a recorded session, by site ``sender`` if it is the coordinator.

    None where the sender gave nothing.
    """
    attempt = next(each for each in session["attempts"] if each["round"] == number)
    proposal = {name: value for name, value in attempt["proposal"].items() if name != "hash"}
    survivors = {name: value for name, value in attempt["survivors"].items() if name != "hash"}

    def of(where: str, name: str, source: Any = session) -> Any:
        found = next((each for each in source[where] if each["site"] == sender), None)
        return None if found is None else {name: found}

    def parcels(party: str, site: str) -> list[Any]:
        return [parcel for parcel in session["parcels"] if parcel[party] == site]

    def vector() -> Any:
        upload = attempt["uploads"].get(sender)
        return None if upload is None else {"upload": upload["message"], "vector": upload["vector"]}

    found: dict[str, Callable[[], Any]] = {
        "S1": lambda: {},
        "S2": lambda: {"keys": session["keys"]},
        "S3": lambda: {"deals": session["deals"], "parcels": parcels("recipient", receiver)},
        "end of set-up": lambda: {"agreements": session["agreements"]},
        "R1": lambda: {
            "proposal": proposal,
            "model_hash": proposal["model_hash"],
            "values": attempt["values"][receiver],
        },
        "R2": lambda: {"proposal": proposal, "survivors": survivors},
        "R3": lambda: {"proposal": proposal, "consents": attempt["consents"]},
        AT_ONCE: lambda: {"proposal": proposal, "survivors": survivors},
        "S1 answer": lambda: of("keys", "keys"),
        "S2 answer": lambda: of("deals", "deal") | {"parcels": parcels("dealer", sender)},
        "S3 answer": lambda: of("agreements", "agreement"),
        "R1 answer": vector,
        "R2 answer": lambda: of("consents", "consent", attempt),
        "R3 answer": lambda: of("openings", "opening", attempt),
    }
    return copy.deepcopy(found[exchange]())


def flipped(text: str) -> str:
    """Hex digits with the lowest bit of the first byte changed."""
    return f"{int(text[:2], 16) ^ 1:02x}{text[2:]}"


def refused(casts: Mapping[str, Any], sessions: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What sites refuse, in the order of the exchanges."""
    return [
        *_of_keys(casts["three"], sessions),
        *_of_deals(casts["three"], sessions),
        *_of_agreements(casts["three"], sessions),
        *_of_proposals(casts, sessions),
        *_of_lists(casts, sessions),
        *_of_openings(casts, sessions),
        *_of_whole_lists(casts, sessions),
    ]


class At:
    """Makes the cases of one exchange."""

    def __init__(self, exchange: str, receiver: str, session: str = "three", number: int = 1, sender: str = "") -> None:
        self._about = {"session": session, "round": number, "exchange": exchange, "receiver": receiver}
        self._about |= {"sender": sender, "after": before(exchange)}

    def __call__(self, reason: str, blames: str, what: str, *change: Any, **about: Any) -> dict[str, Any]:
        assert reason in REASONS
        return self._about | about | {"what": what, "reason": reason, "blames": blames, "change": list(change)}


def put(path: str, value: Any) -> dict[str, Any]:
    return {"op": "replace", "path": path, "value": value}


def add(path: str, value: Any) -> dict[str, Any]:
    return {"op": "add", "path": path, "value": value}


def remove(path: str) -> dict[str, Any]:
    return {"op": "remove", "path": path}


def _copied(place: str, path: str) -> dict[str, Any]:
    return {"op": "copy", "from": place, "path": path}


def _moved(place: str, path: str) -> dict[str, Any]:
    return {"op": "move", "from": place, "path": path}


def other(path: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[dict[str, Any]]:
    """``new`` where ``old`` stands: the fields in which they differ."""
    return [put(f"{path}/{name}", value) for name, value in new.items() if old[name] != value]


def bent(path: str, text: str) -> dict[str, Any]:
    return put(path, flipped(text))


def signed(kind: type, data: Mapping[str, Any], identity: Identity, **changes: Any) -> Any:
    """A message with changes that its sender has signed: what a dishonest party can send."""
    made = replace(read(kind, data), **changes).signed_by(identity)
    return TypeAdapter(kind).dump_python(made, mode="json")


def _stranger() -> Identity:
    return Identity(STRANGER, Ed25519PrivateKey.from_private_bytes(random_stream(f"identity {STRANGER}")(32)))


def _of_keys(cast: Any, sessions: Mapping[str, Any]) -> list[dict[str, Any]]:
    keys, at = sessions["three"]["keys"], At("S2", "bergen")
    own = signed(Keys, keys[1], cast.identities["bergen"], nonce=bytes(32))
    short, low = (signed(Keys, keys[0], cast.identities["aarau"], x25519=bytes(size)) for size in (31, 32))
    stranger = other("/keys/3", keys[2], signed(Keys, keys[2], _stranger(), site=STRANGER))
    foreign = sessions["wide"]["keys"][0]
    return [
        at("signature", "aarau", "a signature changed", bent("/keys/0/signature", keys[0]["signature"])),
        at("signature", "aarau", "an X25519 key put in on the way", put("/keys/0/x25519", keys[2]["x25519"])),
        at("signature", "aarau", "an ML-KEM key changed on the way", bent("/keys/0/mlkem", keys[0]["mlkem"])),
        at("signature", STRANGER, "keys of a stranger, signed", _copied("/keys/2", "/keys/3"), *stranger),
        at("form", "aarau", "an X25519 key of 31 bytes", *other("/keys/0", keys[0], short)),
        at("form", "aarau", "an X25519 key of low order", *other("/keys/0", keys[0], low)),
        at("session", "aarau", "keys of another session", *other("/keys/0", keys[0], foreign)),
        at("own", COORDINATOR, "this site's keys with another nonce", *other("/keys/1", keys[1], own)),
        at("members", COORDINATOR, "one site twice", _copied("/keys/2", "/keys/3")),
        at("members", COORDINATOR, "keys that are not sorted", _moved("/keys/1", "/keys/0")),
        at("quorum", COORDINATOR, "three of five sites", remove("/keys/4"), remove("/keys/3"), session="five"),
        at("second", COORDINATOR, "a second list of keys", remove("/keys/4"), session="five", after="S2"),
    ]


def _of_deals(cast: Any, sessions: Mapping[str, Any]) -> list[dict[str, Any]]:
    session, at, aarau = sessions["three"], At("S3", "bergen"), cast.identities["aarau"]
    deals = session["deals"]
    dealt = {parcel["recipient"]: parcel for parcel in session["parcels"] if parcel["dealer"] == "aarau"}

    def lie(to: str, **changes: str) -> list[dict[str, Any]]:
        """A parcel of aarau with changes, and its signature under that."""
        parcel = dealt[to] | changes
        named = tuple((site, read(Parcel, parcel).hash if site == to else known) for site, known in deals[0]["parcels"])
        deal = signed(Deal, deals[0], aarau, parcels=named)
        return [*other("/parcels/0", dealt[to], parcel), *other("/deals/0", deals[0], deal)]

    bad, mine = dealt["bergen"], deals[1]
    spoilt = flipped(bad["envelope"])
    misled = signed(Deal, deals[0], aarau, seen=ZEROS)
    own = signed(Deal, mine, cast.identities["bergen"], parcels=tuple(map(tuple, mine["parcels"][:2])))
    fewer = [remove(f"/{name}/{place}") for place in (4, 3) for name in ("deals", "parcels")]
    return [
        at("signature", "aarau", "a signature changed", bent("/deals/0/signature", deals[0]["signature"])),
        at("signature", "bergen", "this site's deal, changed on the way", put("/deals/1/parcels/0/1", ZEROS)),
        at("own", COORDINATOR, "this site's deal, changed and signed anew", *other("/deals/1", mine, own)),
        at("seen", COORDINATOR, "a dealer who saw other keys", *other("/deals/0", deals[0], misled)),
        at("members", COORDINATOR, "deals that are not sorted", _moved("/deals/1", "/deals/0")),
        at("quorum", COORDINATOR, "three of five deals", *fewer, session="five"),
        at("parcel", COORDINATOR, "a parcel for somebody else", put("/parcels/0", dealt["cork"])),
        at("parcel", COORDINATOR, "no parcel of a dealer", remove("/parcels/0")),
        at("parcel", COORDINATOR, "an envelope changed on the way", bent("/parcels/0/envelope", bad["envelope"])),
        at("parcel", COORDINATOR, "a ciphertext changed on the way",
           bent("/parcels/0/ciphertext", dealt["cork"]["ciphertext"]), receiver="cork"),
        at("form", "aarau", "an envelope not to be opened, signed", *lie("bergen", envelope=spoilt)),
        at("form", "aarau", "a commitment too few, signed", *lie("bergen", commitments=bad["commitments"][:64])),
        at("form", "aarau", "a ciphertext of another size, signed", *lie("cork", ciphertext="00"), receiver="cork"),
        at("commitment", "aarau", "a share that its dealer did not commit to",
           *lie("bergen", commitments=flipped(bad["commitments"]))),
        at("turn", COORDINATOR, "the deals before the keys", after="S1"),
    ]  # fmt: skip


def _of_agreements(cast: Any, sessions: Mapping[str, Any]) -> list[dict[str, Any]]:
    agreements, at, aarau = sessions["three"]["agreements"], At("end of set-up", "bergen"), cast.identities["aarau"]
    false = tuple((peer, bytes(HASH_SIZE)) for peer, _ in agreements[0]["confirmations"])
    strange = signed(Agreement, agreements[0], aarau, seen=ZEROS)
    unsure = signed(Agreement, agreements[0], aarau, confirmations=false)
    silent = signed(Agreement, agreements[0], aarau, confirmations=())
    foreign = sessions["wide"]["agreements"][0]
    spoilt = bent("/agreements/0/signature", agreements[0]["signature"])
    fewer = [remove("/agreements/4"), remove("/agreements/3")]
    return [
        at("signature", "aarau", "a signature changed", spoilt),
        at("session", "aarau", "an agreement on another session", *other("/agreements/0", agreements[0], foreign)),
        at("members", COORDINATOR, "one site twice", _copied("/agreements/2", "/agreements/3")),
        at("seen", COORDINATOR, "another set-up was shown to a site", *other("/agreements/0", agreements[0], strange)),
        at("pair", "aarau", "confirmations of another secret", *other("/agreements/0", agreements[0], unsure)),
        at("pair", "aarau", "no confirmations", *other("/agreements/0", agreements[0], silent)),
        at("quorum", COORDINATOR, "three of five agreements", *fewer, session="five"),
        at("own", COORDINATOR, "without this site", remove("/agreements/1"), session="five"),
    ]


def _of_proposals(casts: Mapping[str, Any], sessions: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Five sites, of whom four are enough, so that a list is short of nothing but what it is bent in."""
    at = At("R1", "bergen", "five")
    honest = honest_input(sessions["five"], "R1", "bergen")["proposal"]
    sites, limit = honest["participants"], Ring(32).limit(5)

    def asked(**changes: Any) -> list[dict[str, Any]]:
        """A proposal that the coordinator has signed."""
        return other("/proposal", honest, signed(Proposal, honest, casts["five"].coordinator, **changes))

    def among(*names: str) -> list[dict[str, Any]]:
        return asked(participants=names)

    by_site = signed(Proposal, honest, casts["five"].identities["aarau"])
    return [
        at("signature", COORDINATOR, "a signature changed", bent("/proposal/signature", honest["signature"])),
        at("signature", COORDINATOR, "a proposal that a site signed", *other("/proposal", honest, by_site)),
        at("slot", COORDINATOR, "another session", *asked(session=sessions["three"]["digest"])),
        at("slot", COORDINATOR, "a round without masks", *asked(round_number=3)),
        at("slot", COORDINATOR, "an attempt without masks", *asked(attempt=2)),
        at("members", COORDINATOR, "without the receiver", *among("aarau", "cork", "delft", "evora")),
        at("members", COORDINATOR, "a participant twice", *among("aarau", "bergen", "cork", "cork", "delft")),
        at("members", COORDINATOR, "participants that are not sorted", *among("bergen", "aarau", *sites[2:])),
        at("members", COORDINATOR, "a participant that is no member", *among(*sites, STRANGER)),
        at("quorum", COORDINATOR, "one participant", *among("bergen")),
        at("quorum", COORDINATOR, "t - 1 participants", *among("aarau", "bergen", "cork")),
        at("model", COORDINATOR, "another model", *asked(model_hash=ZEROS)),
        at("range", "", "a value above the ring's limit", put("/values/2", limit + 1)),
        at("range", "", "a value below the ring's limit", put("/values/2", -limit - 1)),
        at("form", "", "a vector that is too short", remove("/values/2")),
        at("form", "", "a vector that is too long", add("/values/2", 0)),
        at("second", COORDINATOR, "a second proposal for the attempt", *among(*sites[:4]), after="R1"),
    ]


def _of_lists(casts: Mapping[str, Any], sessions: Mapping[str, Any]) -> list[dict[str, Any]]:
    at, cast, session = At("R2", "bergen", "five", 2), casts["five"], sessions["five"]
    uploads = {site: each["message"] for site, each in session["attempts"][1]["uploads"].items()}
    aarau, bergen, cork, delft, evora = uploads.values()
    earlier = session["attempts"][0]["uploads"]["aarau"]["message"]
    elsewhere = sessions["three"]["attempts"][1]["uploads"]["aarau"]["message"]
    honest = honest_input(session, "R2", "bergen", number=2)["survivors"]
    own = signed(Upload, bergen, cast.identities["bergen"], content=ZEROS)
    stranger = signed(Upload, evora, _stranger(), site=STRANGER)

    def asked(*listed: Mapping[str, Any], **changes: Any) -> list[dict[str, Any]]:
        """A list of survivors that the coordinator has signed."""
        found = tuple(read(Upload, each) for each in listed)
        return other("/survivors", honest, signed(Survivors, honest, cast.coordinator, uploads=found, **changes))

    def first(upload: Mapping[str, Any]) -> list[dict[str, Any]]:
        return asked(upload, bergen, cork, delft, evora)

    proposal = session["attempts"][0]["proposal"]["hash"]
    return [
        at("signature", COORDINATOR, "a signature changed", bent("/survivors/signature", honest["signature"])),
        at("signature", COORDINATOR, "an unsigned upload", *first(aarau | {"signature": flipped(aarau["signature"])})),
        at("signature", COORDINATOR, "the hash of an upload, changed", *first(aarau | {"content": ZEROS})),
        at("bound", COORDINATOR, "a list for another proposal", *asked(*uploads.values(), proposal=proposal)),
        at("bound", COORDINATOR, "an upload to another round", *first(earlier)),
        at("bound", COORDINATOR, "an upload to another session", *first(elsewhere)),
        at("own", COORDINATOR, "this site's upload, with another hash", *asked(aarau, own, cork, delft, evora)),
        at("own", COORDINATOR, "without this site's upload", *asked(aarau, cork, delft, evora)),
        at("members", COORDINATOR, "a survivor twice", *asked(aarau, bergen, cork, cork, delft)),
        at("members", COORDINATOR, "survivors that are not sorted", *asked(bergen, aarau, cork, delft, evora)),
        at("members", COORDINATOR, "a survivor that did not take part", *asked(aarau, bergen, cork, delft, stranger)),
        at("quorum", COORDINATOR, "t - 1 survivors", *asked(aarau, bergen, cork)),
        at("quorum", COORDINATOR, "this site alone", *asked(bergen)),
        at("turn", COORDINATOR, "a list for what was not masked", after="end of set-up"),
        at("second", COORDINATOR, "a second list for the attempt", *asked(aarau, bergen, cork, delft), after="R2"),
        at("second", COORDINATOR, "a second list once the sum is open", *asked(aarau, bergen, cork, delft), after="R3"),
    ]


def _of_openings(casts: Mapping[str, Any], sessions: Mapping[str, Any]) -> list[dict[str, Any]]:
    at, session = At("R3", "bergen", "five", 2), sessions["five"]
    consents = session["attempts"][1]["consents"]
    elsewhere = signed(Consent, consents[0], casts["five"].identities["aarau"], survivors=ZEROS)
    stranger = signed(Consent, consents[0], _stranger(), site=STRANGER)
    earlier = session["attempts"][0]["consents"][0]
    return [
        at("signature", COORDINATOR, "a signature changed", bent("/consents/0/signature", consents[0]["signature"])),
        at("bound", COORDINATOR, "a signature under another list", *other("/consents/0", consents[0], elsewhere)),
        at("bound", COORDINATOR, "a signature from another round", *other("/consents/0", consents[0], earlier)),
        at("members", COORDINATOR, "one signature twice", _copied("/consents/0", "/consents/4")),
        at("members", COORDINATOR, "a signature of a stranger", add("/consents/4", stranger)),
        at("quorum", COORDINATOR, "t - 1 signatures", remove("/consents/0")),
        at("turn", COORDINATOR, "opening before this site signed a list", after="R1"),
    ]


def _of_whole_lists(casts: Mapping[str, Any], sessions: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All five have uploaded, so nobody's signature is waited for; whatever is bent must be noticed here."""
    at, cast, session = At(AT_ONCE, "bergen", "five", 2), casts["five"], sessions["five"]
    uploads = {site: each["message"] for site, each in session["attempts"][1]["uploads"].items()}
    aarau, bergen, cork, delft, evora = uploads.values()
    honest = honest_input(session, AT_ONCE, "bergen", number=2)["survivors"]
    first = session["attempts"][0]
    own = signed(Upload, bergen, cast.identities["bergen"], content=ZEROS)
    second = signed(Upload, aarau, cast.identities["aarau"], content=ZEROS)

    def asked(*listed: Mapping[str, Any], **changes: Any) -> list[dict[str, Any]]:
        """A list that the coordinator has signed."""
        found = tuple(read(Upload, each) for each in listed)
        return other("/survivors", honest, signed(Survivors, honest, cast.coordinator, uploads=found, **changes))

    others = (bergen, cork, delft, evora)
    unsigned = aarau | {"signature": flipped(aarau["signature"])}
    another = asked(*uploads.values(), proposal=first["proposal"]["hash"])
    earlier, four = first["uploads"]["aarau"]["message"], (aarau, bergen, cork, delft)
    late = At("R2", "bergen", "five", 2)
    return [
        at("members", COORDINATOR, "a list that lacks one who was proposed", *asked(*four)),
        at("members", COORDINATOR, "a list of t - 1", *asked(aarau, bergen, cork)),
        at("members", COORDINATOR, "a survivor twice", *asked(aarau, bergen, cork, cork, delft, evora)),
        at("signature", COORDINATOR, "a signature changed", bent("/survivors/signature", honest["signature"])),
        at("signature", COORDINATOR, "an unsigned upload", *asked(unsigned, *others)),
        at("bound", COORDINATOR, "a list for another proposal", *another),
        at("bound", COORDINATOR, "an upload to another round", *asked(earlier, *others)),
        at("own", COORDINATOR, "this site's upload, with another hash", *asked(aarau, own, cork, delft, evora)),
        at("turn", COORDINATOR, "a list for what was not masked", after="end of set-up"),
        at("second", COORDINATOR, "another upload of one site, after a list was signed", *asked(second, *others),
           after="R2"),
        late("second", COORDINATOR, "a list that lacks one, after the whole one was opened", *asked(*four),
             after=AT_ONCE),
    ]  # fmt: skip
