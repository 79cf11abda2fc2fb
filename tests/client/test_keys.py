"""Keys and the site's folder: made once, never overwritten, sealed where a person unlocks them, else refused."""

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from wardround.client.store.folder import REPLIES_KEY, SiteFolder
from wardround.client.store.keys import (
    OfficerCard,
    fingerprint,
    read_officer_card,
    read_officer_key,
    read_public_key,
    read_secret,
    read_site_key,
    write_officer_key,
    write_secret,
    write_site_key,
)
from wardround.protocol.canonical import encode
from wardround.protocol.errors import Unavailable, UsageError
from wardround.protocol.identity import Identity

WORDS = "correct horse battery staple"
ANNA, BEN = Identity.generate("anna"), Identity.generate("ben")


def test_a_site_key_comes_back_and_is_its_owners_only(tmp_path: Path) -> None:
    north = Identity.generate("north")
    write_site_key(tmp_path / "site.pem", north)
    assert read_site_key(tmp_path / "site.pem", "north").public == north.public
    assert stat.S_IMODE((tmp_path / "site.pem").stat().st_mode) == 0o600
    with pytest.raises(UsageError, match="exists already"):
        write_site_key(tmp_path / "site.pem", Identity.generate("north"))
    assert read_site_key(tmp_path / "site.pem", "north").public == north.public


def test_another_kind_of_key_or_no_key_is_refused(tmp_path: Path) -> None:
    rsa = generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for number, content in enumerate((rsa, b"", b"-----BEGIN PRIVATE KEY-----\n")):
        write_secret(tmp_path / f"{number}.pem", content)
        with pytest.raises(UsageError, match="no Ed25519 key"):
            read_site_key(tmp_path / f"{number}.pem", "north")
    with pytest.raises(Unavailable, match="cannot be read"):
        read_secret(tmp_path / "nothing")
    with pytest.raises(Unavailable, match="cannot be written"):
        write_secret(tmp_path / "no folder" / "key", b"x")


def test_an_officer_key_opens_with_its_passphrase_only(tmp_path: Path) -> None:
    path = tmp_path / "anna.key"
    write_officer_key(path, ANNA, WORDS)
    assert read_officer_key(path, WORDS).public == ANNA.public
    assert ANNA.private.private_bytes_raw().hex() not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(UsageError, match="cannot be opened"):
        read_officer_key(path, WORDS + " ")
    with pytest.raises(UsageError, match="too short"):
        write_officer_key(tmp_path / "b.key", BEN, "short")
    assert not (tmp_path / "b.key").exists()


def test_the_sealed_key_is_pbkdf2_and_aes_gcm_as_its_file_says(tmp_path: Path) -> None:
    from hashlib import pbkdf2_hmac

    write_officer_key(tmp_path / "anna.key", ANNA, WORDS)
    file = json.loads((tmp_path / "anna.key").read_text())
    key = pbkdf2_hmac("sha256", WORDS.encode(), bytes.fromhex(file["salt"]), file["iterations"], 32)
    sealed = bytes.fromhex(file.pop("sealed"))
    secret = AESGCM(key).decrypt(bytes.fromhex(file["nonce"]), sealed, encode(file))
    assert secret == ANNA.private.private_bytes_raw() and file["iterations"] >= 600_000


@pytest.mark.parametrize("field", ["officer", "key", "salt", "nonce", "sealed", "iterations"])
def test_a_changed_field_of_a_sealed_key_is_noticed(tmp_path: Path, field: str) -> None:
    path = tmp_path / "anna.key"
    write_officer_key(path, ANNA, WORDS)
    file = json.loads(path.read_text())
    changed = {"officer": "mallory", "iterations": file["iterations"] + 1}
    file[field] = changed.get(field) or f"{int(file[field][0], 16) ^ 1:x}" + str(file[field])[1:]
    path.write_text(json.dumps(file))
    with pytest.raises(UsageError):
        read_officer_key(path, WORDS)
    file["iterations"] = 1000
    path.write_text(json.dumps(file))
    with pytest.raises(UsageError, match="no officer's key"):
        read_officer_key(path, WORDS)


def test_a_card_names_an_officer_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "anna.pub"
    path.write_text(OfficerCard(officer="anna", key=ANNA.public.key.hex()).model_dump_json())
    assert read_officer_card(path) == ANNA.public
    for text in ("", "{}", '{"officer":"Anna B.","key":"00"}', path.read_text().replace("{", '{"role":"x",')):
        path.write_text(text)
        with pytest.raises(UsageError, match="no officer's card"):
            read_officer_card(path)
    with pytest.raises(Unavailable):
        read_officer_card(tmp_path / "nothing.pub")


def test_a_fingerprint_is_short_enough_for_the_telephone() -> None:
    # The beginning of SHA-256 of 32 zero bytes, from any other tool: 66687aadf862bd776c8fc18b8e9f8e20...
    assert fingerprint(bytes(32)) == "6668 7aad f862 bd77 6c8f c18b 8e9f 8e20"
    assert read_public_key("00" * 32) == bytes(32)
    for text in ("", "00", "zz" * 32, "00" * 33):
        with pytest.raises(UsageError, match="64 hex digits"):
            read_public_key(text)


def test_a_folder_holds_what_a_site_needs_for_its_owner_only(tmp_path: Path) -> None:
    folder = SiteFolder.create(tmp_path / "north", "north", [ANNA.public, BEN.public])
    again = SiteFolder.open(tmp_path / "north")
    assert again == folder and again.identity().public == folder.identity().public
    assert folder.replies_key() != folder.patients_key() and len(folder.replies_key()) == 32
    for path in [folder.path, *folder.path.rglob("*")]:
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path
    officers = again.ledger().state.officers
    assert officers is not None and set(officers.officers) == {"anna", "ben"}


@pytest.mark.parametrize(
    "officers",
    [[], [ANNA.public, Identity.generate("anna").public], [ANNA.public, type(ANNA.public)("carl", ANNA.public.key)]],
)
def test_officers_need_names_and_keys_of_their_own(tmp_path: Path, officers: list[Any]) -> None:
    with pytest.raises(UsageError, match="different names and different keys"):
        SiteFolder.create(tmp_path / "north", "north", officers)
    assert not (tmp_path / "north").exists()


def test_an_existing_or_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "north").mkdir()
    (tmp_path / "north" / "letter.txt").write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        SiteFolder.create(tmp_path / "north", "north", [ANNA.public])
    assert [path.name for path in (tmp_path / "north").iterdir()] == ["letter.txt"]
    with pytest.raises(UsageError, match="is no site's folder"):
        SiteFolder.open(tmp_path / "north")
    with pytest.raises(Unavailable, match="cannot be made"):
        SiteFolder.create(tmp_path / "nowhere" / "north", "north", [ANNA.public])


def test_the_key_of_the_answers_may_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = SiteFolder.create(tmp_path / "north", "north", [ANNA.public])
    monkeypatch.setenv(REPLIES_KEY, "ab" * 32)
    assert folder.replies_key() == b"\xab" * 32
    for wrong in ("", "ab", "zz" * 32):
        monkeypatch.setenv(REPLIES_KEY, wrong)
        with pytest.raises(UsageError):
            folder.replies_key()
    monkeypatch.delenv(REPLIES_KEY)
    (folder.path / "keys" / "replies.key").unlink()
    write_secret(folder.path / "keys" / "replies.key", b"short")
    with pytest.raises(UsageError, match="5 bytes instead of 32"):
        folder.replies_key()


def test_a_folder_whose_site_key_was_exchanged_opens_no_ledger(tmp_path: Path) -> None:
    folder = SiteFolder.create(tmp_path / "north", "north", [ANNA.public])
    os.remove(folder.path / "keys" / "site.pem")
    write_site_key(folder.path / "keys" / "site.pem", Identity.generate("north"))
    with pytest.raises(UsageError, match="begun with another key"):
        folder.ledger()
