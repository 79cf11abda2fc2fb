"""The vectors of secure aggregation: made again by the code, checked by a second implementation, refused if bent."""

import copy
import json
import math
import runpy
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from wardround.privacy.secagg.client import SitePlayer
from wardround.privacy.secagg.server import AttemptDesk
from wardround.protocol.errors import ProtocolViolation, UsageError
from wardround.protocol.secagg import Agreement, Consent, Deal, Keys, Opening, Parcel, Proposal, Survivors, Upload

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
FILE = ROOT / "tests" / "vectors" / "secagg.json"
VECTORS: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
SESSIONS = {session["name"]: session for session in VECTORS["sessions"]}
second: dict[str, Any] = runpy.run_path(str(HERE / "independent.py"))


@pytest.fixture(scope="module")
def scripts() -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "scripts"))
        return runpy.run_path(str(ROOT / "scripts" / "secagg_vectors.py")) | runpy.run_path(
            str(ROOT / "scripts" / "secagg_faults.py")
        )


def test_the_code_makes_this_file_again() -> None:
    command = [sys.executable, "scripts/secagg_vectors.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def check_primitives(given: dict[str, Any]) -> None:
    # Floats and other characters: beyond what the second implementation's canonical form needs to know.
    assert given["hash"]["hash"] == second["h"]('{"a":null,"b":[1,2.5,"é"]}'.encode()).hex()
    assert given["signed"]["bytes"] == second["signed_bytes"](given["signed"]["header"]).hex()
    shamir = given["shamir"]
    secret, drawn = bytes.fromhex(shamir["secret"]), bytes.fromhex(shamir["coefficients"])
    made = [second["share"](secret, [drawn[:32], drawn[32:]], number).hex() for number in range(1, 6)]
    assert made == shamir["shares"]
    shares = {number: bytes.fromhex(shamir["shares"][number - 1]) for number in (2, 3, 5)}
    assert second["reconstruct"](shares) == secret
    assert second["stream"](bytes.fromhex(given["stream"]["key"]), 48).hex() == given["stream"]["first_48_bytes"]
    for each in given["quantisation"]:
        assert each["integers"] == quantised(each)


def quantised(given: dict[str, Any]) -> list[int]:
    """floor(x / step + u / 2^32), in fractions."""
    limit = (2 ** (given["bits"] - 1) - 1) // given["parties"]
    bounds = [bound for length, bound in given["ranges"] for _ in range(length)]
    chances = second["residues"](bytes.fromhex(given["rounding_key"]), 32, len(bounds))
    steps = [Fraction(2) ** math.ceil(math.log2(bound / limit)) for bound in bounds]
    if given["bits"] == 64:
        # Double precision: what is below a unit in the last place of x / step cannot be seen.
        return [int(np.floor(float(x / step) + chance * 2.0**-32))
                for x, step, chance in zip(given["reals"], map(float, steps), chances, strict=True)]  # fmt: skip
    return [math.floor(Fraction(x) / step + Fraction(chance, 2**32))
            for x, step, chance in zip(given["reals"], steps, chances, strict=True)]  # fmt: skip


def check_set_up(session: dict[str, Any]) -> None:
    about, private = session["session"], session["private"]
    names = [site for site, _ in about["members"]]
    assert second["hash_of"]({"kind": "session", **about}) == session["digest"]
    assert about["threshold"] == 2 * len(names) // 3 + 1 and about["colluding"] == (len(names) - 1) // 3
    keys = {message["site"]: message for message in session["keys"]}
    for site, key in about["members"]:
        own = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(private[site]["ed25519"]))
        assert own.public_key().public_bytes_raw().hex() == key
        assert second["x25519"](private[site]).public_key().public_bytes_raw().hex() == keys[site]["x25519"]
        assert second["mlkem"](private[site]).public_key().public_bytes_raw().hex() == keys[site]["mlkem"]
        verify(session, site, second["keys_header"](keys[site]), keys[site]["signature"])
    seen = second["transcript"](session["keys"])
    assert seen == session["transcript"]
    parcels = {(parcel["dealer"], parcel["recipient"]): parcel for parcel in session["parcels"]}
    deals = []
    for deal in session["deals"]:
        named = [[to, second["parcel_hash"](parcels[deal["site"], to])] for to in names]
        header = {"kind": "deal", "session": session["digest"], "site": deal["site"], "seen": seen, "parcels": named}
        verify(session, deal["site"], header, deal["signature"])
        deals.append([second["message_hash"](header), deal["signature"]])
    stock = [f"{number}/{tried}" for number in about["rounds"] for tried in range(1, about["attempts"] + 1)]
    shares: dict[tuple[str, str], dict[int, bytes]] = {}
    for (dealer, recipient), parcel in parcels.items():
        content = second["open_envelope"](private[recipient], parcel["envelope"],
                                          [session["digest"], seen, dealer, recipient])  # fmt: skip
        assert len(content) == 48 * len(stock)
        for number, slot in enumerate(stock):
            salt, value = content[48 * number :][:16], content[48 * number + 16 :][:32]
            made = second["commitment"](session["digest"], dealer, recipient, number, salt, value)
            assert made.hex() == parcel["commitments"][64 * number :][:64]
            shares.setdefault((dealer, slot), {})[names.index(recipient) + 1] = value
    for (dealer, slot), found in shares.items():
        enough = dict(list(found.items())[-about["threshold"] :])
        assert second["reconstruct"](enough).hex() == session["own_secrets"][dealer][slot]
    agreed = second["hash_of"]([seen, *deals])
    for message in session["agreements"]:
        site, tags = message["site"], []
        for other in (name for name in names if name != site):
            low, high = sorted((site, other))
            secret = second["pair_secret"](low, high, private, keys, parcels[low, high]["ciphertext"], seen)
            assert secret.hex() == session["pair_secrets"][f"{low} {high}"]
            tags.append([other, second["derive"](secret, ["confirm", site]).hex()])
        header = {"kind": "agreement", "session": session["digest"], "site": site, "seen": agreed}
        verify(session, site, header | {"confirmations": tags}, message["signature"])


def check_attempt(session: dict[str, Any], attempt: dict[str, Any]) -> None:
    about = session["session"]
    names, bits = [site for site, _ in about["members"]], about["bits"]
    slot = f"{attempt['round']}/{attempt['attempt']}"
    proposal = second["proposal_hash"](attempt["proposal"])
    assert proposal == attempt["proposal"]["hash"]
    asked(session, second["proposal_header"](attempt["proposal"]), attempt["proposal"]["signature"])
    pairs = {}
    for pair, secret in session["pair_secrets"].items():
        pairs[pair] = second["derive"](bytes.fromhex(secret), ["pair-mask", proposal])
        assert pairs[pair].hex() == attempt["pair_mask_keys"][pair]
    for site, answer in attempt["uploads"].items():
        own = second["derive"](bytes.fromhex(session["own_secrets"][site][slot]), ["own-mask", proposal])
        assert own.hex() == attempt["own_mask_keys"][site]
        masks = [
            (pairs[" ".join(sorted((site, other)))], 1 if site < other else -1) for other in names if other != site
        ]
        vector = second["masked"](attempt["values"][site], bits, own, masks)
        assert vector.hex() == answer["vector"]
        content = second["hashlib"].sha256(vector).hexdigest()
        header = {"kind": "upload", "site": site, "proposal": proposal, "content": content}
        verify(session, site, header, answer["message"]["signature"])
    listed = second["survivors_hash"](attempt["survivors"])
    assert listed == attempt["survivors"]["hash"]
    asked(session, second["survivors_header"](attempt["survivors"]), attempt["survivors"]["signature"])
    left = sorted(set(names) - set(attempt["lost_before_the_upload"]))
    assert [upload["site"] for upload in attempt["survivors"]["uploads"]] == left
    for message in attempt["consents"]:
        header = {"kind": "consent", "site": message["site"], "survivors": listed}
        verify(session, message["site"], header, message["signature"])
    # The coordinator's part, from what it was sent alone.
    total = [0] * about["length"]
    for site in left:
        vector = bytes.fromhex(attempt["uploads"][site]["vector"])
        width = bits // 8
        total = [old + int.from_bytes(vector[width * k :][:width], "little") for k, old in enumerate(total)]
    openings = {message["site"]: message for message in attempt["openings"]}
    for site, message in openings.items():
        header = {"kind": "opening", "site": site, "survivors": listed, "shares": message["shares"],
                  "seeds": message["seeds"]}  # fmt: skip
        verify(session, site, header, message["signature"])
        for lost, seed in message["seeds"]:
            sign = 1 if site < lost else -1
            masks = second["residues"](bytes.fromhex(seed), bits, about["length"])
            total = [old - sign * mask for old, mask in zip(total, masks, strict=True)]
    for dealer in left:
        held = {names.index(site) + 1: bytes.fromhex({d: v for d, _, v in message["shares"]}[dealer])
                for site, message in list(openings.items())[: about["threshold"]]}  # fmt: skip
        own = second["derive"](second["reconstruct"](held), ["own-mask", proposal])
        masks = second["residues"](own, bits, about["length"])
        total = [old - mask for old, mask in zip(total, masks, strict=True)]
    signed = [value % 2**bits - (2**bits if value % 2**bits >= 2 ** (bits - 1) else 0) for value in total]
    assert (
        signed
        == attempt["total"]
        == [sum(column) for column in zip(*(attempt["values"][s] for s in left), strict=True)]
    )


def verify(session: dict[str, Any], site: str, header: Any, signature: str) -> None:
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(dict(session["session"]["members"])[site]))
    key.verify(bytes.fromhex(signature), second["signed_bytes"](header))


def asked(session: dict[str, Any], header: Any, signature: str) -> None:
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(session["session"]["coordinator"]))
    key.verify(bytes.fromhex(signature), second["signed_bytes"](header))


def test_a_second_implementation_comes_to_the_same_primitives() -> None:
    check_primitives(VECTORS["primitives"])


@pytest.mark.parametrize("name", SESSIONS)
def test_a_second_implementation_comes_to_the_same_sessions(name: str) -> None:
    check_set_up(SESSIONS[name])
    for attempt in SESSIONS[name]["attempts"]:
        check_attempt(SESSIONS[name], attempt)


def test_the_sessions_show_every_loss_and_both_rings() -> None:
    assert {session["session"]["bits"] for session in SESSIONS.values()} == {32, 64}
    losses = [(bool(a["lost_before_the_upload"]), bool(a["lost_after_the_upload"])) for s in SESSIONS.values()
              for a in s["attempts"]]  # fmt: skip
    assert {(False, False), (True, False), (False, True)} <= set(losses)


@pytest.mark.parametrize(
    ("check", "path"),
    [
        (check_set_up, "keys/0/nonce"),
        (check_set_up, "parcels/1/envelope"),
        (check_set_up, "parcels/1/commitments"),
        (check_set_up, "own_secrets/cork/1/1"),
        (check_set_up, "agreements/1/signature"),
        (check_attempt, "pair_mask_keys/aarau cork"),
        (check_attempt, "uploads/bergen/vector"),
        (check_attempt, "openings/0/shares/1/2"),
        (check_attempt, "consents/2/signature"),
        (check_attempt, "survivors/signature"),
        (check_attempt, "proposal/signature"),
        (check_attempt, "survivors/hash"),
    ],
)
def test_one_changed_byte_in_the_file_is_found(check: Any, path: str, scripts: dict[str, Any]) -> None:
    session = copy.deepcopy(SESSIONS["three"])
    at: Any = session if check is check_set_up else session["attempts"][0]
    *way, last = path.split("/") if not path.startswith("own_secrets") else ("own_secrets", "cork", "1/1")
    for step in way:
        at = at[int(step)] if isinstance(at, list) else at[step]
    key = int(last) if isinstance(at, list) else last
    at[key] = scripts["flipped"](at[key])
    with pytest.raises(Exception):  # noqa: B017 - a failed comparison, signature or tag
        check(session) if check is check_set_up else check(session, session["attempts"][0])


def patched(value: Any, change: list[dict[str, Any]]) -> Any:
    """``value`` after a patch of RFC 6902."""
    made = copy.deepcopy(value)
    for operation in change:
        *way, last = operation["path"].removeprefix("/").split("/")
        at = made
        for step in way:
            at = at[int(step)] if isinstance(at, list) else at[step]
        key: Any = int(last) if isinstance(at, list) else last
        if operation["op"] == "remove":
            del at[key]
        elif operation["op"] == "add":
            at.insert(key, operation["value"])
        else:
            assert at[key] != operation["value"], "this changes nothing"
            at[key] = operation["value"]
    return made


class Receiver:
    """A party in the state before an exchange of the session 'three'; ``give`` is the exchange."""

    def __init__(self, scripts: dict[str, Any], case: dict[str, Any]) -> None:
        self.parse, self.case = scripts["message"], case
        session = SESSIONS[case["session"]]
        sealed = {f"{p['dealer']} to {p['recipient']}": {n: p[n] for n in ("ciphertext", "envelope") if p[n]}
                  for p in session["parcels"]}  # fmt: skip
        self.cast, self.exchange, self.site = (
            scripts["Cast"](session["name"], sealed),
            case["exchange"],
            case["receiver"],
        )
        honest = lambda exchange: scripts["honest_input"](session, exchange, self.site)  # noqa: E731
        if self.exchange in ("S2", "S3", "end of set-up"):
            self.setup = self.cast.setup(self.site)
            self.setup.keys()
            for exchange in ("S2", "S3", "end of set-up")[: ("S2", "S3", "end of set-up").index(self.exchange)]:
                self._set_up(exchange, honest(exchange))
            return
        self.desk, ready, _ = self.cast.play()
        attempt = session["attempts"][0]
        if self.site == "coordinator":
            self._collect(attempt)
            return
        self.player = SitePlayer(ready[self.site])
        for exchange in ("R1", "R2", "R3")[: ("R1", "R2", "R3").index(self.exchange)]:
            self._play(exchange, honest(exchange))

    def give(self, data: dict[str, Any]) -> None:
        if self.site == "coordinator":
            self._add(data)
        elif self.exchange in ("R1", "R2", "R3"):
            self._play(self.exchange, data)
        else:
            self._set_up(self.exchange, data)

    def _all(self, kind: type, data: list[Any]) -> tuple[Any, ...]:
        return tuple(self.parse(kind, each) for each in data)

    def _set_up(self, exchange: str, data: dict[str, Any]) -> None:
        if exchange == "S2":
            self.cast.deal(self.setup, self.site, self._all(Keys, data["keys"]))
        elif exchange == "S3":
            self.setup.agree(self._all(Deal, data["deals"]), self._all(Parcel, data["parcels"]))
        else:
            self.setup.begin(self._all(Agreement, data["agreements"]))

    def _play(self, exchange: str, data: dict[str, Any]) -> None:
        proposal = self.parse(Proposal, data["proposal"])
        if exchange == "R1":
            self.player.mask(proposal, data["model_hash"], np.array(data["values"], np.int64))
        elif exchange == "R2":
            self.player.consent(proposal, self.parse(Survivors, data["survivors"]))
        else:
            self.player.open(proposal, self._all(Consent, data["consents"]))

    def _collect(self, attempt: dict[str, Any]) -> None:
        proposal = self.parse(Proposal, {k: v for k, v in attempt["proposal"].items() if k != "hash"})
        self.table = AttemptDesk(self.desk, proposal)
        if self.exchange == "R1 answer":
            return
        for answer in attempt["uploads"].values():
            self._add({"upload": answer["message"], "vector": answer["vector"]})
        for message in attempt["consents"] if self.exchange == "R3 answer" else ():
            self._add({"consent": message})

    def _add(self, data: dict[str, Any]) -> None:
        if "upload" in data:
            vector = np.frombuffer(bytes.fromhex(data["vector"]), "<u4")
            self.table.add_upload(self.parse(Upload, data["upload"]), vector)
        elif "consent" in data:
            self.table.survivors()
            self.table.add_consent(self.parse(Consent, data["consent"]))
        else:
            self.table.add_opening(self.parse(Opening, data["opening"]))


@pytest.mark.parametrize("case", VECTORS["refused"], ids=lambda case: f"{case['exchange']}: {case['what']}")
def test_what_is_bent_is_refused_by_name_and_the_honest_message_is_taken(scripts: dict[str, Any], case: Any) -> None:
    honest = scripts["honest_input"](SESSIONS[case["session"]], case["exchange"], case["receiver"], case["sender"])
    Receiver(scripts, case).give(honest)
    with pytest.raises(ProtocolViolation if case["blames"] else UsageError) as refusal:
        Receiver(scripts, case).give(patched(honest, case["change"]))
    if case["blames"]:
        assert refusal.value.site == case["blames"]
