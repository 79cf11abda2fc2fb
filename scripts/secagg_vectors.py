"""Make tests/vectors/secagg.json: complete sessions of secure aggregation for whoever writes another implementation.

    python scripts/secagg_vectors.py            write the file
    python scripts/secagg_vectors.py --check    say whether it would come out the same

All randomness is SHAKE-256 of a name, except what the library draws when it encapsulates (ML-KEM) and seals (HPKE).
Those bytes are kept from the file that is there, as long as the private keys in it open them to what they should hold.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import TypeAdapter
from secagg_answers import refused_answers
from secagg_faults import refused
from secagg_primitives import primitives, random_stream

from wardround.privacy.secagg import session as session_module
from wardround.privacy.secagg.client import SitePlayer
from wardround.privacy.secagg.keys import RANDOM_BYTES, SessionKeys, encapsulate, own_mask_key, pair_mask_key, seal
from wardround.privacy.secagg.ring import Ring
from wardround.privacy.secagg.server import AttemptDesk, SetupDesk
from wardround.privacy.secagg.session import Ready, Setup
from wardround.protocol.errors import ProtocolViolation
from wardround.protocol.identity import Identity
from wardround.protocol.secagg import (
    Agreement,
    Consent,
    Deal,
    Keys,
    Opening,
    Parcel,
    Proposal,
    Session,
    Survivors,
    Upload,
    colluding,
    hash_of,
    threshold,
)

FILE = Path(__file__).resolve().parent.parent / "tests" / "vectors" / "secagg.json"
LENGTH = 6
KINDS = (Keys, Deal, Parcel, Agreement, Proposal, Upload, Survivors, Consent, Opening)
_JSON = {kind: TypeAdapter(kind) for kind in KINDS}
CASTS: dict[str, dict[str, Any]] = {
    "three": {"sites": ("aarau", "bergen", "cork"), "bits": 32, "rounds": (1, 2), "attempts": 1},
    "wide": {"sites": ("aarau", "bergen", "cork"), "bits": 64, "rounds": (1,), "attempts": 1},
    "five": {"sites": ("aarau", "bergen", "cork", "delft", "evora"), "bits": 32, "rounds": (1, 2), "attempts": 1},
}
LOST: dict[tuple[str, int], tuple[Sequence[str], Sequence[str]]] = {
    # (session, round): (lost before the upload, lost after it)
    ("five", 1): (("cork",), ()),
    ("five", 2): ((), ("delft",)),
}


def plain(message: Any) -> Any:
    """A message as JSON data: bytes in lower-case hex."""
    return _JSON[type(message)].dump_python(message, mode="json")


def message(kind: type, data: Any) -> Any:
    return _JSON[kind].validate_python(data)


class Cast:
    """The sites of one session, whose set-up can be played again from recorded sealed parts."""

    def __init__(self, name: str, sealed: Mapping[str, Mapping[str, str]]) -> None:
        about = CASTS[name]
        self.name, self.sites, self.sealed = name, tuple(about["sites"]), dict(sealed)
        seed = {site: random_stream(f"identity {site}")(32) for site in self.sites}
        self.seeds = seed
        self.identities = {site: Identity(site, Ed25519PrivateKey.from_private_bytes(seed[site])) for site in seed}
        n, key = len(self.sites), random_stream("identity coordinator")(32)
        self.coordinator = Identity("coordinator", Ed25519PrivateKey.from_private_bytes(key))
        self.session = Session(
            plan=hash_of("a plan"),
            roster=hash_of("a roster"),
            name=name,
            members=tuple(self.identities[site].public for site in self.sites),
            threshold=threshold(n),
            colluding=colluding(n),
            bits=about["bits"],
            length=LENGTH,
            rounds=about["rounds"],
            attempts=about["attempts"],
            coordinator=self.coordinator.public,
        )
        self.private = {
            site: SessionKeys.from_random(random_stream(f"{name} {site}")(RANDOM_BYTES)) for site in self.sites
        }

    def setup(self, site: str) -> Setup:
        return Setup(self.session, self.identities[site], random_stream(f"{self.name} {site}"))

    def deal(self, setup: Setup, site: str, keys: Sequence[Keys]) -> tuple[Deal, tuple[Parcel, ...]]:
        """S2 with the sealed parts that are on file, as far as they hold."""

        def kept(recipient: str) -> dict[str, str]:
            return self.sealed.setdefault(f"{site} to {recipient}", {})  # type: ignore[return-value]

        def encapsulated(peer: Keys) -> tuple[bytes, bytes]:
            on_file = kept(peer.site)
            if "ciphertext" not in on_file:
                on_file["ciphertext"] = encapsulate(peer)[1].hex()
            found = bytes.fromhex(on_file["ciphertext"])
            return self.private[peer.site].decapsulate(found, site), found

        def sealed(shares: bytes, peer: Keys, info: bytes) -> bytes:
            on_file = kept(peer.site)
            try:
                if self.private[peer.site].open(bytes.fromhex(on_file["envelope"]), info, site) == shares:
                    return bytes.fromhex(on_file["envelope"])
            except (KeyError, ProtocolViolation):
                pass
            on_file["envelope"] = seal(shares, peer, info).hex()
            return bytes.fromhex(on_file["envelope"])

        before = session_module.encapsulate, session_module.seal
        session_module.encapsulate, session_module.seal = encapsulated, sealed  # type: ignore[assignment]
        try:
            return setup.deal(keys)
        finally:
            session_module.encapsulate, session_module.seal = before

    def play(self) -> tuple[SetupDesk, dict[str, Ready], dict[str, Any]]:
        """S1 to S3 of every site: (coordinator, sites, what went over the wire)."""
        desk, setups = SetupDesk(self.session, self.coordinator), {site: self.setup(site) for site in self.sites}
        for setup in setups.values():
            desk.add_keys(setup.keys())
        for site, setup in setups.items():
            desk.add_deal(*self.deal(setup, site, desk.keys()))
        for site, setup in setups.items():
            desk.add_agreement(setup.agree(desk.deals(), desk.parcels_for(site)))
        keys = desk.keys()
        wire = {
            "keys": [plain(each) for each in keys],
            "deals": [plain(each) for each in desk.deals()],
            "parcels": [plain(each) for site in self.sites for each in desk.parcels_for(site)],
            "agreements": [plain(each) for each in desk.agreements()],
        }
        return desk, {site: setup.begin(desk.agreements()) for site, setup in setups.items()}, wire


def values(cast: Cast, number: int) -> dict[str, list[int]]:
    """Integers of every site, the ring's limit and its opposite among them."""
    limit = Ring(cast.session.bits).limit(len(cast.sites))
    found = {}
    for site in cast.sites:
        take = random_stream(f"values {cast.name} {site} {number}")
        drawn = [int.from_bytes(take(8), "big") % (2 * limit + 1) - limit for _ in range(LENGTH)]
        found[site] = [limit, -limit, *drawn[2:]]
    return found


def attempt(cast: Cast, desk: SetupDesk, ready: Mapping[str, Ready], number: int) -> dict[str, Any]:
    """R1 to R3 of attempt 1 at a round, and every key that masks it."""
    before, after = LOST.get((cast.name, number), ((), ()))
    proposal = desk.proposal(number, 1, hash_of(f"model {number}"), "contribution")
    table, given = AttemptDesk(desk, proposal), values(cast, number)
    players = {site: SitePlayer(each) for site, each in ready.items()}
    uploads = {}
    for site in (site for site in cast.sites if site not in before):
        upload, vector = players[site].mask(proposal, proposal.model_hash, np.array(given[site], np.int64))
        table.add_upload(upload, vector)
        uploads[site] = {"message": plain(upload), "vector": vector.tobytes().hex()}
    survivors = table.survivors()
    for site in survivors.sites:
        if site not in after:
            table.add_consent(players[site].consent(proposal, survivors))
    openings = {
        site: players[site].open(proposal, table.consents())[1] for site in survivors.sites if site not in after
    }
    for opening in openings.values():
        table.add_opening(opening)
    slot = (number, 1)
    return {
        "round": number,
        "attempt": 1,
        "lost_before_the_upload": list(before),
        "lost_after_the_upload": list(after),
        "proposal": plain(proposal) | {"hash": proposal.hash},
        "values": given,
        "own_mask_keys": {site: own_mask_key(each.own[slot], proposal.hash).hex() for site, each in ready.items()},
        "pair_mask_keys": {
            f"{one} {other}": pair_mask_key(ready[one].pairs[other], proposal.hash).hex()
            for one in cast.sites
            for other in cast.sites
            if one < other
        },
        "uploads": uploads,
        "survivors": plain(survivors) | {"hash": survivors.hash},
        "consents": [plain(each) for each in table.consents()],
        "openings": [plain(openings[site]) for site in sorted(openings)],
        "total": table.total().tolist(),
    }


def recorded(cast: Cast) -> dict[str, Any]:
    """A whole session as JSON data."""
    desk, ready, wire = cast.play()
    session = asdict(cast.session) | {"members": [[m.site, m.key.hex()] for m in cast.session.members]}
    session |= {"rounds": list(cast.session.rounds), "coordinator": cast.coordinator.public.key.hex()}
    transcript = session_module.transcript_of(desk.keys())
    return {
        "name": cast.name,
        "session": session,
        "digest": cast.session.digest,
        "private": {
            site: {
                "ed25519": cast.seeds[site].hex(),
                "x25519": random_stream(f"{cast.name} {site}")(32).hex(),
                "mlkem768_seed": random_stream(f"{cast.name} {site}")(RANDOM_BYTES)[32:].hex(),
            }
            for site in cast.sites
        },
        **wire,
        "transcript": transcript,
        "pair_secrets": {
            f"{one} {other}": ready[one].pairs[other].hex() for one in cast.sites for other in cast.sites if one < other
        },
        "own_secrets": {
            site: {f"{number}/{tried}": secret.hex() for (number, tried), secret in ready[site].own.items()}
            for site in cast.sites
        },
        "attempts": [attempt(cast, desk, ready, number) for number in cast.session.rounds],
    }


def make(before: Mapping[str, Any]) -> dict[str, Any]:
    """The whole file, with the sealed parts of ``before`` where they hold."""
    sealed: dict[str, dict[str, dict[str, str]]] = {name: {} for name in CASTS}
    for session in before.get("sessions", ()):
        for parcel in session["parcels"]:
            kept = sealed[session["name"]].setdefault(f"{parcel['dealer']} to {parcel['recipient']}", {})
            kept |= {name: parcel[name] for name in ("ciphertext", "envelope") if parcel[name]}
    casts = {name: Cast(name, sealed[name]) for name in CASTS}
    sessions = {name: recorded(cast) for name, cast in casts.items()}
    return {
        "format": "wardround/secagg-vectors/1",
        "primitives": primitives(casts["three"], sessions["three"]),
        "sessions": list(sessions.values()),
        "refused": [*refused(casts, sessions), *refused_answers(casts, sessions)],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the file would differ")
    arguments = parser.parse_args()
    before = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    made = make(before)
    if arguments.check:
        print("the file is what the code makes" if made == before else "the code makes another file")
        return int(made != before)
    FILE.write_text(json.dumps(made, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
    print(f"{FILE}: {len(made['sessions'])} sessions, {len(made['refused'])} refusals, {FILE.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
