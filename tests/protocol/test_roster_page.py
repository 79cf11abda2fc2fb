"""The complete example of docs/roster.md, computed anew from fixed keys, and by hand with hashlib and json."""

import hashlib
import json
import re
from datetime import date
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from wardround.protocol.errors import ProtocolViolation
from wardround.protocol.identity import Identity
from wardround.protocol.roster import Roster, check_first, check_next, session_members

PAGE = Path(__file__).parents[2] / "docs" / "roster.md"

# RFC 8032: section 7.1, tests 1, 2, 3, 1024 and SHA(abc), and section 7.2. Seed and public key; everybody knows them.
KEYS = {
    "north": (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
    ),
    "south": (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
    ),
    "anna": (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
    ),
    "ben": (
        "f5e5767cf153319517630f226876b86c8160cc583bc013744c6bf255f5cc0ee5",
        "278117fc144c72340f67d0f2316e8386ceffbf2b2428c9c51fef7c597f1d426e",
    ),
    "coordinator": (
        "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
    ),
    "carl": (
        "0305334e381af78f141cb666f6199f57bc3495335a256a95bd2a55bf546663f6",
        "dfc9425e4f968f7f0c29f0259cf5f9aed6851c2bb4ad8bfb860cfee0ab248292",
    ),
}


def identity(name: str) -> Identity:
    return Identity(name, Ed25519PrivateKey.from_private_bytes(bytes.fromhex(KEYS[name][0])))


def from_page(text: str) -> Roster:
    """Epoch 1 as the page's YAML describes it, signed by anna and ben."""
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", text, re.M | re.S)
    roster = Roster.model_validate(yaml.safe_load(block) | {"epoch": 1, "previous": None})
    return roster.signed_by(identity("anna")).signed_by(identity("ben"))


def revoked(first: Roster) -> Roster:
    """Epoch 2, without the site south, signed by ben and carl."""
    fields = first.model_dump() | {"epoch": 2, "previous": first.digest, "issued": date(2027, 3, 1), "signatures": {}}
    roster = Roster.model_validate(fields | {"parties": fields["parties"][:1]})
    return roster.signed_by(identity("ben")).signed_by(identity("carl"))


def by_hand(content: str, *officers: str) -> str:
    """The digest of a roster from its bytes, with json and hashlib, and the officers' signatures checked."""
    text = json.loads(content)
    signatures = text.pop("signatures")
    unsigned = json.dumps(text, sort_keys=True, separators=(",", ":")).encode()
    assert set(signatures) == {KEYS[officer][1] for officer in officers}
    for officer in officers:
        public = identity(officer).private.public_key()
        public.verify(bytes.fromhex(signatures[KEYS[officer][1]]), b"wardround/roster/1\x00" + unsigned)
    return hashlib.sha256(b"wardround/roster/1\x00" + len(unsigned).to_bytes(8, "big") + unsigned).hexdigest()


def worked_example(text: str) -> list[str]:
    """The text blocks of the page, in order."""
    first = from_page(text)
    second = revoked(first)
    one, two = first.canonical.decode(), second.canonical.decode()
    assert by_hand(one, "anna", "ben") == first.digest
    assert by_hand(two, "ben", "carl") == second.digest
    return [one, f"{first.digest}\n{first.fingerprint}", two, second.digest]


def fences(text: str) -> list[str]:
    return re.findall(r"^```text\n(.*?)\n```$", text, re.M | re.S)


def test_the_keys_are_those_of_the_rfc() -> None:
    assert {name: identity(name).public.key.hex() for name in KEYS} == {name: pair[1] for name, pair in KEYS.items()}


def test_the_worked_example_of_the_page_is_what_the_code_computes() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert fences(text) == worked_example(text)


def test_a_changed_digit_of_the_worked_example_is_found() -> None:
    text = PAGE.read_text(encoding="utf-8")
    changed = text.replace('"expires":"2027-10-31"', '"expires":"2027-10-30"')
    assert changed != text and fences(changed) != worked_example(changed)


def test_the_example_holds_and_its_second_epoch_revokes_the_site() -> None:
    one, name, two, _ = fences(PAGE.read_text(encoding="utf-8"))
    first, second = (Roster.parse(content.encode(), "coordinator") for content in (one, two))
    check_first(first, name.splitlines()[1])
    check_next(first, second)
    day = date(2027, 3, 1)
    assert [member.site for member in session_members(first, ["north", "south"], day)] == ["north", "south"]
    with pytest.raises(ProtocolViolation, match="names no site 'south'"):
        session_members(second, ["north", "south"], day)
