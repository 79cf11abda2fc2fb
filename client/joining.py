"""How a site joins a coordinator: the other side of ``server/door.py``, for hospital IT at a prompt.

The code says where the coordinator is and which CA its certificate comes from. The site looks at the certificates that
are shown there, takes the CA only if it is that one, and sends nothing before a connection holds under it. Its keys are
made here and only their public halves go out. They are on disk before they are sent, so that after a lost answer the
same command sends the same keys, and gets the answer once more.
"""

import json
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import httpx
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from pydantic import ValidationError

from wardround.client.link import LinkFolder, Proxy, replace_secret
from wardround.client.store.folder import SiteFolder
from wardround.client.store.ledger import utc_now
from wardround.protocol.errors import ProtocolViolation, Unavailable, UsageError, WardroundError
from wardround.protocol.invitation import (
    JOIN_PATH,
    MAX_JOIN_BYTES,
    ROSTER_PATH,
    Invitation,
    JoinAnswer,
    JoinRequest,
    Refusal,
    key_fingerprint,
)
from wardround.protocol.owners import COORDINATOR
from wardround.protocol.roster import MAX_ROSTER_BYTES, Roster

LINK_FILE: Final = "link.json"
"""In the site's folder: where its link folder is. A site that has joined has one."""

SECONDS: Final = 30.0
"""Until an answer counts as lost."""

_ASK: Final = "ask the operator of the coordinator for a new code"
REFUSALS: Final = {
    "refused": ("the coordinator does not know this code", f"a newer code may have replaced it: {_ASK}"),
    "expired": ("the invitation has expired", f"{_ASK}, and check this machine's clock"),
    "used": (
        "this code was used already, with other keys",
        "if that was not this site, tell the operator and your officer at once; if it was, the site must be revoked "
        "and invited again",
    ),
    "revoked": ("the coordinator has revoked this site", _ASK),
    "old_key": (
        "this site's node key was revoked",
        "move the link folder away, so that a new node key is made, and run this command again",
    ),
    "taken": (
        "another site has joined with this site's key",
        "was this folder copied from another site's? Make a new one with 'wardround site init'",
    ),
    "other_key": (
        "the roster in force gives this site another key",
        "tell the governance officers: they sign the next roster with the key of this site",
    ),
    "malformed": ("the coordinator cannot read this request", "both ends need the same version of Wardround"),
    "too_large": ("the coordinator cannot read this request", "both ends need the same version of Wardround"),
}
"""What a final refusal means: the word, the sentence, the cure. Every other answer may change: try again."""

_TRY_AGAIN: Final = "run the same command again in a few minutes: the same keys are sent again, and nothing is lost"


@dataclass(frozen=True, slots=True)
class Joined:
    """A site that joined. ``roster``: the one that the coordinator carries; nobody has checked it yet."""

    link: LinkFolder
    coordinator_key: bytes
    roster: Roster | None


def join(
    site: SiteFolder, code: str, link: Path, proxy: Proxy | None = None, clock: Callable[[], datetime] = utc_now
) -> Joined:
    """Join the coordinator that ``code`` names. May be repeated with the same code and the same folders.

    Args:
        link: the link folder; made if it is not there.
        proxy: through which the coordinator is reached.

    Raises:
        UsageError: the code is none, is another site's or has expired, or the coordinator refuses for good.
        ProtocolViolation: what answers there is not the coordinator of the code.
        Unavailable: it does not answer, or not now.
    """
    invitation = Invitation.parse(code)
    if invitation.site != site.site:
        raise UsageError(
            f"this code is for site '{invitation.site}', and this folder is of site '{site.site}'",
            "use the code that was made for this site",
        )
    held = LinkFolder.open(link) if link.exists() else None
    _check_held(site, held, link, invitation)
    if invitation.expired(clock()) and held is None:
        raise UsageError(*REFUSALS["expired"])
    ca = fetch_ca(invitation, proxy)
    folder = LinkFolder.create(link, site.site, invitation.superlink, ca, proxy) if held is None else held
    identity = site.identity().public
    request = JoinRequest.made(invitation.proof_key, site.site, identity.key, folder.node_key_line())
    try:
        with _client(_pinned(ca), proxy) as client:
            answer = _post(client, invitation, request)
            _check_answer(answer, identity.key)
            if held is not None:
                folder = held.led_to(invitation.superlink, ca, proxy)
            replace_secret(site.path / LINK_FILE, _link_json(link))
            return Joined(folder, bytes.fromhex(answer.coordinator_key), fetch_roster(client, invitation))
    except _Final as final:
        # The coordinator has written nothing down, so the new keys are of no use.
        if held is None:
            folder.destroy()
        raise final.error from None


def joined_link(site: SiteFolder) -> Path | None:
    """The link folder of a site that has joined, or None. Raises UsageError when the note of it is damaged."""
    path = site.path / LINK_FILE
    if not path.exists():
        return None
    try:
        return Path(json.loads(path.read_bytes())["link"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(f"'{path}' cannot be read", "move it away and run 'wardround site join' again") from None


def check_roster(roster: Roster, coordinator_key: bytes) -> None:
    """Raises ProtocolViolation when the officers' roster names another coordinator than the one that was joined."""
    if roster.coordinator.key != coordinator_key.hex():
        raise ProtocolViolation(
            COORDINATOR,
            "the roster names another coordinator than the one that answered",
            "ask the governance officers, by telephone, for the coordinator's fingerprint: the one that answered has "
            f"{key_fingerprint(coordinator_key)}",
        )


def fetch_ca(invitation: Invitation, proxy: Proxy | None) -> bytes:
    """The CA certificate that the code names, in PEM, from what is shown at its address. Nothing is sent there.

    Raises:
        ProtocolViolation: the certificates there do not hold that CA.
        Unavailable: nobody answers.
    """
    blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    blind.check_hostname, blind.verify_mode = False, ssl.CERT_NONE
    try:
        with _client(blind, proxy) as client, client.stream("GET", f"https://{invitation.superlink}/health") as answer:
            connection: Any = answer.extensions["network_stream"].get_extra_info("ssl_object")
            # Public on the connection itself from Python 3.13 on.
            shown = getattr(connection, "_sslobj", connection).get_unverified_chain() or []
    except httpx.HTTPError as error:
        raise _unreachable(invitation, error) from None
    chain = [x509.load_pem_x509_certificate(one.public_bytes().encode()) for one in shown]
    for certificate in chain:
        if certificate.fingerprint(SHA256()).hex() == invitation.ca:
            return certificate.public_bytes(Encoding.PEM)
    raise ProtocolViolation(
        COORDINATOR,
        f"the certificate at {invitation.superlink} does not come from the coordinator's CA, but from "
        f"'{_issuer(chain)}'",
        "a device that opens TLS connections may stand between: have this address exempted from it. If none does, tell "
        "the operator",
    )


def fetch_roster(client: httpx.Client, invitation: Invitation) -> Roster | None:
    """The roster that the coordinator carries, unchecked; None when it has none or does not give it now."""
    try:
        status, body = _exchange(client, "GET", f"https://{invitation.superlink}{ROSTER_PATH}", MAX_ROSTER_BYTES)
    except (httpx.HTTPError, Unavailable):
        return None
    return Roster.parse(body, COORDINATOR) if status == 200 else None


class _Final(Exception):
    """The coordinator took nothing; ``error`` says why."""

    def __init__(self, error: WardroundError) -> None:
        super().__init__(error.message)
        self.error = error


def _check_held(site: SiteFolder, held: LinkFolder | None, link: Path, invitation: Invitation) -> None:
    """Whether what is there from before may be used again."""
    if held is not None and held.about.site != site.site:
        raise UsageError(f"'{link}' is the link folder of site '{held.about.site}'", "choose another link folder")
    noted = joined_link(site)
    if noted is None:
        return
    if noted.absolute() != link.absolute() and noted.exists():
        raise UsageError(f"this site has joined already, with the link folder '{noted}'", "use that link folder")
    if held is not None and held.about.superlink != invitation.superlink:
        raise UsageError(
            f"this site has joined the coordinator at {held.about.superlink}",
            "leave that one first, or make another site folder for this one",
        )


def _post(client: httpx.Client, invitation: Invitation, request: JoinRequest) -> JoinAnswer:
    url = f"https://{invitation.superlink}{JOIN_PATH}"
    try:
        status, body = _exchange(client, "POST", url, MAX_JOIN_BYTES, request.model_dump_json().encode())
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
        raise _Final(_unreachable(invitation, error)) from None
    except httpx.HTTPError as error:
        raise Unavailable(f"the coordinator's answer was lost ({type(error).__name__})", _TRY_AGAIN) from None
    if status == 200:
        try:
            return JoinAnswer.model_validate_json(body)
        except ValidationError:
            raise Unavailable("the coordinator's answer cannot be read", _TRY_AGAIN) from None
    try:
        word = Refusal.model_validate_json(body).error
    except ValidationError:
        raise Unavailable(
            f"the coordinator's machine answered with status {status} and no reason", _TRY_AGAIN
        ) from None
    if word in REFUSALS:
        raise _Final(UsageError(*REFUSALS[word]))
    raise Unavailable(f"the coordinator cannot take this site now ({word})", _TRY_AGAIN)


def _check_answer(answer: JoinAnswer, own: bytes) -> None:
    if answer.fingerprint != key_fingerprint(own):
        raise ProtocolViolation(
            COORDINATOR,
            "the coordinator has written down another key for this site",
            "tell the operator and the governance officers at once: somebody else could speak for this site",
        )


def _client(context: ssl.SSLContext, proxy: Proxy | None) -> httpx.Client:
    via = None
    if proxy is not None:
        via = httpx.Proxy(proxy.url, auth=None if proxy.user is None else (proxy.user, proxy.password or ""))
    headers = {"user-agent": "wardround", "accept-encoding": "identity"}
    # Nothing from the environment: the proxy is the one that was named, the CA the one that was pinned.
    return httpx.Client(verify=context, proxy=via, trust_env=False, timeout=SECONDS, headers=headers)


def _pinned(ca: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=ca.decode("ascii"))
    return context


def _exchange(client: httpx.Client, method: str, url: str, limit: int, body: bytes | None = None) -> tuple[int, bytes]:
    """Status and body of an answer, of which no more than ``limit`` bytes are read."""
    headers = {} if body is None else {"content-type": "application/json"}
    with client.stream(method, url, content=body, headers=headers) as response:
        content = b""
        for part in response.iter_raw():
            content += part
            if len(content) > limit:
                raise Unavailable("the coordinator's answer is too long", _TRY_AGAIN)
        return response.status_code, content


def _unreachable(invitation: Invitation, error: httpx.HTTPError) -> WardroundError:
    where, cause = invitation.superlink, _tls_cause(error)
    if isinstance(error, httpx.ProxyError):
        return Unavailable(
            f"the proxy does not let this machine through to {where}: {_plain(str(error))}",
            "407 asks for a user and a password; otherwise have this one address and port allowed",
        )
    if cause is not None:
        return ProtocolViolation(
            COORDINATOR,
            f"the certificate at {where} is refused: {_plain(cause.verify_message)}",
            "check this machine's clock; if it is right, tell the operator of the coordinator",
        )
    return Unavailable(
        f"the coordinator at {where} cannot be reached ({type(error).__name__}: {_plain(str(error))})",
        "check the name, the firewall and the proxy; 'wardround site doctor' looks at each",
    )


def _tls_cause(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error
        error = error.__cause__ or error.__context__
    return None


def _issuer(chain: list[x509.Certificate]) -> str:
    """Who issued the last certificate that was shown, as it calls itself."""
    if not chain:
        return "nobody"
    names = chain[-1].issuer
    found = names.get_attributes_for_oid(NameOID.ORGANIZATION_NAME) or names.get_attributes_for_oid(NameOID.COMMON_NAME)
    return _plain(str(found[0].value)) if found else "an issuer without a name"


def _plain(text: str) -> str:
    """Text of others, safe on a terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)[:120]


def _link_json(link: Path) -> bytes:
    return json.dumps({"link": str(link.absolute())}).encode() + b"\n"
