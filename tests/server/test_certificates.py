"""Certificates of the public listener: our own CA, given ones, renewal. Chains are checked by another verifier too."""

import os
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from wardround.protocol.errors import UsageError
from wardround.server.certificates import Chain, ca_hash, check_handshake, days_left, given, issue, own_ca
from wardround.server.folder import CoordinatorFolder, GivenCertificate

NOW = datetime.now(UTC).replace(microsecond=0)
HOST = "hub.example.org"


def pem(key: Any, passphrase: bytes | None = None) -> bytes:
    sealing = NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase)
    made: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, sealing)
    return made


class Authority:
    """A CA that is not ours, as an operator's institution has one: RSA, with or without one above it."""

    def __init__(self, name: str, above: "Authority | None" = None, days: int = 1000) -> None:
        self.key = rsa.generate_private_key(65537, 2048)
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        signer = above or self
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(signer.name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - timedelta(days=500))
            .not_valid_after(NOW + timedelta(days=days))
            .add_extension(x509.BasicConstraints(True, None), True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), False)
            .sign(signer.key, SHA256())
        )
        self.pem = self.certificate.public_bytes(Encoding.PEM)

    def issue(self, *names: x509.GeneralName, begins: int = -10, ends: int = 90) -> tuple[bytes, bytes]:
        """Certificate and key in PEM; days from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, HOST)]))
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW + timedelta(days=begins))
            .not_valid_after(NOW + timedelta(days=ends))
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
        return builder.sign(self.key, SHA256()).public_bytes(Encoding.PEM), pem(key)


CLINIC = Authority("Clinic Root")
DEPARTMENT = Authority("Clinic Department", CLINIC)


def shake(folder: Path, chain: Chain, host: str = HOST, ca: bytes | None = None) -> None:
    """A handshake with the chain on disk."""
    for name, data in (("c.pem", chain.server), ("k.pem", chain.server_key)):
        (folder / name).write_bytes(data)
    check_handshake(str(folder / "c.pem"), str(folder / "k.pem"), ca or chain.ca, host)


def verified(chain: Chain, host: str, at: datetime = NOW) -> None:
    """The same by the path validation of another library. Raises VerificationError."""
    leaf = x509.load_pem_x509_certificates(chain.server)[0]
    try:
        subject: Any = x509.IPAddress(ip_address(host))
    except ValueError:
        subject = x509.DNSName(host)
    store = Store([x509.load_pem_x509_certificate(chain.ca)])
    PolicyBuilder().store(store).time(at).build_server_verifier(subject).verify(leaf, [])


@pytest.mark.parametrize("host", [HOST, "192.0.2.7", "2001:db8::1", "localhost"])
def test_our_own_ca_issues_what_a_site_takes(host: str, tmp_path: Path) -> None:
    ca, key = own_ca("Hearts", NOW)
    chain = issue(ca, key, host, NOW)
    shake(tmp_path, chain, host)
    verified(chain, host)
    with pytest.raises(UsageError, match="would refuse"):
        shake(tmp_path, chain, "other.example.org")
    with pytest.raises(VerificationError):
        verified(chain, "other.example.org")


def test_the_listener_sends_the_ca_and_an_invitation_pins_its_der() -> None:
    ca, key = own_ca("Hearts", NOW)
    chain = issue(ca, key, HOST, NOW)
    sent = x509.load_pem_x509_certificates(chain.server)
    assert len(sent) == 2 and sent[1].public_bytes(Encoding.PEM) == ca
    assert ca_hash(ca) == sha256(sent[1].public_bytes(Encoding.DER)).hexdigest()


def test_a_certificate_of_another_ca_with_the_same_name_is_refused(tmp_path: Path) -> None:
    ca, key = own_ca("Hearts", NOW)
    other, _ = own_ca("Hearts", NOW)
    with pytest.raises(UsageError, match="would refuse"):
        shake(tmp_path, issue(ca, key, HOST, NOW), ca=other)


def test_our_certificates_end_when_they_should() -> None:
    ca, key = own_ca("Hearts", NOW)
    chain = issue(ca, key, HOST, NOW)
    assert days_left(chain.server, NOW) == 397 and days_left(ca, NOW) == 3650
    verified(chain, HOST, NOW + timedelta(days=396))
    with pytest.raises(VerificationError):
        verified(chain, HOST, NOW + timedelta(days=398))
    # Near the end of the CA a certificate does not outlive it, and after it there is none.
    late = issue(ca, key, HOST, NOW + timedelta(days=3600))
    assert days_left(late.server, NOW) == 3650
    with pytest.raises(UsageError, match="the CA has expired"):
        issue(ca, key, HOST, NOW + timedelta(days=3651))


def test_a_ca_with_another_key_issues_nothing() -> None:
    ca, _ = own_ca("Hearts", NOW)
    _, other = own_ca("Hearts", NOW)
    with pytest.raises(UsageError, match="not the key of its certificate"):
        issue(ca, other, HOST, NOW)


@pytest.mark.parametrize("name", [HOST, "*.example.org"])
def test_a_given_certificate_is_served_with_its_ca_behind_it(name: str, tmp_path: Path) -> None:
    certificate, key = DEPARTMENT.issue(x509.DNSName(name))
    chain = given(certificate + DEPARTMENT.pem, key, CLINIC.pem, HOST, NOW)
    assert len(x509.load_pem_x509_certificates(chain.server)) == 3 and chain.ca == CLINIC.pem
    shake(tmp_path, chain)


def test_a_given_certificate_that_will_not_do_is_refused_by_its_fault() -> None:
    name = x509.DNSName(HOST)
    certificate, key = CLINIC.issue(name)
    _, other_key = CLINIC.issue(name)
    sealed = pem(load_pem_private_key(key, None), b"a passphrase")
    faults: list[tuple[str, bytes, bytes, bytes]] = [
        ("not the key of the certificate", certificate, other_key, CLINIC.pem),
        ("not for the host", *CLINIC.issue(), CLINIC.pem),
        ("not for the host", *CLINIC.issue(x509.DNSName("other.example.org")), CLINIC.pem),
        ("not for the host", *CLINIC.issue(x509.DNSName("*.org")), CLINIC.pem),
        ("not for the host", *CLINIC.issue(x509.IPAddress(ip_address("192.0.2.7"))), CLINIC.pem),
        ("the certificate has expired", *CLINIC.issue(name, ends=-1), CLINIC.pem),
        ("not valid before", *CLINIC.issue(name, begins=1), CLINIC.pem),
        ("the CA has expired", certificate, key, Authority("Old", days=-1).pem),
        ("sealed with a passphrase", certificate, sealed, CLINIC.pem),
        ("no private key", certificate, certificate, CLINIC.pem),
        ("no certificate in PEM", key, key, CLINIC.pem),
        ("2 certificates", certificate, key, CLINIC.pem + DEPARTMENT.pem),
    ]
    for fault, *files in faults:
        with pytest.raises(UsageError, match=fault):
            given(files[0], files[1], files[2], HOST, NOW)
    given(certificate, key, CLINIC.pem, HOST, NOW)


def test_a_wildcard_stands_for_one_label() -> None:
    certificate, key = CLINIC.issue(x509.DNSName("*.example.org"))
    given(certificate, key, CLINIC.pem, "a.example.org", NOW)
    for host in ("example.org", "a.b.example.org"):
        with pytest.raises(UsageError, match="not for the host"):
            given(certificate, key, CLINIC.pem, host, NOW)
    certificate, key = CLINIC.issue(x509.DNSName("*.org"))
    with pytest.raises(UsageError, match="not for the host"):
        given(certificate, key, CLINIC.pem, "example.org", NOW)


def create(path: Path, certificate: GivenCertificate | None = None, host: str = HOST) -> CoordinatorFolder:
    return CoordinatorFolder.create(path, "Hearts", host, 8443, certificate)


def test_a_certificate_that_does_not_lead_to_the_ca_makes_no_folder(tmp_path: Path) -> None:
    certificate, key = DEPARTMENT.issue(x509.DNSName(HOST))
    for fault in (
        GivenCertificate(certificate, key, CLINIC.pem),
        GivenCertificate(certificate, key, Authority("X").pem),
    ):
        with pytest.raises(UsageError, match="would refuse"):
            create(tmp_path / "hub", fault)
        assert not (tmp_path / "hub").exists()
    create(tmp_path / "hub", GivenCertificate(certificate + DEPARTMENT.pem, key, CLINIC.pem))


def test_a_folder_holds_its_keys_for_its_user_only(tmp_path: Path) -> None:
    folder = create(tmp_path / "hub")
    files = [path for path in folder.path.rglob("*") if path.is_file()]
    assert len(files) == 8
    assert {path.name for path in files if path.stat().st_mode & 0o077} == set()
    assert {path.name for path in folder.path.rglob("*") if path.is_dir() and path.stat().st_mode & 0o077} == set()
    again = CoordinatorFolder.open(folder.path)
    assert again.identity().public == folder.identity().public and again.identity().site == "coordinator"
    assert len(bytes.fromhex(again.superexec_secret().decode())) == 32
    assert 20_000 <= again.runtime_port < 30_000
    folder.path.chmod(0o750)
    with pytest.raises(UsageError, match="others may look"):
        CoordinatorFolder.open(folder.path)
    folder.path.chmod(0o700)
    (folder.path / "keys" / "coordinator.pem").chmod(0o640)
    with pytest.raises(UsageError, match="others may read the key"):
        again.identity()


def test_a_folder_is_made_once_and_named_right(tmp_path: Path) -> None:
    create(tmp_path / "hub")
    with pytest.raises(UsageError, match="exists already"):
        create(tmp_path / "hub")
    for fault, arguments in {
        "host": ("Hearts", "HUB", 8443),
        "port": ("Hearts", HOST, 0),
        "name": ("two\nlines", HOST, 8443),
    }.items():
        with pytest.raises(UsageError, match=f"the coordinator's {fault}"):
            CoordinatorFolder.create(tmp_path / "other", *arguments)
        assert not (tmp_path / "other").exists()
    with pytest.raises(UsageError, match="no coordinator's folder"):
        CoordinatorFolder.open(tmp_path)


def test_renewing_changes_the_certificate_and_not_the_ca(tmp_path: Path) -> None:
    folder = create(tmp_path / "hub")
    ca, before = folder.ca.read_bytes(), folder.certificate.read_bytes()
    folder.renew(NOW + timedelta(hours=1))
    assert folder.ca.read_bytes() == ca and folder.certificate.read_bytes() != before
    check_handshake(str(folder.certificate), str(folder.certificate_key), ca, HOST)
    assert os.stat(folder.certificate_key).st_mode & 0o077 == 0
    assert sorted(path.name for path in (folder.path / "tls").iterdir()) == [
        "ca.key", "ca.pem", "server.key", "server.pem",
    ]  # fmt: skip


def test_a_given_certificate_is_renewed_by_one_of_the_same_ca_only(tmp_path: Path) -> None:
    name = x509.DNSName(HOST)
    folder = create(tmp_path / "hub", GivenCertificate(*CLINIC.issue(name), CLINIC.pem))
    before = folder.certificate.read_bytes()
    with pytest.raises(UsageError, match="not its own"):
        folder.renew(NOW)
    other = Authority("Clinic Root")
    with pytest.raises(UsageError, match="another CA"):
        folder.renew(NOW, GivenCertificate(*other.issue(name), other.pem))
    with pytest.raises(UsageError, match="would refuse"):
        folder.renew(NOW, GivenCertificate(*other.issue(name), CLINIC.pem))
    assert folder.certificate.read_bytes() == before
    folder.renew(NOW, GivenCertificate(*CLINIC.issue(name), CLINIC.pem))
    assert folder.certificate.read_bytes() != before
