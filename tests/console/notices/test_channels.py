"""E-mail through a real mail server and a webhook to a real listener, both on loopback."""

import email
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.message import Message
from email.policy import default
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from _ports import free_port
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from pydantic import ValidationError

from wardround.console.commands.site_notify import tell
from wardround.console.notices.channels import SIGNATURE, Email, Webhook, signature
from wardround.console.notices.journal import JOURNAL, Journal
from wardround.console.notices.settings import EmailSettings, WebhookSettings
from wardround.console.notices.told import Told
from wardround.console.notices.watching import Seen, notices
from wardround.protocol.errors import Unavailable, UsageError

NOW = datetime(2026, 11, 29, 8, 0, tzinfo=UTC)
SEEN = Seen("north", NOW, answers=True, spent=(("training", 81),), paused="maintenance")
FOUND = notices(SEEN)
WORDS = "a long password"


class Letters:
    """Takes every message but those to a recipient whom nobody knows."""

    def __init__(self) -> None:
        self.taken: list[Message] = []

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if address.startswith("nobody"):
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.taken.append(email.message_from_bytes(envelope.content, policy=default))
        return "250 OK"


@pytest.fixture
def authority(tmp_path: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate for localhost that nobody but its owner has heard of, and a server's context with it."""
    key, name = generate_private_key(SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    (tmp_path / "ca.pem").write_bytes(made.public_bytes(Encoding.PEM))
    (tmp_path / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "ca.pem", tmp_path / "key.pem")
    return tmp_path / "ca.pem", context


Mail = Callable[..., tuple[Letters, int]]


@pytest.fixture
def mail() -> Iterator[Mail]:
    running: list[Controller] = []

    def start(context: ssl.SSLContext | None = None) -> tuple[Letters, int]:
        letters = Letters()

        def allowed(server: Any, session: Any, envelope: Any, mechanism: str, given: Any) -> AuthResult:
            good = isinstance(given, LoginPassword) and given.login == b"site" and given.password == WORDS.encode()
            return AuthResult(success=good, handled=good)

        more = {} if context is None else {
            "tls_context": context, "require_starttls": True, "authenticator": allowed, "auth_required": True,
        }  # fmt: skip
        controller = Controller(letters, hostname="127.0.0.1", port=0, **more)
        controller.port = free_port()
        controller.start()
        running.append(controller)
        return letters, controller.port

    yield start
    for controller in running:
        with suppress(Exception):
            controller.stop()


def plainly(port: int, *to: str) -> EmailSettings:
    return EmailSettings(
        host="127.0.0.1", port=port, security="none", sender="site@north.example", to=to or ("it@x.example",)
    )


def test_one_message_says_everything_and_what_to_do(mail: Mail, tmp_path: Path) -> None:
    letters, port = mail()
    Email(plainly(port, "it@x.example", "dpo@x.example"), tmp_path).send(SEEN, FOUND)
    (message,) = letters.taken
    assert message["Subject"] == "Wardround at north: 2 notices" and message["To"] == "it@x.example, dpo@x.example"
    assert message["Auto-Submitted"] == "auto-generated" and message["Message-ID"].endswith("@wardround.invalid>")
    text = message.get_content()  # type: ignore[attr-defined]
    for notice in FOUND:
        assert notice.sentence in text and notice.cure in text


def test_with_tls_and_a_password_the_mail_server_is_the_one_that_the_hospital_knows(
    mail: Mail, authority: tuple[Path, ssl.SSLContext], tmp_path: Path
) -> None:
    certificate, context = authority
    letters, port = mail(context)
    (tmp_path / "mail.password").write_text(WORDS)
    (tmp_path / "mail.password").chmod(0o600)
    about = EmailSettings(
        host="localhost", port=port, user="site", password_file="mail.password", ca_file=certificate.name,
        sender="site@north.example", to=("it@x.example",),
    )  # fmt: skip
    Email(about, tmp_path).send(SEEN, FOUND)
    assert len(letters.taken) == 1
    with pytest.raises(Unavailable, match="SSLCertVerificationError"):
        Email(about.model_copy(update={"ca_file": None}), tmp_path).send(SEEN, FOUND)
    (tmp_path / "mail.password").write_text("another one")
    with pytest.raises(UsageError, match="refuses the user"):
        Email(about, tmp_path).send(SEEN, FOUND)
    (tmp_path / "mail.password").chmod(0o644)
    with pytest.raises(UsageError, match="others may read"):
        Email(about, tmp_path).send(SEEN, FOUND)
    assert len(letters.taken) == 1


def test_a_mail_server_that_is_away_or_refuses_somebody_is_said(mail: Mail, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="ConnectionRefusedError"):
        Email(plainly(free_port()), tmp_path).send(SEEN, FOUND)
    letters, port = mail()
    with pytest.raises(Unavailable, match="refused 1 recipient"):
        Email(plainly(port, "it@x.example", "nobody@x.example"), tmp_path).send(SEEN, FOUND)
    assert len(letters.taken) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"host": "mail.example.org"}, {"to": ()}, {"sender": "a@b\nBcc: c@d"}, {"to": ("a@b.example, c@d.example",)},
        {"user": "site"}, {"more": 1},
    ],
)  # fmt: skip
def test_settings_that_would_leak_or_inject_are_refused(change: dict[str, Any]) -> None:
    good = {"host": "localhost", "security": "none", "sender": "a@b.example", "to": ("c@d.example",)}
    EmailSettings.model_validate(good)
    with pytest.raises(ValidationError):
        EmailSettings.model_validate(good | change)


class Hook(BaseHTTPRequestHandler):
    answers: ClassVar[list[int]]
    got: ClassVar[list[tuple[str, bytes]]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.got.append((self.headers[SIGNATURE], body))
        status = self.answers.pop(0) if self.answers else 204
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
        self.end_headers()

    def log_message(self, *given: Any) -> None:
        pass


@pytest.fixture
def hook(tmp_path: Path) -> Iterator[tuple[Webhook, type[Hook]]]:
    class Mine(Hook):
        answers: ClassVar[list[int]] = []
        got: ClassVar[list[tuple[str, bytes]]] = []

    server = HTTPServer(("127.0.0.1", 0), Mine)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (tmp_path / "hook.secret").write_text("shared")
    (tmp_path / "hook.secret").chmod(0o600)
    about = WebhookSettings(url=f"http://127.0.0.1:{server.server_port}/hook", secret_file="hook.secret")
    yield Webhook(about, tmp_path), Mine
    server.shutdown()
    server.server_close()


def test_a_webhook_is_signed_json(hook: tuple[Webhook, type[Hook]]) -> None:
    channel, listener = hook
    channel.send(SEEN, FOUND)
    ((signed, body),) = listener.got
    assert signed == f"sha256={signature('shared', body)}" != f"sha256={signature('other', body)}"
    content = json.loads(body)
    assert content["site"] == "north" and content["at"] == "2026-11-29T08:00:00Z"
    assert [row["key"] for row in content["notices"]] == [notice.key for notice in FOUND]


def test_a_webhook_that_fails_or_sends_elsewhere_is_not_followed(hook: tuple[Webhook, type[Hook]]) -> None:
    channel, listener = hook
    listener.answers[:] = [500, 302]
    for status in ("500", "302"):
        with pytest.raises(Unavailable, match=status):
            channel.send(SEEN, FOUND)
    assert len(listener.got) == 2


def test_a_webhook_crosses_no_network_in_the_clear(tmp_path: Path) -> None:
    about = WebhookSettings(url="http://chat.example.org/hook", secret_file="s")
    with pytest.raises(UsageError, match="in the clear"):
        Webhook(about, tmp_path).send(SEEN, FOUND)


def test_each_matter_is_told_once_and_again_when_it_comes_back(
    hook: tuple[Webhook, type[Hook]], tmp_path: Path
) -> None:
    channel, listener = hook
    said: list[str] = []

    def look(seen: Seen) -> int:
        return tell(seen, {"webhook": channel}, Told.open(tmp_path), said.append)

    def keys() -> list[list[str]]:
        return [[row["key"] for row in json.loads(body)["notices"]] for _, body in listener.got]

    fine = Seen("north", NOW, answers=True)
    assert look(SEEN) == 0 and look(SEEN) == 0
    assert keys() == [["budget/training/80", "daemon/paused"]]
    assert look(fine) == 0 and look(SEEN) == 0
    assert len(keys()) == 2, "it came back, so it is told again"
    # What could not be handed over is tried again, and what is known stays known while nobody can look.
    look(fine)
    listener.answers[:] = [503]
    assert look(SEEN) == 1 and "503" in said[-1] and look(SEEN) == 0
    assert look(Seen("north", NOW, answers=False)) == 0 and look(SEEN) == 0
    assert keys()[-1] == ["daemon/silent"] and len(keys()) == 5
    kept = Journal(tmp_path / JOURNAL).read()
    assert [each.outcome.value for each in kept] == ["sent", "sent", "failed", "sent", "sent"]
    assert "503" in kept[2].why and [told.key for told in kept[-1].notices] == keys()[0]


def test_a_file_of_what_was_told_that_is_damaged_tells_everything_again(tmp_path: Path) -> None:
    (tmp_path / "told.json").write_text('{"webhook": ["budget/tr')
    assert len(Told.open(tmp_path).fresh("webhook", FOUND)) == len(FOUND)
