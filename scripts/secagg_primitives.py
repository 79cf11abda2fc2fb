"""The parts of secure aggregation that can be tried alone: hashes, signed bytes, keys, shares, streams, rounding.

Frames of the wire are among them. Most are taken from a recorded session, so that they also lead there; the rest is
SHAKE-256 of a name.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from pydantic import TypeAdapter

from wardround.privacy.secagg import shamir
from wardround.privacy.secagg.keys import confirmation, envelope_info, own_mask_key, pair_mask_key
from wardround.privacy.secagg.masks import key_stream
from wardround.privacy.secagg.quantize import Quantizer
from wardround.privacy.secagg.ring import Ring
from wardround.privacy.secagg.session import commitment
from wardround.protocol.messages import Masked
from wardround.protocol.outgoing import bytes_to_send, outgoing
from wardround.protocol.secagg import (
    Agreement,
    Consent,
    Deal,
    Keys,
    Opening,
    Parcel,
    Proposal,
    Survivors,
    Upload,
    hash_of,
    signed_bytes,
)

PARTIES = 5
RANGES = ((4, 1.0), (2, 100.0))
SHORT = 4096


def random_stream(name: str) -> Callable[[int], bytes]:
    """A stand-in for the operating system's CSPRNG: SHAKE-256 of ``name``, read from the start."""
    read = [0]

    def take(size: int) -> bytes:
        read[0] += size
        return hashlib.shake_256(name.encode()).digest(read[0])[-size:] if size else b""

    return take


def primitives(cast: Any, session: Mapping[str, Any]) -> dict[str, Any]:
    """Every part, from the session ``three`` where it occurs there."""
    key = random_stream("stream")(32)
    stream = key_stream(key, 48)
    value = {"b": [1, 2.5, "é"], "a": None}
    return {
        "hash": {"value": value, "hash": hash_of(value)},
        "signed": _signed(session),
        "derived": _derived(session),
        "share": _share(cast, session),
        "shamir": _shamir(),
        "stream": {
            "key": key.hex(),
            "first_48_bytes": stream.hex(),
            "residues_32": np.frombuffer(stream, "<u4").tolist(),
            "residues_64": np.frombuffer(stream, "<u8").tolist(),
        },
        "x25519": {
            "private": key.hex(),
            "public": X25519PrivateKey.from_private_bytes(key).public_key().public_bytes_raw().hex(),
        },
        "quantisation": [_quantisation(bits) for bits in (32, 64)],
        "frames": _frames(session),
    }


def read(kind: type, data: Mapping[str, Any]) -> Any:
    """A message as it stands in the file; the hash beside it is not part of it."""
    return TypeAdapter(kind).validate_python({name: value for name, value in data.items() if name != "hash"})


def _signed(session: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What is signed for each kind of message, and its hash."""
    first = session["attempts"][0]
    messages = [
        read(Keys, session["keys"][0]),
        read(Deal, session["deals"][0]),
        read(Agreement, session["agreements"][0]),
        read(Proposal, first["proposal"]),
        read(Upload, first["uploads"]["aarau"]["message"]),
        read(Survivors, first["survivors"]),
        read(Consent, first["consents"][0]),
        read(Opening, first["openings"][0]),
    ]
    return [
        {
            "header": each.header,
            "bytes": signed_bytes(each.header).hex(),
            "hash_of_header": hash_of(each.header),
            "hash_of_message": each.digest,
        }
        for each in messages
    ]


def _derived(session: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Keys from secrets: one of each use."""
    secret, own = session["pair_secrets"]["aarau bergen"], session["own_secrets"]["aarau"]["1/1"]
    proposal = session["attempts"][0]["proposal"]["hash"]
    pair, mask = bytes.fromhex(secret), bytes.fromhex(own)
    made = [
        (secret, ["confirm", "aarau"], confirmation(pair, "aarau")),
        (secret, ["pair-mask", proposal], pair_mask_key(pair, proposal)),
        (own, ["own-mask", proposal], own_mask_key(mask, proposal)),
    ]
    return [{"secret": secret, "about": about, "key": key.hex()} for secret, about, key in made]


def _share(cast: Any, session: Mapping[str, Any]) -> dict[str, Any]:
    """One parcel, opened: what aarau dealt bergen for the second slot of the stock."""
    parcel = next(p for p in session["parcels"] if (p["dealer"], p["recipient"]) == ("aarau", "bergen"))
    info = envelope_info(session["digest"], session["transcript"], "aarau", "bergen")
    content = cast.private["bergen"].open(bytes.fromhex(parcel["envelope"]), info, "aarau")
    salt, share = content[48:64], content[64:96]
    return {
        "dealer": "aarau",
        "recipient": "bergen",
        "number": 1,
        "info": info.hex(),
        "content": content.hex(),
        "salt": salt.hex(),
        "share": share.hex(),
        "commitment": commitment(session["digest"], "aarau", "bergen", 1, salt, share).hex(),
        "hash_of_parcel": read(Parcel, parcel).hash,
    }


def _shamir() -> dict[str, Any]:
    secret, coefficients = random_stream("shamir secret")(32), random_stream("shamir coefficients")(64)
    shares = shamir.share(np.frombuffer(secret, np.uint8).reshape(1, 32), 3, PARTIES, coefficients)
    return {
        "secret": secret.hex(),
        "threshold": 3,
        "parties": PARTIES,
        "coefficients": coefficients.hex(),
        "shares": [bytes(share[0]).hex() for share in shares],
    }


def _quantisation(bits: int) -> dict[str, Any]:
    """Bounds among the values, and what gives an integer beyond the limit, or none: JSON has a text for those."""
    reals, rounding = [0.0, 1.0, -1.0, 0.1, -1e-9, 99.5], random_stream("rounding")(32)
    quantizer = Quantizer(Ring(bits), PARTIES, RANGES)
    bent = [(0, 1.75), (0, -1.75), (4, 103.0), (1, "NaN"), (1, "Infinity"), (5, "-Infinity")]
    return {
        "bits": bits,
        "parties": PARTIES,
        "ranges": [list(each) for each in RANGES],
        "rounding_key": rounding.hex(),
        "reals": reals,
        "steps": quantizer.steps().tolist(),
        "limit": Ring(bits).limit(PARTIES),
        "integers": quantizer.quantize(np.array(reals), rounding).tolist(),
        "refused": [[*reals[:at], value, *reals[at + 1 :]] for at, value in bent],
    }


def _frames(session: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a site puts on the wire: a message of set-up with its parcels, one without, and a masked vector."""
    first = session["attempts"][0]
    proposal, upload = first["proposal"], first["uploads"]["aarau"]
    vector = np.frombuffer(bytes.fromhex(upload["vector"]), "<u4")
    about = ("aarau", session["session"]["plan"], proposal["round_number"], proposal["attempt"], proposal["model_hash"])
    parcels = tuple(read(Parcel, parcel) for parcel in session["parcels"] if parcel["dealer"] == "aarau")
    frames = {
        "deal": outgoing(read(Deal, session["deals"][0]), parcels),
        "consent": outgoing(read(Consent, first["consents"][0])),
        "upload": outgoing(Masked(*about, read(Upload, upload["message"]), vector)),
    }
    return [{"what": what} | _text(bytes_to_send(frame)) for what, frame in frames.items()]


def _text(frame: bytes) -> dict[str, Any]:
    """A frame's parts, the header as the text that it is; of a long one the hash: the session has its parts."""
    size = int.from_bytes(frame[:4], "big")
    found = {"length": frame[:4].hex(), "sha256": hashlib.sha256(frame).hexdigest()}
    if size > SHORT:
        return found
    return found | {"header": frame[4 : 4 + size].decode(), "vector": frame[4 + size :].hex()}
