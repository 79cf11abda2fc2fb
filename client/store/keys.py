"""Keys as files: made once, readable by their owner only, never overwritten.

A site's own key is a PEM of PKCS #8 (RFC 5958), not encrypted, because the daemon starts without a person. An officer's
key is sealed with a passphrase by what every browser has too: PBKDF2-HMAC-SHA256 (RFC 8018) and AES-256-GCM.
"""

import os
import stat
from pathlib import Path
from typing import Final, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wardround.protocol.canonical import encode
from wardround.protocol.errors import Unavailable, UsageError
from wardround.protocol.identity import Identity, PublicIdentity, SiteId
from wardround.protocol.ledger import Hex32

ITERATIONS: Final = 600_000
MIN_PASSPHRASE: Final = 10
"""Characters."""


class OfficerCard(BaseModel):
    """What an officer gives to a site: name and public key, as JSON in a file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["wardround/officer/1"] = "wardround/officer/1"
    officer: SiteId
    key: Hex32


class _SealedKey(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["wardround/officer-key/1"] = "wardround/officer-key/1"
    officer: SiteId
    key: Hex32
    kdf: Literal["PBKDF2-HMAC-SHA256"] = "PBKDF2-HMAC-SHA256"
    iterations: int = Field(ge=ITERATIONS, le=100 * ITERATIONS)
    salt: Hex32
    nonce: str = Field(pattern=r"^[0-9a-f]{24}$")
    sealed: str = Field(pattern=r"^[0-9a-f]{96}$", description="AES-256-GCM over the 32 bytes of the private key")

    @property
    def about(self) -> bytes:
        """The associated data: every other field."""
        return encode(self.model_dump(mode="json", exclude={"sealed"}))


def write_secret(path: Path, data: bytes) -> None:
    """A new file with mode 0600, on disk when this returns. Raises UsageError when it exists, Unavailable otherwise."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise UsageError(f"'{path}' exists already", "a key is never overwritten: choose another name") from None
    except OSError as error:
        raise Unavailable(f"'{path}' cannot be written: {error.strerror}", "check the folder and the disk") from error


def read_secret(path: Path) -> bytes:
    """A key file's bytes. Raises UsageError when others may read it, Unavailable when it cannot be read."""
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise UsageError(f"others may read the key '{path}'", f"run: chmod 600 {path}")
        return path.read_bytes()
    except OSError as error:
        raise Unavailable(f"the key '{path}' cannot be read: {error.strerror}", "check the path") from error


def write_site_key(path: Path, identity: Identity) -> None:
    """Write a site's private key."""
    write_secret(path, identity.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def read_site_key(path: Path, site: str) -> Identity:
    """The private key of ``site`` in ``path``. Raises UsageError when it is no such key."""
    try:
        key = load_pem_private_key(read_secret(path), None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"'{path}' is no Ed25519 key", "restore the key from the site's backup")
    return Identity(site, key)


def write_officer_key(path: Path, officer: Identity, passphrase: str) -> None:
    """Write an officer's private key, sealed with ``passphrase``. Raises UsageError when that is too short."""
    if len(passphrase) < MIN_PASSPHRASE:
        raise UsageError("the passphrase is too short", f"use at least {MIN_PASSPHRASE} characters, or a few words")
    salt, nonce = os.urandom(32), os.urandom(12)
    file = _SealedKey(
        officer=officer.site,
        key=officer.public.key.hex(),
        iterations=ITERATIONS,
        salt=salt.hex(),
        nonce=nonce.hex(),
        sealed="00" * 48,
    )
    secret = officer.private.private_bytes_raw()
    sealed = AESGCM(_derived(passphrase, salt, ITERATIONS)).encrypt(nonce, secret, file.about)
    write_secret(path, file.model_copy(update={"sealed": sealed.hex()}).model_dump_json(indent=2).encode() + b"\n")


def read_officer_key(path: Path, passphrase: str) -> Identity:
    """The officer whose private key is in ``path``. Raises UsageError for a wrong passphrase or another file."""
    try:
        file = _SealedKey.model_validate_json(read_secret(path))
    except ValidationError:
        raise UsageError(f"'{path}' is no officer's key", "name the .key file that 'officer init' made") from None
    cipher = AESGCM(_derived(passphrase, bytes.fromhex(file.salt), file.iterations))
    try:
        secret = cipher.decrypt(bytes.fromhex(file.nonce), bytes.fromhex(file.sealed), file.about)
    except InvalidTag:
        raise UsageError(f"the key '{path}' cannot be opened", "check the passphrase") from None
    officer = Identity(file.officer, Ed25519PrivateKey.from_private_bytes(secret))
    if officer.public.key.hex() != file.key:
        raise UsageError(f"'{path}' holds another key than it names", "make a new key with 'officer init'")
    return officer


def read_officer_card(path: Path) -> PublicIdentity:
    """Name and public key of an officer. Raises UsageError when the file is no card, Unavailable when unreadable."""
    try:
        card = OfficerCard.model_validate_json(path.read_bytes())
    except OSError as error:
        raise Unavailable(f"'{path}' cannot be read: {error.strerror}", "check the path") from error
    except ValidationError:
        raise UsageError(f"'{path}' is no officer's card", "name the .pub file that 'officer init' made") from None
    return PublicIdentity(card.officer, bytes.fromhex(card.key))


def read_public_key(text: str) -> bytes:
    """The 32 bytes of a public key in hex. Raises UsageError for anything else."""
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise UsageError("the public key is not 64 hex digits", "give it as 'wardround ledger verify --json' prints it")
    return key


def fingerprint(key: bytes) -> str:
    """A public key as people compare it by telephone: eight groups of four hex digits of its SHA-256."""
    from hashlib import sha256

    text = sha256(key).hexdigest()[:32]
    return " ".join(text[i : i + 4] for i in range(0, 32, 4))


def _derived(passphrase: str, salt: bytes, iterations: int) -> bytes:
    return PBKDF2HMAC(SHA256(), 32, salt, iterations).derive(passphrase.encode())
