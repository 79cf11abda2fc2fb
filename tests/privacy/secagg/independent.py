"""Secure aggregation a second time, as docs/secure-aggregation.md says: slow, plain, without a line of Wardround.

Shamir by polynomial evaluation and interpolation in GF(2^8) with carry-less multiplication; the key stream by
encrypting counters one block at a time; HKDF by HMAC; HPKE and its hybrid KEM (X-Wing) step by step from RFC 9180 and
draft-connolly-cfrg-xwing-kem; sums in Python's integers.
"""

import hashlib
import hmac
import json
import math
from typing import Any

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

LABEL = b"wardround/secagg/1"
SUITE = b"HPKE" + bytes.fromhex("647a 0001 0002")  # MLKEM768-X25519, HKDF-SHA256, AES-256-GCM
XWING = b"\\.//^\\"


def drawn(name: str, *sizes: int) -> list[bytes]:
    """SHAKE-256 of a name, cut into pieces: what stands for a site's randomness in the vectors."""
    data = hashlib.shake_256(name.encode()).digest(sum(sizes))
    return [data[sum(sizes[:k]) :][:size] for k, size in enumerate(sizes)]


def canonical(value: Any) -> bytes:
    """RFC 8785 for what the protocol uses: no number but integers, no character outside the first plane."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def h(*parts: bytes) -> bytes:
    return hashlib.sha256(LABEL + b"\0" + b"".join(len(part).to_bytes(8, "big") + part for part in parts)).digest()


def hash_of(value: Any) -> str:
    return h(canonical(value)).hex()


def signed_bytes(header: Any) -> bytes:
    return LABEL + b"\0" + canonical(header)


def message_hash(header: Any) -> str:
    return h(signed_bytes(header)).hex()


def derive(secret: bytes, about: list[str], salt: bytes = b"") -> bytes:
    """HKDF-SHA256 (RFC 5869), one block."""
    extracted = hmac.digest(salt or bytes(32), secret, "sha256")
    return hmac.digest(extracted, LABEL + b"\0" + canonical(about) + b"\1", "sha256")


def stream(key: bytes, size: int) -> bytes:
    """AES-256 of the counters 0, 1, 2, ..., 16 bytes big-endian each."""
    cipher = Cipher(AES(key), ECB()).encryptor()
    blocks = (cipher.update(counter.to_bytes(16, "big")) for counter in range(-(-size // 16)))
    return b"".join(blocks)[:size]


def residues(key: bytes, bits: int, length: int) -> list[int]:
    width = bits // 8
    data = stream(key, width * length)
    return [int.from_bytes(data[at : at + width], "little") for at in range(0, len(data), width)]


def steps(bits: int, parties: int, ranges: list[tuple[int, float]]) -> list[float]:
    """What a unit is worth at each value, in double precision as the page says."""
    limit = (2 ** (bits - 1) - 1) // parties
    return [2.0 ** math.ceil(math.log2(bound / limit)) for length, bound in ranges for _ in range(length)]


def quantised(reals: list[float], each: list[float], bits: int, parties: int, key: bytes) -> list[int]:
    """floor(x / step + u), u from the key; ValueError for what no summand may be."""
    limit = (2 ** (bits - 1) - 1) // parties
    chances = residues(key, 32, len(each))
    if not all(math.isfinite(x) for x in reals):
        raise ValueError("a value that is not finite")
    found = [math.floor(x / step + u / 2.0**32) for x, step, u in zip(reals, each, chances, strict=True)]
    if any(abs(value) > limit for value in found):
        raise ValueError("a value beyond the limit")
    return found


def times(a: int, b: int) -> int:
    """In GF(2^8) modulo x^8 + x^4 + x^3 + x + 1."""
    product = 0
    for bit in range(8):
        if b >> bit & 1:
            product ^= a << bit
    for bit in range(14, 7, -1):
        if product >> bit & 1:
            product ^= 0x11B << (bit - 8)
    return product


def inverse(a: int) -> int:
    return next(b for b in range(1, 256) if times(a, b) == 1)


def share(secret: bytes, coefficients: list[bytes], number: int) -> bytes:
    """The secret plus coefficient k times number^(k + 1), byte by byte."""
    value, power = list(secret), 1
    for each in coefficients:
        power = times(power, number)
        value = [old ^ times(byte, power) for old, byte in zip(value, each, strict=True)]
    return bytes(value)


def reconstruct(shares: dict[int, bytes]) -> bytes:
    """Lagrange at 0."""
    secret = bytes(len(next(iter(shares.values()))))
    for number, value in shares.items():
        factor = 1
        for other in shares:
            if other != number:
                factor = times(factor, times(other, inverse(other ^ number)))
        secret = bytes(old ^ times(byte, factor) for old, byte in zip(secret, value, strict=True))
    return secret


def keys_header(message: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "keys", **{name: message[name] for name in ("session", "site", "nonce", "x25519", "mlkem")}}


def transcript(keys: list[dict[str, Any]]) -> str:
    return hash_of([[message_hash(keys_header(message)), message["signature"]] for message in keys])


def parcel_hash(parcel: dict[str, Any]) -> str:
    hexed = [bytes.fromhex(parcel[name]) for name in ("ciphertext", "envelope", "commitments")]
    return h(b"parcel", parcel["dealer"].encode(), parcel["recipient"].encode(), *hexed).hex()


def commitment(session: str, dealer: str, recipient: str, number: int, salt: bytes, value: bytes) -> bytes:
    words = (session.encode(), dealer.encode(), recipient.encode())
    return h(b"share", *words, number.to_bytes(4, "big"), salt, value)


def envelope_info(about: list[str]) -> bytes:
    return LABEL + b"\0" + canonical(["shares", *about])


def open_envelope(private: dict[str, str], envelope: str, about: list[str]) -> bytes:
    """HPKE (RFC 9180), base mode: encapsulated key (1120 bytes), then what AES-256-GCM made."""
    sealed, own = bytes.fromhex(envelope), x25519(private)
    lattice, point, content = sealed[:1088], sealed[1088:1120], sealed[1120:]
    secrets = mlkem(private).decapsulate(lattice) + own.exchange(X25519PublicKey.from_public_bytes(point))
    shared = hashlib.sha3_256(secrets + point + own.public_key().public_bytes_raw() + XWING).digest()
    context = b"\0" + _extract(b"", b"psk_id_hash", b"") + _extract(b"", b"info_hash", envelope_info(about))
    secret = _extract(shared, b"secret", b"")
    key, nonce = _expand(secret, b"key", context, 32), _expand(secret, b"base_nonce", context, 12)
    return AESGCM(key).decrypt(nonce, content, b"")


def _extract(salt: bytes, label: bytes, material: bytes) -> bytes:
    """LabeledExtract of RFC 9180, section 4."""
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + SUITE + label + material, "sha256")


def _expand(secret: bytes, label: bytes, context: bytes, size: int) -> bytes:
    """LabeledExpand of RFC 9180, section 4, one block."""
    info = size.to_bytes(2, "big") + b"HPKE-v1" + SUITE + label + context
    return hmac.digest(secret, info + b"\1", "sha256")[:size]


def mlkem(private: dict[str, str]) -> MLKEM768PrivateKey:
    return MLKEM768PrivateKey.from_seed_bytes(bytes.fromhex(private["mlkem768_seed"]))


def x25519(private: dict[str, str]) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(bytes.fromhex(private["x25519"]))


def pair_secret(
    low: str, high: str, private: dict[str, Any], keys: dict[str, Any], ciphertext: str, seen: str
) -> bytes:
    """As the site of the higher number computes it."""
    public = X25519PublicKey.from_public_bytes(bytes.fromhex(keys[low]["x25519"]))
    agreed = x25519(private[high]).exchange(public) + mlkem(private[high]).decapsulate(bytes.fromhex(ciphertext))
    return derive(agreed, ["pair", low, high], bytes.fromhex(seen))


def proposal_header(proposal: dict[str, Any]) -> dict[str, Any]:
    names = {"round": "round_number", "model": "model_hash"}
    fields = ("session", "round", "attempt", "participants", "model", "vector")
    return {"kind": "proposal", **{name: proposal[names.get(name, name)] for name in fields}}


def proposal_hash(proposal: dict[str, Any]) -> str:
    return hash_of(proposal_header(proposal))


def survivors_header(survivors: dict[str, Any]) -> dict[str, Any]:
    uploads = [[upload["site"], upload["content"]] for upload in survivors["uploads"]]
    return {"kind": "survivors", "proposal": survivors["proposal"], "uploads": uploads}


def survivors_hash(survivors: dict[str, Any]) -> str:
    return hash_of(survivors_header(survivors))


def masked(values: list[int], bits: int, own: bytes, pairs: list[tuple[bytes, int]]) -> bytes:
    """values + PRG(own) + or - PRG(pair), little-endian."""
    total = list(values)
    for key, sign in [(own, 1), *pairs]:
        total = [old + sign * mask for old, mask in zip(total, residues(key, bits, len(values)), strict=True)]
    return b"".join((value % 2**bits).to_bytes(bits // 8, "little") for value in total)


def frame(header: dict[str, Any], vector: bytes) -> bytes:
    """What a site puts on the wire."""
    text = canonical(header)
    return len(text).to_bytes(4, "big") + text + vector
