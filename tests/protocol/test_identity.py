"""A site's name and key: RFC 8032, and names that cannot be mistaken."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from wardround.protocol.identity import Identity, PublicIdentity, check_site_id


def test_the_second_example_of_rfc_8032_section_7_1() -> None:
    secret = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    identity = Identity("a", Ed25519PrivateKey.from_private_bytes(secret))
    assert identity.public.key.hex() == "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    assert identity.sign(b"\x72").hex() == (
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )


def test_a_signature_holds_for_its_message_and_its_key_only() -> None:
    one, other = Identity.generate("one"), Identity.generate("other")
    signature = one.sign(b"message")
    assert one.public.verifies(signature, b"message")
    assert not one.public.verifies(signature, b"messagf")
    assert not other.public.verifies(signature, b"message")
    assert not PublicIdentity("one", other.public.key).verifies(signature, b"message")


@pytest.mark.parametrize("name", ["a", "va", "north-2", "x" * 63])
def test_a_site_name_is_short_lower_case_and_plain(name: str) -> None:
    assert check_site_id(name) == name


@pytest.mark.parametrize("name", ["", "A", "2nd", "a b", "a_b", "-a", "x" * 64, "a\n", "\u00e4"])
def test_anything_else_is_no_site_name(name: str) -> None:
    with pytest.raises(ValueError, match="no site name"):
        check_site_id(name)
