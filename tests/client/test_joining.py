"""A site's side of joining: what it keeps, what it sends to whom, and what it makes of every answer."""

import base64
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_private_key,
    load_ssh_public_key,
)

from wardround.client import joining
from wardround.client.joining import join, joined_link
from wardround.client.link import AboutLink, LinkFolder, Proxy, check_proxy
from wardround.client.store.folder import SiteFolder
from wardround.client.store.keys import fingerprint
from wardround.protocol.errors import ProtocolViolation, Unavailable, UsageError
from wardround.protocol.identity import Identity
from wardround.protocol.invitation import JOIN_PATH, Invitation
from wardround.protocol.roster import Roster
from wardround.server.certificates import ca_hash, issue, own_ca
from wardround.server.door import door
from wardround.server.enrolment import Enrolment
from wardround.server.folder import CoordinatorFolder

ANNA = Identity.generate("anna")
HTTP = "http:" + "//"


@contextmanager
def serving(application: Any, sock: socket.socket, certificate: Path, key: Path) -> Iterator[None]:
    """Run an ASGI application behind TLS until the block ends."""
    config = uvicorn.Config(
        application, lifespan="off", ws="none", log_config=None, ssl_certfile=certificate, ssl_keyfile=key
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(60)
        sock.close()
        assert not thread.is_alive()


def listener() -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    return sock


@dataclass(slots=True)
class World:
    """A coordinator that listens, and a site that has its code. ``spoil``: what becomes of the next join's answer."""

    hub: CoordinatorFolder
    site: SiteFolder
    link: Path
    code: Invitation
    spoil: str = ""
    heard: list[tuple[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    def join(self, **options: Any) -> joining.Joined:
        return join(self.site, self.code.encode(), self.link, **options)

    def kept(self) -> list[str]:
        """What the site has on disk of the join."""
        mine = [path for path in (self.site.path / "link.json", self.link) if path.exists()]
        return [path.name for path in mine]

    def application(self) -> Any:
        real = door(self.hub)

        async def call(scope: Any, receive: Any, send: Any) -> None:
            self.heard.append((scope["method"], scope["path"]))
            if scope["path"] != JOIN_PATH or not self.spoil:
                await real(scope, receive, send)
                return
            how, self.spoil = self.spoil, ""
            body = await receive()
            self.bodies.append(body["body"])

            async def again() -> Any:
                return body

            async def swallow(message: Any) -> None: ...

            if how in ("lost", "cut"):  # the coordinator has taken the site; only its answer does not arrive
                await real(scope, again, swallow)
                if how == "lost":
                    raise RuntimeError("the answer is lost")
                length = [(b"content-length", b"400")]
                await send({"type": "http.response.start", "status": 200, "headers": length})
                await send({"type": "http.response.body", "body": b"{"})
                return
            status, _, text = how.partition(" ")
            await send({"type": "http.response.start", "status": int(status), "headers": []})
            await send({"type": "http.response.body", "body": text.encode()})

        return call


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    sock = listener()
    hub = CoordinatorFolder.create(tmp_path / "hub", "Hearts", "127.0.0.1", sock.getsockname()[1])
    site = SiteFolder.create(tmp_path / "north", "north", [ANNA.public])
    made = World(hub, site, tmp_path / "north-link", Enrolment(hub).invite("north", 1))
    with serving(made.application(), sock, hub.certificate, hub.certificate_key):
        yield made


def test_keys_are_made_here_and_only_public_halves_go_out(world: World) -> None:
    world.spoil = "lost"
    with pytest.raises(Unavailable):
        world.join()
    sent = json.loads(world.bodies[0])
    assert sent.keys() == {"site", "secret_proof", "identity_key", "node_key"}
    link = LinkFolder.open(world.link)
    private = load_ssh_private_key(link.node_key.read_bytes(), None)
    assert isinstance(private, EllipticCurvePrivateKey) and isinstance(private.curve, SECP384R1)
    public = load_ssh_public_key(sent["node_key"].encode()).public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    assert private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH) == public
    assert (world.link / "node_key.pub").read_text().strip() == sent["node_key"] == link.node_key_line()
    assert sent["identity_key"] == world.site.identity().public.key.hex()
    assert world.code.secret not in world.bodies[0].decode()


@pytest.mark.parametrize("how", ["lost", "cut"])
def test_after_a_lost_answer_the_same_command_sends_the_same_keys(world: World, how: str) -> None:
    world.spoil = how
    with pytest.raises(Unavailable) as told:
        world.join()
    assert "run the same command again" in told.value.hint
    assert world.kept() == ["north-link"] and joined_link(world.site) is None
    line = LinkFolder.open(world.link).node_key_line()
    (known,) = Enrolment(world.hub).overview()[1]
    assert known.node_key == line
    # Even when the code has expired meanwhile.
    joined = world.join(clock=lambda: datetime.now(UTC) + timedelta(days=9))
    assert joined.link.node_key_line() == line and joined_link(world.site) == world.link.absolute()
    assert Enrolment(world.hub).overview()[1] == [known]


def test_who_is_interrupted_before_the_answer_goes_on_with_the_same_keys(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(joining, "_post", interrupted)
        world.join()
    line = LinkFolder.open(world.link).node_key_line()
    assert world.join().link.node_key_line() == line


def test_an_invitation_that_has_expired_here_asks_nobody(world: World) -> None:
    with pytest.raises(UsageError, match="has expired"):
        world.join(clock=lambda: world.code.expires)
    assert world.heard == [] and world.kept() == []


@pytest.mark.parametrize("word", sorted(joining.REFUSALS))
def test_a_refusal_for_good_is_two_lines_and_leaves_nothing(world: World, word: str) -> None:
    world.spoil = f'403 {{"error": "{word}"}}'
    with pytest.raises(UsageError) as told:
        world.join()
    assert (told.value.message, told.value.hint) == joining.REFUSALS[word]
    assert world.kept() == []
    world.join()


@pytest.mark.parametrize(
    "answer",
    [
        '503 {"error": "busy"}',
        '503 {"error": "unavailable"}',
        '429 {"error": "slow_down"}',
        '403 {"error": "a_word_of_2031"}',
        "502 <html>Bad Gateway</html>",
        "403 <html>The proxy says no</html>",
        "200 {}",
        "200 " + "x" * 9000,
        '403 {"error": "\\u001b[2J"}',
        "302 ",
    ],
)
def test_every_other_answer_may_change_so_the_keys_stay(world: World, answer: str) -> None:
    world.spoil = answer
    with pytest.raises(Unavailable) as told:
        world.join()
    assert "again" in told.value.hint and "html" not in told.value.lines() and "\x1b" not in told.value.lines()
    assert world.kept() == ["north-link"]
    world.join()


def test_an_answer_that_is_too_long_is_not_read_to_its_end(world: World) -> None:
    """It would be a good answer, but for the spaces behind it."""
    own = fingerprint(world.site.identity().public.key)
    answer = json.dumps({"coordinator_key": "00" * 32, "fingerprint": own})
    world.spoil = "200 " + answer + " " * 8192
    with pytest.raises(Unavailable, match="too long"):
        world.join()
    world.spoil = "200 " + answer + " " * 100
    assert world.join().coordinator_key == bytes(32)


def test_a_roster_of_another_coordinator_is_refused() -> None:
    owner = {"legal_entity": "X", "controlling_authority": "X"}
    days = {"issued": "2026-11-01", "expires": "2027-10-31"}
    party = owner | {"site": "north", "key": "22" * 32, "valid_from": "2026-11-01", "valid_until": "2027-11-01"}
    roster = Roster.model_validate(
        {"consortium": "Hearts", "epoch": 1, "previous": None, "coordinator": owner | {"key": "11" * 32},
         "parties": [party], "governance": {"m": 1, "keys": {"anna": "33" * 32}}} | days
    )  # fmt: skip
    joining.check_roster(roster, bytes.fromhex("11" * 32))
    with pytest.raises(ProtocolViolation, match="names another coordinator"):
        joining.check_roster(roster, bytes.fromhex("12" * 32))


def test_a_coordinator_that_wrote_down_another_key_is_found(world: World) -> None:
    world.spoil = "200 " + json.dumps({"coordinator_key": "00" * 32, "fingerprint": " ".join(["0000"] * 8)})
    with pytest.raises(ProtocolViolation, match="another key for this site"):
        world.join()
    assert joined_link(world.site) is None


def test_nobody_at_the_address_is_said_so(world: World) -> None:
    sock = listener()
    port = sock.getsockname()[1]
    sock.close()
    world.code = world.code.model_copy(update={"port": port})
    with pytest.raises(Unavailable, match=f"127.0.0.1:{port} cannot be reached"):
        world.join()
    assert world.kept() == []


def test_a_device_that_opens_tls_is_named_by_its_issuer(world: World, tmp_path: Path) -> None:
    ca, key = own_ca("Clinic \x1b[31mproxy", datetime.now(UTC))
    chain = issue(ca, key, "127.0.0.1", datetime.now(UTC))
    (tmp_path / "c.pem").write_bytes(chain.server)
    (tmp_path / "k.pem").write_bytes(chain.server_key)
    sock = listener()
    world.code = world.code.model_copy(update={"port": sock.getsockname()[1]})
    with (
        serving(world.application(), sock, tmp_path / "c.pem", tmp_path / "k.pem"),
        pytest.raises(ProtocolViolation) as told,
    ):
        world.join()
    assert "Wardround CA of Clinic ?[31mproxy" in told.value.message and "exempted" in told.value.hint
    assert world.heard == [("GET", "/health")] and world.kept() == []


@pytest.mark.parametrize("fault", ["another host", "expired"])
def test_the_right_ca_is_not_enough(world: World, tmp_path: Path, fault: str) -> None:
    """The pinned CA signed it, but for another host, or too long ago. A certificate without a fault is taken."""
    ca, key = own_ca("Hearts", datetime.now(UTC) - timedelta(days=500))
    hosts = {"another host": ("127.0.0.2", 0), "expired": ("127.0.0.1", 450), "none": ("127.0.0.1", 0)}
    for kind in (fault, "none"):
        host, days = hosts[kind]
        chain = issue(ca, key, host, datetime.now(UTC) - timedelta(days=days))
        (tmp_path / f"{kind}.pem").write_bytes(chain.server)
        (tmp_path / f"{kind}.key").write_bytes(chain.server_key)
        sock = listener()
        world.code = world.code.model_copy(update={"ca": ca_hash(ca), "port": sock.getsockname()[1]})
        with ExitStack() as stack:
            stack.enter_context(serving(world.application(), sock, tmp_path / f"{kind}.pem", tmp_path / f"{kind}.key"))
            if kind == "none":
                world.join()
                return
            with pytest.raises(ProtocolViolation, match="is refused"):
                world.join()
        assert all(path != JOIN_PATH for _, path in world.heard) and world.kept() == []


def test_a_site_has_one_coordinator_and_one_link(world: World, tmp_path: Path) -> None:
    world.join()
    with pytest.raises(UsageError, match="joined already, with the link folder"):
        join(world.site, world.code.encode(), tmp_path / "second-link")
    elsewhere = world.code.model_copy(update={"host": "hub.example.org"})
    with pytest.raises(UsageError, match="has joined the coordinator at"):
        join(world.site, elsewhere.encode(), world.link)
    other = SiteFolder.create(tmp_path / "south", "south", [ANNA.public])
    code = Enrolment(world.hub).invite("south", 1)
    with pytest.raises(UsageError, match="is the link folder of site 'north'"):
        join(other, code.encode(), world.link)
    (world.link / "link.json").unlink()
    with pytest.raises(UsageError, match="is no link folder"):
        world.join()


class ConnectProxy:
    """A proxy that knows CONNECT only, with or without a password, and notes what it was asked."""

    def __init__(self, credentials: str | None, allowed: bool = True) -> None:
        self.credentials, self.allowed = credentials, allowed
        self.asked: list[str] = []
        self.sock = listener()
        self.url = f"http://127.0.0.1:{self.sock.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.sock.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(4096)
        lines = head.decode().split("\r\n")
        self.asked.append(lines[0])
        headers = {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in lines[1:]}
        wanted = None if self.credentials is None else "Basic " + base64.b64encode(self.credentials.encode()).decode()
        if wanted is not None and headers.get("proxy-authorization") != wanted:
            client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            client.close()
            return
        if not self.allowed:
            client.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            client.close()
            return
        host, _, port = lines[0].split()[1].rpartition(":")
        upstream = socket.create_connection((host, int(port)))
        client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        threading.Thread(target=_pump, args=(upstream, client), daemon=True).start()
        _pump(client, upstream)


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65_536):
            target.sendall(data)
    except OSError:
        pass
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()


@contextmanager
def proxied(credentials: str | None = None, allowed: bool = True) -> Iterator[ConnectProxy]:
    proxy = ConnectProxy(credentials, allowed)
    try:
        yield proxy
    finally:
        proxy.sock.close()


def test_a_site_joins_through_a_proxy_with_a_password(world: World) -> None:
    with proxied("clinic:p@ss:w/rd ü") as proxy:
        joined = world.join(proxy=Proxy(proxy.url, "clinic", "p@ss:w/rd ü"))
    assert set(proxy.asked) == {f"CONNECT {world.code.superlink} HTTP/1.1"}
    link = LinkFolder.open(world.link)
    assert link == joined.link
    assert (link.about.proxy, link.about.proxy_user, link.about.proxy_password_file) == (
        proxy.url, "clinic", "proxy.password",
    )  # fmt: skip
    assert "w/rd" not in (world.link / "link.json").read_text() and "w/rd" not in repr(link.proxy())
    assert (world.link / "proxy.password").stat().st_mode & 0o077 == 0
    port = proxy.url.rpartition(":")[2]
    assert link.proxy_url() == f"{HTTP}clinic:p%40ss%3Aw%2Frd%20%C3%BC@127.0.0.1:{port}"
    # The same command without the proxy leads the link past it again.
    assert world.join().link.proxy_url() is None and not (world.link / "proxy.password").exists()


def test_a_proxy_that_says_no_is_named(world: World) -> None:
    with proxied("clinic:right") as proxy:
        for user, password in (("clinic", "wrong"), (None, None)):
            with pytest.raises(Unavailable, match="407") as told:
                world.join(proxy=Proxy(proxy.url, user, password))
            assert "wrong" not in told.value.lines()
    with proxied(allowed=False) as proxy, pytest.raises(Unavailable, match="403"):
        world.join(proxy=Proxy(proxy.url))
    assert world.kept() == [] and world.heard == []


def test_proxies_of_the_environment_do_not_count(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with proxied(allowed=False) as proxy:
        for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        world.join()
    assert proxy.asked == []


def test_a_link_folder_is_for_its_user_and_group_only(tmp_path: Path) -> None:
    link = LinkFolder.create(tmp_path / "link", "north", "hub.example.org:443", b"CA", runtime_port=0)
    assert LinkFolder.open(link.path) == link and link.about.runtime_port == 0
    assert [path.name for path in link.path.rglob("*") if path.stat().st_mode & 0o077] == []
    assert len(bytes.fromhex(link.secret().decode())) == 32 and link.ca.read_bytes() == b"CA"
    link.path.chmod(0o750)
    LinkFolder.open(link.path)
    link.path.chmod(0o705)
    with pytest.raises(UsageError, match="others may look"):
        LinkFolder.open(link.path)
    with pytest.raises(UsageError, match="exists already"):
        LinkFolder.create(link.path, "north", "hub.example.org:443", b"CA")
    assert 20_000 <= LinkFolder.create(tmp_path / "b", "north", "[::1]:443", b"CA").about.runtime_port < 30_000


@pytest.mark.parametrize("superlink", ["hub.example.org", "hub.example.org:0", "::1:443", HTTP + "x:443", "a b:443"])
def test_a_link_leads_to_a_host_and_a_port(tmp_path: Path, superlink: str) -> None:
    with pytest.raises(UsageError, match="'superlink' will not do"):
        LinkFolder.create(tmp_path / "link", "north", superlink, b"CA")
    assert not (tmp_path / "link").exists()


def test_a_proxy_is_an_address_without_credentials(tmp_path: Path) -> None:
    assert check_proxy(HTTP + "proxy.example.org:3128/") == HTTP + "proxy.example.org:3128"
    https = HTTP.replace("p:", "ps:")
    for bad in ("proxy:3128", https + "p:1", "socks5://p:1", HTTP + "u:secret@p:1", HTTP + "p", HTTP + "p:1/x"):
        with pytest.raises(ValueError):
            check_proxy(bad)
        with pytest.raises(UsageError) as told:
            LinkFolder.create(tmp_path / "link", "north", "h:1", b"CA", Proxy(bad))
        assert "secret" not in told.value.lines()


def test_an_unknown_field_in_a_link_is_an_error(tmp_path: Path) -> None:
    link = LinkFolder.create(tmp_path / "link", "north", "hub.example.org:443", b"CA")
    body = json.loads((link.path / "link.json").read_text())
    assert body.keys() == AboutLink.model_fields.keys()
    (link.path / "link.json").write_text(json.dumps(body | {"more": 1}))
    with pytest.raises(UsageError, match="no link folder"):
        LinkFolder.open(link.path)
