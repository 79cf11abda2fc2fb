"""Why a TLS handshake was refused, told apart (X.509, RFC 5280; names, RFC 9525).

OpenSSL names the first fault that it meets. So the question is put again, with less asked: any certificate, then one
from the pinned CA at any time and for any name, then one for this name. Nothing is sent on such a connection unless the
CA and the name are right.
"""

import ssl
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address
from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID

from wardround.client.doctor.route import Route, Stopped, plain_reason
from wardround.client.doctor.words import Finding, failed, ok, plain, warning
from wardround.conf.said import said

WARN_DAYS: Final = 30
"""So many days before its end a certificate should be renewed."""

_ANY_TIME: Final = ssl.VerifyFlags(0x200000)
"""X509_V_FLAG_NO_CHECK_TIME, which the module ssl does not name."""


@dataclass(frozen=True, slots=True)
class Pinned:
    """The coordinator's CA, as the link folder holds it."""

    pem: str
    certificate: x509.Certificate

    @classmethod
    def parse(cls, pem: bytes) -> "Pinned":
        """Raises ValueError when ``pem`` is no certificate."""
        return cls(pem.decode("ascii"), x509.load_pem_x509_certificates(pem)[0])

    def context(self, any_time: bool = False, any_name: bool = False) -> ssl.SSLContext:
        """What the SuperNode asks of a server, or less."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=self.pem)
        context.check_hostname = not any_name
        if any_time:
            context.verify_flags |= _ANY_TIME
        return context


def handshake(route: Route, context: ssl.SSLContext) -> ssl.SSLSocket:
    """A TLS connection to the coordinator.

    Raises:
        ssl.SSLCertVerificationError: the certificate is refused.
        Stopped: there is no connection, or TLS does not come through.
    """
    raw = route.tunnelled()
    try:
        return context.wrap_socket(raw, server_hostname=route.host)
    except ssl.SSLCertVerificationError:
        raw.close()
        raise
    except OSError as error:
        raw.close()
        raise Stopped(_cut(route, error)) from None


def _cut(route: Route, error: OSError) -> Finding:
    if isinstance(error, ssl.SSLError) and error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL"):
        return failed(
            "tls",
            said("What answers at %(where)s does not speak TLS.", where=route.where),
            "Check the port with the operator of the coordinator.",
        )
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError | ConnectionError | TimeoutError):
        how = said("stays silent") if isinstance(error, TimeoutError) else said("is cut")
        return failed(
            "tls",
            said("The connection to %(where)s %(how)s while TLS begins.", where=route.where, how=how),
            said(
                "Have %(where)s exempted from whatever looks into connections here, a firewall or a proxy.",
                where=route.where,
            ),
        )
    reason = plain((isinstance(error, ssl.SSLError) and error.reason) or plain_reason(error))
    return failed(
        "tls",
        said("TLS with %(where)s does not come about: %(reason)s.", where=route.where, reason=reason),
        "Tell the operator this sentence.",
    )


@dataclass(frozen=True, slots=True)
class Refusal:
    """What was found, and whether one may ask further: the CA and the name are right."""

    findings: tuple[Finding, ...]
    may_ask: bool


def why_refused(route: Route, ca: Pinned, now: datetime, reason: str) -> Refusal:
    """Take the refused handshake apart; ``reason`` is OpenSSL's. Raises Stopped when there is no connection now."""
    leaf = _shown(route)
    if not _accepted(route, ca.context(any_time=True, any_name=True)):
        return Refusal((_stranger(route, leaf, ca.certificate),), False)
    found = [ok("issuer", "The certificate comes from the coordinator's CA.")]
    named = _accepted(route, ca.context(any_time=True))
    found.append(_name(route, leaf, named))
    old = dates(leaf, ca.certificate, now)
    found.append(old)
    if named and not old.cure:
        found.append(
            failed(
                "tls",
                said("The certificate of %(where)s is refused: %(reason)s.", where=route.where, reason=plain(reason)),
                "Tell the operator this.",
            )
        )
    return Refusal(tuple(found), named)


def all_right(route: Route, leaf: x509.Certificate, ca: x509.Certificate, now: datetime) -> Iterator[Finding]:
    """What there is to say about a certificate that was accepted."""
    yield ok("issuer", "The certificate comes from the coordinator's CA.")
    yield _name(route, leaf, True)
    yield dates(leaf, ca, now)


def leaf_of(connection: ssl.SSLSocket) -> x509.Certificate:
    """The certificate that the server showed. Raises ValueError when it cannot be read."""
    shown = connection.getpeercert(binary_form=True)
    return x509.load_der_x509_certificate(shown or b"")


def dates(leaf: x509.Certificate, ca: x509.Certificate, now: datetime) -> Finding:
    """Whether server and CA certificate are valid at ``now``, and for how long: the worst answer of the two."""
    for what, certificate, mend in (
        (
            said("The coordinator's certificate"),
            leaf,
            said("If this machine's clock is right, tell the operator of the coordinator to renew it."),
        ),
        (
            said("The coordinator's CA"),
            ca,
            said(
                "If this machine's clock is right, tell the operator of the coordinator to make a new one: every site "
                "then joins anew."
            ),
        ),
    ):
        if now < certificate.not_valid_before_utc:
            begins = certificate.not_valid_before_utc.strftime("%Y-%m-%d %H:%M")
            return failed(
                "dates",
                said(
                    "%(what)s is valid from %(begins)s UTC only, and this machine's clock says %(now)s.",
                    what=what,
                    begins=begins,
                    now=f"{now:%Y-%m-%d %H:%M}",
                ),
                "Set this machine's clock; if it is right, tell the operator of the coordinator.",
            )
        if now > certificate.not_valid_after_utc:
            return failed(
                "dates",
                said(
                    "%(what)s expired on %(date)s.",
                    what=what,
                    date=f"{certificate.not_valid_after_utc:%Y-%m-%d}",
                ),
                mend,
            )
    left = min((one.not_valid_after_utc - now).days for one in (leaf, ca))
    if left < WARN_DAYS:
        soon = leaf if leaf.not_valid_after_utc <= ca.not_valid_after_utc else ca
        what = said("The coordinator's certificate") if soon is leaf else said("The coordinator's CA")
        return warning(
            "dates",
            said(
                "%(what)s ends in %(left)s days, on %(date)s.",
                what=what,
                left=left,
                date=f"{soon.not_valid_after_utc:%Y-%m-%d}",
            ),
            "Tell the operator of the coordinator to renew it.",
        )
    return ok("dates", said("The certificate is valid for another %(left)s days.", left=left))


def _shown(route: Route) -> x509.Certificate:
    """The server's certificate, whatever it is; nothing is sent to who shows it."""
    blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    blind.check_hostname, blind.verify_mode = False, ssl.CERT_NONE
    with handshake(route, blind) as connection:
        try:
            return leaf_of(connection)
        except ValueError:
            raise Stopped(
                failed(
                    "tls", said("The certificate of %(where)s cannot be read.", where=route.where), "Tell the operator."
                )
            ) from None


def _accepted(route: Route, context: ssl.SSLContext) -> bool:
    with suppress(ssl.SSLCertVerificationError):
        handshake(route, context).close()
        return True
    return False


def _stranger(route: Route, leaf: x509.Certificate, ca: x509.Certificate) -> Finding:
    if leaf.issuer == ca.subject:
        return failed(
            "issuer",
            "The certificate names the coordinator's CA as its issuer, but another key has signed it.",
            "Ask the operator, by telephone, whether the CA was made anew; if so, join with a new code.",
        )
    name = _issuer(leaf)
    if leaf.issuer == leaf.subject:
        return failed(
            "issuer",
            said(
                "The certificate at %(where)s signed itself, as '%(name)s'; it does not come from the coordinator's "
                "CA.",
                where=route.where,
                name=name,
            ),
            said(
                "Have %(where)s exempted from TLS inspection; if there is none here, tell the operator.",
                where=route.where,
            ),
        )
    return failed(
        "issuer",
        said(
            "The certificate at %(where)s was issued by '%(name)s', not by the coordinator's CA, as it is where a "
            "device on the way opens TLS connections.",
            where=route.where,
            name=name,
        ),
        said(
            "Have %(where)s exempted from TLS inspection; if there is none here, tell the operator.", where=route.where
        ),
    )


def _issuer(leaf: x509.Certificate) -> str:
    for kind in (NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME):
        if found := leaf.issuer.get_attributes_for_oid(kind):
            return plain(str(found[0].value))
    return said("an issuer without a name")


def _name(route: Route, leaf: x509.Certificate, right: bool) -> Finding:
    if right:
        return ok("host-name", said("The certificate is for '%(host)s'.", host=route.host))
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        known = [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]
    except (x509.ExtensionNotFound, ValueError):
        known = []
    other = said("it is for %(names)s", names=plain(", ".join(known))) if known else said("it names no host at all")
    kind = said("address") if _is_address(route.host) else said("name")
    return failed(
        "host-name",
        said("The certificate is not for the %(kind)s '%(host)s': %(other)s.", kind=kind, host=route.host, other=other),
        said("Ask the operator for a certificate with '%(host)s' as a subject alternative name.", host=route.host),
    )


def _is_address(host: str) -> bool:
    with suppress(ValueError):
        ip_address(host)
        return True
    return False
