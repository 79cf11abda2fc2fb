"""The vectors of secure aggregation: made again by the code, and checked by a second implementation."""

import ast
import copy
import json
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from wardround.privacy.secagg.quantize import Quantizer
from wardround.privacy.secagg.ring import Ring
from wardround.protocol.errors import UsageError

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
FILE = ROOT / "tests" / "vectors" / "secagg.json"
VECTORS: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
SESSIONS = {session["name"]: session for session in VECTORS["sessions"]}
second: dict[str, Any] = runpy.run_path(str(HERE / "independent.py"))


@pytest.fixture(scope="module")
def scripts() -> dict[str, Any]:
    """What makes the file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "scripts"))
        return runpy.run_path(str(ROOT / "scripts" / "secagg_vectors.py"))


def test_the_code_makes_this_file_again(scripts: dict[str, Any]) -> None:
    made = scripts["make"](copy.deepcopy(VECTORS))
    assert [name for name in VECTORS if made[name] != VECTORS[name]] == []


@pytest.mark.parametrize(
    ("path", "code"),
    [("", 0), ("sessions/1/attempts/0/consents/0/signature", 1), ("sessions/0/parcels/1/envelope", 1)],
)
def test_check_says_whether_the_file_would_come_out_the_same(
    scripts: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, code: int
) -> None:
    vectors, file = copy.deepcopy(VECTORS), tmp_path / "secagg.json"
    if path:
        flip(vectors, path.split("/"))
    file.write_text(json.dumps(vectors), encoding="utf-8")
    before = file.read_bytes()
    monkeypatch.setitem(scripts["main"].__globals__, "FILE", file)
    monkeypatch.setattr(sys, "argv", ["secagg_vectors.py", "--check"])
    assert scripts["main"]() == code
    assert file.read_bytes() == before


def flip(document: Any, way: list[str]) -> None:
    """Change the lowest bit of the first byte of what stands at the end of ``way`` as hex digits."""
    *steps, last = [int(step) if step.isdigit() else step for step in way]
    for step in steps:
        document = document[step]
    text = document[last]
    document[last] = f"{int(text[:2], 16) ^ 1:02x}{text[2:]}"


def check_primitives(given: dict[str, Any]) -> None:
    # Floats and other characters: beyond what the second implementation's canonical form needs to know.
    assert given["hash"]["hash"] == second["h"]('{"a":null,"b":[1,2.5,"é"]}'.encode()).hex()
    for each in given["signed"]:
        assert each["bytes"] == second["signed_bytes"](each["header"]).hex()
        assert each["hash_of_header"] == second["hash_of"](each["header"])
        assert each["hash_of_message"] == second["message_hash"](each["header"])
    for each in given["derived"]:
        assert each["key"] == second["derive"](bytes.fromhex(each["secret"]), each["about"]).hex()
    check_share(given["share"], SESSIONS["three"])
    shamir = given["shamir"]
    secret, drawn = bytes.fromhex(shamir["secret"]), bytes.fromhex(shamir["coefficients"])
    made = [second["share"](secret, [drawn[:32], drawn[32:]], number).hex() for number in range(1, 6)]
    assert made == shamir["shares"]
    shares = {number: bytes.fromhex(shamir["shares"][number - 1]) for number in (2, 3, 5)}
    assert second["reconstruct"](shares) == secret
    key, raw = bytes.fromhex(given["stream"]["key"]), bytes.fromhex(given["stream"]["first_48_bytes"])
    assert second["stream"](key, 48) == raw
    assert second["residues"](key, 32, 12) == given["stream"]["residues_32"]
    assert second["residues"](key, 64, 6) == given["stream"]["residues_64"]
    own = second["x25519"]({"x25519": given["x25519"]["private"]})
    assert own.public_key().public_bytes_raw().hex() == given["x25519"]["public"]
    for each in given["quantisation"]:
        check_quantisation(each)
    for each in given["frames"]:
        check_frame(each, SESSIONS["three"])


def check_share(given: dict[str, Any], session: dict[str, Any]) -> None:
    ends = given["dealer"], given["recipient"]
    parcel = next(each for each in session["parcels"] if (each["dealer"], each["recipient"]) == ends)
    about = [session["digest"], session["transcript"], *ends]
    assert given["info"] == second["envelope_info"](about).hex()
    assert given["content"] == second["open_envelope"](session["private"][ends[1]], parcel["envelope"], about).hex()
    salt, value = bytes.fromhex(given["salt"]), bytes.fromhex(given["share"])
    assert given["content"][96 * given["number"] :][:96] == given["salt"] + given["share"]
    made = second["commitment"](session["digest"], *ends, given["number"], salt, value).hex()
    assert made == given["commitment"] == parcel["commitments"][64 * given["number"] :][:64]
    assert given["hash_of_parcel"] == second["parcel_hash"](parcel)


def check_quantisation(given: dict[str, Any]) -> None:
    bits, parties, key = given["bits"], given["parties"], bytes.fromhex(given["rounding_key"])
    assert given["limit"] == (2 ** (bits - 1) - 1) // parties
    assert given["steps"] == second["steps"](bits, parties, given["ranges"])
    assert given["integers"] == second["quantised"](given["reals"], given["steps"], bits, parties, key)
    for bent in given["refused"]:
        with pytest.raises(ValueError, match="a value"):
            second["quantised"]([float(value) for value in bent], given["steps"], bits, parties, key)


def check_frame(given: dict[str, Any], session: dict[str, Any]) -> None:
    attempt = session["attempts"][0]
    proposal, answer = attempt["proposal"], attempt["uploads"]["aarau"]
    parcels = [parcel for parcel in session["parcels"] if parcel["dealer"] == "aarau"]
    header, vector = {
        "deal": ({"kind": "Deal", "message": session["deals"][0], "parcels": parcels}, ""),
        "consent": ({"kind": "Consent", "message": attempt["consents"][0], "parcels": []}, ""),
        "upload": (
            {"site": "aarau", "plan": session["session"]["plan"], "round_number": 1, "attempt": 1, "refused": None}
            | {"model_hash": proposal["model_hash"], "masked": answer["message"], "bits": 32},
            answer["vector"],
        ),
    }[given["what"]]
    made = second["frame"](header, bytes.fromhex(vector))
    assert second["hashlib"].sha256(made).hexdigest() == given["sha256"]
    assert made[:4].hex() == given["length"]
    if "header" in given:
        assert made == bytes.fromhex(given["length"]) + given["header"].encode() + bytes.fromhex(given["vector"])


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
    check_drawn(session, names)
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
        for enough in (list(found.items())[: about["threshold"]], list(found.items())[-about["threshold"] :]):
            assert second["reconstruct"](dict(enough)).hex() == session["own_secrets"][dealer][slot]
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


def check_drawn(session: dict[str, Any], names: list[str]) -> None:
    """What each site drew, in the order of the page: keys, nonce, secrets, coefficients, a salt for each share."""
    about, keys = session["session"], {message["site"]: message for message in session["keys"]}
    stock, t = len(about["rounds"]) * about["attempts"], about["threshold"]
    for site in names:
        drawn = second["drawn"](f"{session['name']} {site}", 96, 32, 32 * stock, 32 * stock * (t - 1),
                                *[16 * stock] * len(names))  # fmt: skip
        own, private = drawn[0].hex(), session["private"][site]
        assert own == private["x25519"] + private["mlkem768_seed"]
        assert drawn[1].hex() == keys[site]["nonce"]
        assert drawn[2].hex() == "".join(session["own_secrets"][site].values())
        coefficients = [drawn[3][32 * stock * power :][: 32 * stock] for power in range(t - 1)]
        for number, (recipient, salts) in enumerate(zip(names, drawn[4:], strict=True), start=1):
            value = second["share"](drawn[2], coefficients, number)
            parcel = next(p for p in session["parcels"] if (p["dealer"], p["recipient"]) == (site, recipient))
            made = [
                second["commitment"](session["digest"], site, recipient, k, salts[16 * k :][:16], value[32 * k :][:32])
                for k in range(stock)
            ]
            assert b"".join(made).hex() == parcel["commitments"]


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
        (check_primitives, "hash/hash"),
        (check_primitives, "signed/2/bytes"),
        (check_primitives, "signed/5/hash_of_message"),
        (check_primitives, "derived/1/key"),
        (check_primitives, "share/info"),
        (check_primitives, "share/salt"),
        (check_primitives, "share/commitment"),
        (check_primitives, "shamir/coefficients"),
        (check_primitives, "shamir/shares/4"),
        (check_primitives, "stream/first_48_bytes"),
        (check_primitives, "x25519/public"),
        (check_primitives, "quantisation/1/rounding_key"),
        (check_primitives, "frames/0/sha256"),
        (check_primitives, "frames/2/vector"),
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
def test_one_changed_byte_in_the_file_is_found(check: Any, path: str) -> None:
    session = copy.deepcopy(SESSIONS["three"])
    part = {check_primitives: copy.deepcopy(VECTORS["primitives"]), check_set_up: session}.get(check)
    part = session["attempts"][0] if part is None else part
    flip(part, path.split("/") if not path.startswith("own_secrets") else ["own_secrets", "cork", "1/1"])
    with pytest.raises((AssertionError, InvalidSignature, InvalidTag)):
        check(session, part) if check is check_attempt else check(part)


@pytest.mark.parametrize("place", range(6))
def test_one_changed_integer_or_total_is_found(place: int) -> None:
    primitives, session = copy.deepcopy(VECTORS["primitives"]), copy.deepcopy(SESSIONS["wide"])
    primitives["quantisation"][1]["integers"][place] += 1
    session["attempts"][0]["total"][place] += 1
    with pytest.raises(AssertionError):
        check_primitives(primitives)
    with pytest.raises(AssertionError):
        check_attempt(session, session["attempts"][0])


@pytest.mark.parametrize("given", VECTORS["primitives"]["quantisation"], ids=lambda given: f"{given['bits']} bits")
def test_what_is_not_finite_or_beyond_its_bound_is_no_integer(given: dict[str, Any]) -> None:
    quantizer = Quantizer(Ring(given["bits"]), given["parties"], tuple((n, bound) for n, bound in given["ranges"]))
    key = bytes.fromhex(given["rounding_key"])
    assert quantizer.quantize(np.array(given["reals"]), key).tolist() == given["integers"]
    for bent in given["refused"]:
        with pytest.raises(UsageError):
            quantizer.quantize(np.array([float(value) for value in bent]), key)


def imported(source: str) -> set[str]:
    """The packages that a module imports, by their first names."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or ".").split(".")[0])
    return found


def test_the_second_implementation_shares_no_code_with_the_first() -> None:
    source = (HERE / "independent.py").read_text(encoding="utf-8")
    assert imported(source) == {"hashlib", "hmac", "json", "math", "typing", "cryptography"}
    assert "hpke" not in source, "not the library's HPKE either: that is the first one's"
    assert "wardround" in imported(source + "\n\ndef late():\n    from wardround.privacy import secagg\n")
