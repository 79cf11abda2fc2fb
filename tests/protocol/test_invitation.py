"""An invitation's code, and the proof that a site holds it, both rebuilt here with the standard library."""

import base64
import hashlib
import hmac
import json
import string
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import ValidationError

from wardround.client.store.keys import fingerprint
from wardround.protocol.errors import UsageError
from wardround.protocol.invitation import Invitation, JoinRequest, address, check_host, key_fingerprint, proof_key

EXPIRES = datetime(2026, 12, 1, 12, 30, tzinfo=UTC)
FIELDS: dict[str, Any] = {
    "v": 1, "site": "north", "host": "hub.example.org", "port": 8443, "secret": "0f" * 16, "ca": "ab" * 32,
    "expires": "2026-12-01T12:30:00Z",
}  # fmt: skip
NODE_KEY = (
    ec.generate_private_key(ec.SECP384R1()).public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
)


def coded(**changes: Any) -> str:
    """A code made without our encoder; these values sort and print alike in both."""
    body = json.dumps(FIELDS | changes, sort_keys=True, separators=(",", ":"))
    return base64.urlsafe_b64encode(body.encode()).decode().rstrip("=")


def test_a_code_is_base64url_over_the_canonical_json() -> None:
    invitation = Invitation.parse(coded())
    assert invitation == Invitation(
        site="north", host="hub.example.org", port=8443, secret="0f" * 16, ca="ab" * 32, expires=EXPIRES
    )
    assert invitation.encode() == coded()
    assert invitation.superlink == "hub.example.org:8443"


def test_what_a_mail_does_to_a_long_line_does_not_matter() -> None:
    code = coded()
    assert Invitation.parse(f"  {code[:70]}\r\n{code[70:140]}\n {code[140:]}\n").encode() == code


@pytest.mark.parametrize(
    "changes",
    [
        {"v": 2},
        {"site": "North"},
        {"site": "coordinator"},
        {"host": "hub.example.org/x"},
        {"host": "user@hub.example.org"},
        {"host": "HUB.example.org"},
        {"host": "10.1"},
        {"host": ""},
        {"port": 0},
        {"port": 65536},
        {"secret": "0f" * 15},
        {"secret": "0F" * 16},
        {"ca": "ab" * 31},
        {"expires": "2026-12-01T12:30:00"},
        {"expires": "2026-12-01T13:30:00+01:00"},
        {"expires": "2026-12-01T12:30:00.5Z"},
        {"more": 1},
    ],
)
def test_a_code_with_a_wrong_or_an_unknown_field_is_none(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="no invitation code"):
        Invitation.parse(coded(**changes))


@pytest.mark.parametrize(
    "text", ["", "   ", "ü" * 20, "not a code", "e30", "a" * 3000, coded()[:-1], coded()[4:], "=="]
)
def test_what_is_no_code_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(UsageError, match="invitation code"):
        Invitation.parse(text)


def test_other_bytes_for_the_same_invitation_are_refused() -> None:
    spaced = base64.urlsafe_b64encode(json.dumps(FIELDS).encode()).decode().rstrip("=")
    for text in (spaced, coded() + "!", coded().replace("e", "e*", 1), coded(expires="2026-12-01T12:30:00+00:00")):
        with pytest.raises(UsageError, match="invitation code"):
            Invitation.parse(text)


def test_no_changed_character_gives_the_same_invitation() -> None:
    code, good = coded(), Invitation.parse(coded())
    understood = 0
    for place, letter in enumerate(code):
        other = string.ascii_letters[(string.ascii_letters.find(letter) + 7) % 52]
        try:
            assert Invitation.parse(code[:place] + other + code[place + 1 :]) != good
            understood += 1
        except UsageError:
            continue
    # Changes inside the secret or the hash are understood: the coordinator and the CA refuse those.
    assert 0 < understood < len(code) / 2


def test_an_invitation_ends_at_its_second() -> None:
    invitation = Invitation.parse(coded())
    assert not invitation.expired(EXPIRES - timedelta(seconds=1))
    assert invitation.expired(EXPIRES) and invitation.expired(EXPIRES + timedelta(days=1))
    assert invitation.expired(EXPIRES.astimezone(timezone(timedelta(hours=-5))))


def test_a_proof_is_an_hmac_over_name_and_keys() -> None:
    secret, identity = bytes.fromhex("0f" * 16), bytes(range(32))
    # proof_key: SHA-256(label || 0 || L("secret") || "secret" || L(secret) || secret), lengths of 8 bytes.
    label = b"wardround/invitation/1\x00"
    body = label + (6).to_bytes(8, "big") + b"secret" + (16).to_bytes(8, "big") + secret
    key = hashlib.sha256(body).digest()
    assert proof_key(secret) == key == Invitation.parse(coded()).proof_key
    said = json.dumps(
        {"identity_key": identity.hex(), "node_key": NODE_KEY, "site": "north"}, separators=(",", ":"), sort_keys=True
    )
    request = JoinRequest.made(key, "north", identity, NODE_KEY)
    assert request.secret_proof == hmac.new(key, label + said.encode(), "sha256").hexdigest()
    assert request.proves(key)


@pytest.mark.parametrize(
    "change",
    [
        {"site": "south"},
        {"identity_key": "11" * 32},
        {"node_key": NODE_KEY[:60] + ("A" if NODE_KEY[60] != "A" else "B") + NODE_KEY[61:]},
        {"secret_proof": "00" * 32},
    ],
)
def test_a_proof_holds_for_one_name_and_one_pair_of_keys(change: dict[str, str]) -> None:
    key = proof_key(bytes(16))
    request = JoinRequest.made(key, "north", bytes(32), NODE_KEY)
    assert request.proves(key) and not request.proves(proof_key(bytes(15) + b"\x01"))
    assert not request.model_copy(update=change).proves(key)


def test_the_secret_is_neither_printed_nor_sent() -> None:
    invitation = Invitation.parse(coded())
    request = JoinRequest.made(invitation.proof_key, "north", bytes(32), NODE_KEY)
    part = "0f" * 6  # of the secret; four digits are in the request's random ones once in some hundred runs
    assert part in invitation.secret
    assert part not in repr(invitation) and part not in request.model_dump_json()


@pytest.mark.parametrize(
    "node_key",
    [NODE_KEY + " comment", NODE_KEY + "\n", NODE_KEY[:-1], "ssh-ed25519 " + NODE_KEY.split()[1], " " + NODE_KEY],
)
def test_a_node_key_is_one_p384_line_and_nothing_else(node_key: str) -> None:
    with pytest.raises(ValidationError):
        JoinRequest.made(bytes(32), "north", bytes(32), node_key)


def test_a_fingerprint_is_the_one_that_a_site_prints() -> None:
    assert key_fingerprint(bytes(32)) == fingerprint(bytes(32)) == "6668 7aad f862 bd77 6c8f c18b 8e9f 8e20"


def test_hosts_are_names_or_addresses() -> None:
    for good in ("a.example.org", "localhost", "192.0.2.7", "2001:db8::1", "x-1.example.org"):
        assert check_host(good) == good
    for bad in ("a..b", "-a.example.org", "a_b.example.org", "a b", "x" * 254, "192.0.2", "example.org."):
        with pytest.raises(ValueError, match="neither"):
            check_host(bad)
    assert address("2001:db8::1", 443) == "[2001:db8::1]:443"
