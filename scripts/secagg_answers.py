"""What a coordinator must refuse from sites: the site is named, and nothing is added up. See secagg_faults.py."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import TypeAdapter
from secagg_faults import COORDINATOR, At, add, bent, other, put, remove, signed
from secagg_primitives import read

from wardround.privacy.secagg.client import SitePlayer
from wardround.privacy.secagg.ring import content_hash
from wardround.protocol.secagg import Keys, Opening, Proposal, Upload


def refused_answers(casts: Mapping[str, Any], sessions: Mapping[str, Any]) -> list[dict[str, Any]]:
    """In the order of the exchanges."""
    return [*_of_set_up(casts["three"], sessions), *_of_rounds(casts, sessions)]


def _of_set_up(cast: Any, sessions: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a site may send the coordinator while a session is set up."""
    session, aarau = sessions["three"], cast.identities["aarau"]
    keys, deal, agreement = (session[name][0] for name in ("keys", "deals", "agreements"))
    one, two, three = (At(f"S{step} answer", COORDINATOR, sender="aarau") for step in (1, 2, 3))
    second = other("/keys", keys, signed(Keys, keys, aarau, nonce=bytes(32)))
    elsewhere = sessions["wide"]
    foreign = elsewhere["agreements"][0]
    return [
        one("signature", "aarau", "keys not signed", bent("/keys/signature", keys["signature"])),
        one("session", "aarau", "keys for another session", *other("/keys", keys, elsewhere["keys"][0])),
        one("second", "aarau", "other keys than the first", *second, after="S1 answer"),
        two("signature", "aarau", "a deal not signed", bent("/deal/signature", deal["signature"])),
        two("parcel", "aarau", "a parcel too few", remove("/parcels/2")),
        two("parcel", "aarau", "a parcel in the name of another dealer", put("/parcels/0/dealer", "bergen")),
        three("signature", "aarau", "an agreement not signed", bent("/agreement/signature", agreement["signature"])),
        three("session", "aarau", "an agreement on another session", *other("/agreement", agreement, foreign)),
    ]


def _of_rounds(casts: Mapping[str, Any], sessions: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a site may send the coordinator in a round."""
    one, two, three = (At(f"R{step} answer", COORDINATOR, sender="aarau") for step in (1, 2, 3))
    now, later = sessions["three"]["attempts"]
    next_upload = later["uploads"]["aarau"]["message"]
    aarau = casts["three"].identities["aarau"]
    upload, vector, consent = now["uploads"]["aarau"]["message"], now["uploads"]["aarau"]["vector"], now["consents"][0]
    zeros = np.zeros(len(vector) // 8, "<u4")
    second = signed(Upload, upload, aarau, content=content_hash(zeros))
    opening = now["openings"][0]
    shares = read(Opening, opening).shares
    site, salt, value = shares[1]
    bad = (shares[0], (site, salt, bytes(len(value))), shares[2])
    both = (("bergen", bytes(32)),)

    def opened(**changes: Any) -> list[dict[str, Any]]:
        return other("/opening", opening, signed(Opening, opening, aarau, **changes))

    four = At("R3 answer", COORDINATOR, "five", sender="aarau")
    seeded, signer = sessions["five"]["attempts"][0]["openings"][0], casts["five"].identities["aarau"]
    none, short = (signed(Opening, seeded, signer, seeds=seeds) for seeds in ((), (("cork", bytes(31)),)))
    return [
        one("signature", "aarau", "an upload not signed", bent("/upload/signature", upload["signature"])),
        one("bound", "aarau", "an upload to another round", *other("/upload", upload, next_upload)),
        one("content", "aarau", "another vector", bent("/vector", vector)),
        one("form", "aarau", "a vector that is too short", put("/vector", vector[:-8])),
        one("second", "aarau", "a second vector", *other("/upload", upload, second),
            put("/vector", zeros.tobytes().hex()), after="R1 answer"),
        one("turn", "cork", "a vector after the list was made", *_late(casts["five"], sessions["five"]), session="five",
            sender="cork", after="R2 answer"),
        two("signature", "aarau", "a consent not signed", bent("/consent/signature", consent["signature"])),
        two("bound", "aarau", "a signature under another list", *other("/consent", consent, later["consents"][0])),
        three("signature", "aarau", "an opening not signed", bent("/opening/signature", opening["signature"])),
        three("bound", "aarau", "an opening of another list", *other("/opening", opening, later["openings"][0])),
        three("commitment", "aarau", "a share that was not dealt", *opened(shares=bad)),
        three("cover", "aarau", "a share that is missing", *opened(shares=(shares[0], shares[2]))),
        three("cover", "aarau", "a share and a seed of one site", *opened(seeds=both)),
        four("cover", "aarau", "no seed of who was lost", *other("/opening", seeded, none)),
        four("form", "aarau", "a seed of 31 bytes", *other("/opening", seeded, short)),
    ]  # fmt: skip


def _late(cast: Any, session: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The upload of the site that was lost in round 1, as it would have come in time."""
    attempt, (_, ready, _) = session["attempts"][0], cast.play()
    proposal, values = read(Proposal, attempt["proposal"]), np.array(attempt["values"]["cork"], np.int64)
    upload, vector = SitePlayer(ready["cork"]).mask(proposal, proposal.model_hash, values)
    message = TypeAdapter(Upload).dump_python(upload, mode="json")
    return [add("", {"upload": message, "vector": vector.tobytes().hex()})]
