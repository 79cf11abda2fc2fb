"""The ways on which notices go out: e-mail and a webhook. Both are the hospital's own, and written down in notify.yaml.

A message that could not be handed over is kept and tried again at the next look; nothing of a failure is lost.
"""

import hmac
import json
import smtplib
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import urlsplit

from wardround.client.connectors.secret_file import read_secret
from wardround.console.notices.settings import EmailSettings, NotifySettings, WebhookSettings
from wardround.console.notices.watching import Level, Notice, Seen
from wardround.protocol.errors import Unavailable, UsageError

SECONDS: Final = 20.0
LATER: Final = "it is tried again at the next look"

SIGNATURE: Final = "X-Wardround-Signature"
"""sha256=HMAC-SHA256 (RFC 2104) of the body, in hex, under the shared secret."""


class Channel(Protocol):
    """Hands notices over. Raises Unavailable when they were not taken."""

    def send(self, seen: Seen, notices: Sequence[Notice]) -> None: ...


@dataclass(frozen=True, slots=True)
class Email:
    """One message to everybody, by SMTP (RFC 5321) with TLS, or without on this machine."""

    settings: EmailSettings
    beside: Path

    def send(self, seen: Seen, notices: Sequence[Notice]) -> None:
        about, message = self.settings, self._message(seen, notices)
        try:
            with self._open() as server:
                if about.user is not None and about.password_file is not None:
                    server.login(
                        about.user, read_secret(self.beside / about.password_file, "password", "password_file")
                    )
                refused = server.send_message(message)
        except smtplib.SMTPAuthenticationError:
            raise UsageError("the mail server refuses the user", "check user and password in notify.yaml") from None
        # A server's answer may quote an address; only its kind is said.
        except (OSError, smtplib.SMTPException) as error:
            raise Unavailable(
                f"the mail server did not take the message ({type(error).__name__})",
                "it is tried again at the next look",
            ) from None
        if refused:
            raise Unavailable(f"the mail server refused {len(refused)} recipient(s)", "check 'to' in notify.yaml")

    def _open(self) -> smtplib.SMTP:
        about = self.settings
        if about.security == "tls":
            return smtplib.SMTP_SSL(about.host, about.port, timeout=SECONDS, context=self._context())
        server = smtplib.SMTP(about.host, about.port, timeout=SECONDS)
        if about.security == "starttls":
            server.starttls(context=self._context())
        return server

    def _context(self) -> ssl.SSLContext:
        authority = None if self.settings.ca_file is None else str(self.beside / self.settings.ca_file)
        return ssl.create_default_context(cafile=authority)

    def _message(self, seen: Seen, notices: Sequence[Notice]) -> EmailMessage:
        message = EmailMessage()
        urgent = any(notice.level is Level.NOW for notice in notices)
        first = notices[0].sentence if len(notices) == 1 else f"{len(notices)} notices"
        message["Subject"] = f"{'[now] ' if urgent else ''}Wardround at {seen.site}: {first}"[:180]
        message["From"], message["To"] = self.settings.sender, ", ".join(self.settings.to)
        message["Date"] = format_datetime(seen.at)
        message["Message-ID"] = make_msgid(domain="wardround.invalid")
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(in_text(seen, notices))
        return message


@dataclass(frozen=True, slots=True)
class Webhook:
    """A signed JSON document by POST to one address, without redirects and without the environment's proxies."""

    settings: WebhookSettings
    beside: Path

    def send(self, seen: Seen, notices: Sequence[Notice]) -> None:
        import httpx

        about = self.settings
        _no_clear_text(about.url)
        body = as_json(seen, notices)
        secret = read_secret(self.beside / about.secret_file, "secret", "secret_file")
        headers = {"Content-Type": "application/json", SIGNATURE: f"sha256={signature(secret, body)}"}
        verify: ssl.SSLContext | bool = True
        if about.ca_file is not None:
            verify = ssl.create_default_context(cafile=str(self.beside / about.ca_file))
        try:
            with httpx.Client(timeout=SECONDS, trust_env=False, follow_redirects=False, verify=verify) as client:
                answer = client.post(about.url, content=body, headers=headers)
        except httpx.HTTPError as error:
            raise Unavailable(f"the webhook cannot be reached ({type(error).__name__})", LATER) from None
        if not answer.is_success:
            raise Unavailable(f"the webhook answers with status {answer.status_code}", "check 'url' in notify.yaml")


def channels_of(settings: NotifySettings, folder: Path) -> dict[str, Channel]:
    """The channels that the settings name."""
    made: dict[str, Channel] = {}
    if settings.email is not None:
        made["email"] = Email(settings.email, folder)
    if settings.webhook is not None:
        made["webhook"] = Webhook(settings.webhook, folder)
    return made


def signature(secret: str, body: bytes) -> str:
    """64 hex digits."""
    return hmac.new(secret.encode(), body, sha256).hexdigest()


def in_text(seen: Seen, notices: Sequence[Notice]) -> str:
    """The body of an e-mail."""
    lines = [f"Site '{seen.site}', {seen.at:%Y-%m-%d %H:%M} UTC.", ""]
    for notice in notices:
        lines += [f"{notice.level.value.upper()}: {notice.sentence}", f"  What to do: {notice.cure}", ""]
    lines.append("This message holds nothing of a patient. The site's own machine sent it.")
    return "\n".join(lines) + "\n"


def as_json(seen: Seen, notices: Sequence[Notice]) -> bytes:
    """The body of a webhook."""
    rows = [
        {"key": notice.key, "level": notice.level.value, "sentence": notice.sentence, "cure": notice.cure}
        for notice in notices
    ]
    content = {
        "format": "wardround/notices/1",
        "site": seen.site,
        "at": f"{seen.at:%Y-%m-%dT%H:%M:%SZ}",
        "notices": rows,
    }
    return json.dumps(content, ensure_ascii=True).encode()


def _no_clear_text(url: str) -> None:
    parts = urlsplit(url)
    try:
        loopback = ip_address(parts.hostname or "").is_loopback
    except ValueError:
        loopback = parts.hostname == "localhost"
    if parts.scheme != "https" and not loopback:
        raise UsageError("a webhook would cross the network in the clear", "write 'url' with https")
