"""The certificates of the public listener (X.509, RFC 5280): the coordinator's own CA, or certificates it was given.

Sites pin the CA and nothing else, so a server certificate can be renewed without a word to them. Bytes go in and out;
``folder`` puts them on disk.
"""

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from ipaddress import ip_address
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from wardround.protocol.errors import UsageError

CA_DAYS: Final = 3650
SERVER_DAYS: Final = 397
"""Browsers refuse more, and some proxies that look into TLS do too."""

WARN_DAYS: Final = 30
"""So many days before its end a certificate should be renewed."""

_BACKDATED: Final = timedelta(days=1)
"""A site whose clock is behind still takes a new certificate."""

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


@dataclass(frozen=True, slots=True)
class Chain:
    """PEM: ``server`` is what the listener sends, its certificate first and the CA's last."""

    server: bytes
    server_key: bytes
    ca: bytes


def own_ca(name: str, now: datetime) -> tuple[bytes, bytes]:
    """A new CA (P-256) for one coordinator: certificate and key, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _named(f"Wardround CA of {name}")
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        _builder(subject, subject, key.public_key(), now, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, SHA256())
    )
    return certificate.public_bytes(Encoding.PEM), _key_pem(key)


def issue(ca: bytes, ca_key: bytes, host: str, now: datetime) -> Chain:
    """A new server certificate (P-256) for ``host``, a DNS name or an IP address, from our own CA.

    Raises:
        UsageError: the CA's key is not that of its certificate, or the CA ends before now.
    """
    authority, signing = _one(ca, "the CA"), _private(ca_key, "the CA's key")
    if not isinstance(signing, ec.EllipticCurvePrivateKey) or _public(signing) != _public(authority):
        raise UsageError("the CA's key is not the key of its certificate", "restore hub/tls from the backup")
    _check_dates(authority, now, "the CA")
    key = ec.generate_private_key(ec.SECP256R1())
    days = min(SERVER_DAYS, (authority.not_valid_after_utc - now).days)
    certificate = (
        _builder(_named(host), authority.subject, key.public_key(), now, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general_name(host)]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()),
            critical=False,
        )
        .sign(signing, SHA256())
    )
    return Chain(certificate.public_bytes(Encoding.PEM) + ca, _key_pem(key), ca)


def given(certificate: bytes, key: bytes, ca: bytes, host: str, now: datetime) -> Chain:
    """The chain to serve from certificates that the operator was given, if a site would take them.

    Args:
        certificate: PEM, the server's certificate first, then those between it and the CA.
        key: PEM, not encrypted, because the coordinator starts without a person.
        ca: PEM of the one certificate that sites will pin.

    Raises:
        UsageError: a file is none, the key is another certificate's, ``host`` is not among the names, it is too early
            or too late, or the certificate does not lead to the CA.
    """
    sent, authority = _several(certificate, "the certificate"), _one(ca, "the CA")
    private = _private(key, "the key")
    leaf = sent[0]
    if _public(private) != _public(leaf):
        raise UsageError("the key is not the key of the certificate", "give the key that the certificate was made for")
    if not _names(leaf, host):
        raise UsageError(
            f"the certificate is not for the host '{host}'",
            "have it made with this host as a subject alternative name; a common name alone does not count",
        )
    _check_dates(leaf, now, "the certificate")
    _check_dates(authority, now, "the CA")
    between = [one for one in sent[1:] if one != authority]
    ordered = [leaf, *between, authority] if leaf != authority else [leaf]
    chain = Chain(
        server=b"".join(one.public_bytes(Encoding.PEM) for one in ordered),
        server_key=_key_pem(private),
        ca=authority.public_bytes(Encoding.PEM),
    )
    return chain


def check_handshake(certificate: str, key: str, ca: bytes, host: str) -> None:
    """Whether a site that pins ``ca`` would take the files at ``certificate`` and ``key``: a TLS handshake in memory.

    Raises:
        UsageError: it would not; the message is OpenSSL's.
    """
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        serving, asking = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        serving.load_cert_chain(certificate, key)
        asking.load_verify_locations(cadata=ca.decode("ascii"))
        server = serving.wrap_bio(to_server, to_client, server_side=True)
        client = asking.wrap_bio(to_client, to_server, server_hostname=host)
        done = {id(client): False, id(server): False}
        for _ in range(8):
            for side in (client, server):
                try:
                    if not done[id(side)]:
                        side.do_handshake()
                        done[id(side)] = True
                except ssl.SSLWantReadError:
                    continue
        if not all(done.values()):
            raise ssl.SSLError(0, "the handshake does not end")
    except ssl.SSLCertVerificationError as error:
        raise _refused(error.verify_message) from None
    except ssl.SSLError as error:
        raise _refused(error.reason or str(error)) from None


def days_left(certificate: bytes, now: datetime) -> int:
    """Days until the first certificate in the PEM ends; below zero when it has ended."""
    return (_several(certificate, "the certificate")[0].not_valid_after_utc - now).days


def ca_hash(ca: bytes) -> str:
    """What an invitation pins: SHA-256 over the DER of the one certificate in the PEM, 64 hex digits."""
    return sha256(_one(ca, "the CA").public_bytes(Encoding.DER)).hexdigest()


def _refused(reason: str) -> UsageError:
    return UsageError(
        f"a site that pins this CA would refuse the certificate: {reason}",
        "give the CA that issued it with --ca, and the certificates between them behind the server's own in its file",
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now.astimezone(UTC) - _BACKDATED)
        .not_valid_after(now.astimezone(UTC) + timedelta(days=days))
    )


def _named(text: str) -> x509.Name:
    # A common name has at most 64 characters (RFC 5280, appendix A.1); nobody checks a host against it.
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _names(certificate: x509.Certificate, host: str) -> bool:
    """Whether ``host`` is one of the certificate's names (RFC 9525): a wildcard stands for one whole label."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    try:
        return ip_address(host) in names.get_values_for_type(x509.IPAddress)
    except ValueError:
        known = {name.lower() for name in names.get_values_for_type(x509.DNSName)}
    first, _, rest = host.lower().partition(".")
    return host.lower() in known or (bool(first) and "." in rest and f"*.{rest}" in known)


def _check_dates(certificate: x509.Certificate, now: datetime, what: str) -> None:
    if now < certificate.not_valid_before_utc:
        begins = certificate.not_valid_before_utc.date()
        raise UsageError(f"{what} is not valid before {begins}", "check this machine's clock")
    if now > certificate.not_valid_after_utc:
        ended = certificate.not_valid_after_utc.date()
        raise UsageError(f"{what} has expired on {ended}", "give one that is valid today")


def _several(pem: bytes, what: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise UsageError(f"{what} is no certificate in PEM form", "a PEM file begins with BEGIN CERTIFICATE") from None


def _one(pem: bytes, what: str) -> x509.Certificate:
    found = _several(pem, what)
    if len(found) != 1:
        raise UsageError(f"{what} is {len(found)} certificates in one file", "give the one that sites shall pin")
    return found[0]


def _private(pem: bytes, what: str) -> PrivateKey:
    try:
        key = load_pem_private_key(pem, None)
    except TypeError:
        raise UsageError(
            f"{what} is sealed with a passphrase", "give it without one: the coordinator starts without a person"
        ) from None
    except ValueError:
        key = None
    if not isinstance(key, PrivateKey):
        raise UsageError(f"{what} is no private key in PEM form", "give an EC, RSA or Ed25519 key")
    return key


def _public(of: PrivateKey | x509.Certificate) -> bytes:
    key = of.public_key()
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _key_pem(key: PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
