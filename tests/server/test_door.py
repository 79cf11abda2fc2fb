"""The door over TLS on loopback: who comes in, and that nothing is written for anybody else."""

import asyncio
import json
import socket
import sqlite3
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from wardround.client.joining import join
from wardround.client.store.folder import SiteFolder
from wardround.protocol.errors import ProtocolViolation, UsageError
from wardround.protocol.identity import Identity
from wardround.protocol.invitation import JOIN_PATH, ROSTER_PATH, Invitation, JoinRequest
from wardround.protocol.roster import Roster
from wardround.server.door import RateLimit, door
from wardround.server.enrolment import Enrolment
from wardround.server.folder import CoordinatorFolder

ANNA = Identity.generate("anna")


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
class Hub:
    folder: CoordinatorFolder
    base: str
    limit: RateLimit
    now: list[datetime] = field(default_factory=lambda: [datetime.now(UTC)])

    @property
    def enrolment(self) -> Enrolment:
        return Enrolment(self.folder, lambda: self.now[0])

    def client(self) -> httpx.Client:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.folder.ca)
        return httpx.Client(base_url=self.base, verify=context, trust_env=False, timeout=20.0)

    def written(self) -> list[str]:
        store = sqlite3.connect(self.folder.database)
        lines = list(store.iterdump())
        store.close()
        return lines

    def refused(self, status: int, word: str, ask: Callable[[httpx.Client], httpx.Response]) -> httpx.Response:
        """The answer is this one word, and nothing was written."""
        before = self.written()
        with self.client() as client:
            answer = ask(client)
        assert (answer.status_code, answer.json()) == (status, {"error": word})
        assert answer.headers["content-type"] == "application/json"
        assert self.written() == before
        return answer


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    sock = listener()
    port = sock.getsockname()[1]
    folder = CoordinatorFolder.create(tmp_path / "hub", "Hearts", "127.0.0.1", port)
    made = Hub(folder, f"https://127.0.0.1:{port}", RateLimit())
    with serving(door(folder, lambda: made.now[0], made.limit), sock, folder.certificate, folder.certificate_key):
        yield made


@pytest.fixture
def sites(tmp_path: Path) -> dict[str, SiteFolder]:
    return {name: SiteFolder.create(tmp_path / name, name, [ANNA.public]) for name in ("north", "south")}


def post(body: bytes, path: str = JOIN_PATH) -> Callable[[httpx.Client], httpx.Response]:
    return lambda client: client.post(path, content=body)


def not_joined(site: SiteFolder) -> bool:
    return not (site.path / "link.json").exists() and not site.path.with_name(f"{site.site}-link").exists()


def test_a_site_joins_and_its_keys_are_written_down(hub: Hub, sites: dict[str, SiteFolder], tmp_path: Path) -> None:
    code = hub.enrolment.invite("north", 1).encode()
    joined = join(sites["north"], code, tmp_path / "north-link")
    assert joined.coordinator_key == hub.folder.identity().public.key and joined.roster is None
    _, (known,), open_codes = hub.enrolment.overview()
    assert (known.site, known.identity_key) == ("north", sites["north"].identity().public.key)
    assert known.node_key == joined.link.node_key_line() and open_codes == []
    before = hub.written()
    assert join(sites["north"], code, tmp_path / "north-link") == joined
    assert hub.written() == before


def refuse_join(hub: Hub, site: SiteFolder, code: Invitation, fault: str, kind: type[Exception] = UsageError) -> None:
    """The join is refused with this sentence, and neither side has written anything."""
    before = hub.written()
    with pytest.raises(kind, match=fault):
        join(site, code.encode(), site.path.with_name(f"{site.site}-link"))
    assert hub.written() == before and not_joined(site)


def test_a_code_with_another_ca_sends_nothing(hub: Hub, sites: dict[str, SiteFolder]) -> None:
    code = hub.enrolment.invite("north", 1)
    other = code.model_copy(update={"ca": "00" * 32})
    refuse_join(hub, sites["north"], other, "does not come from the coordinator's CA", ProtocolViolation)


def test_an_expired_code_is_refused_by_the_coordinators_own_clock(hub: Hub, sites: dict[str, SiteFolder]) -> None:
    code = hub.enrolment.invite("north", 1)
    hub.now[0] += timedelta(days=2)
    refuse_join(hub, sites["north"], code, "has expired")
    hub.now[0] -= timedelta(days=2)
    join(sites["north"], code.encode(), sites["north"].path.with_name("north-link"))


def test_a_used_code_a_changed_one_and_another_sites_are_refused(
    hub: Hub, sites: dict[str, SiteFolder], tmp_path: Path
) -> None:
    code = hub.enrolment.invite("north", 1)
    refuse_join(hub, sites["north"], code.model_copy(update={"secret": "ab" * 16}), "does not know this code")
    refuse_join(hub, sites["south"], code, "is for site 'north'")
    # South changes the name in the code that it got hold of.
    refuse_join(hub, sites["south"], code.model_copy(update={"site": "south"}), "does not know this code")
    join(sites["north"], code.encode(), tmp_path / "north-link")
    other = SiteFolder.create(tmp_path / "other", "north", [ANNA.public])
    before = hub.written()
    with pytest.raises(UsageError, match="used already, with other keys"):
        join(other, code.encode(), tmp_path / "other-link")
    assert hub.written() == before and not (tmp_path / "other-link").exists()


def test_a_revoked_site_does_not_come_in_again(hub: Hub, sites: dict[str, SiteFolder], tmp_path: Path) -> None:
    code = hub.enrolment.invite("north", 1).encode()
    join(sites["north"], code, tmp_path / "north-link")
    hub.enrolment.revoke("north")
    before = hub.written()
    with pytest.raises(UsageError, match="has revoked this site"):
        join(sites["north"], code, tmp_path / "north-link")
    with pytest.raises(UsageError, match="node key was revoked"):
        join(sites["north"], hub.enrolment.invite("north", 1).encode(), tmp_path / "north-link")
    hub.enrolment.revoke("north")
    assert [line for line in hub.written() if "invitations" not in line] == [
        line for line in before if "invitations" not in line
    ]


def test_another_server_with_the_same_name_gets_nothing(hub: Hub, sites: dict[str, SiteFolder], tmp_path: Path) -> None:
    """It shows the real CA's certificate behind its own, which another CA has issued."""
    code = hub.enrolment.invite("north", 1)
    fake = CoordinatorFolder.create(tmp_path / "fake", "Hearts", "127.0.0.1", 8443)
    shown = tmp_path / "shown.pem"
    shown.write_bytes(fake.certificate.read_bytes() + hub.folder.ca.read_bytes())
    heard: list[str] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        heard.append(scope["path"])
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    sock = listener()
    with serving(application, sock, shown, fake.certificate_key):
        led = code.model_copy(update={"port": sock.getsockname()[1]})
        refuse_join(hub, sites["north"], led, "is refused", ProtocolViolation)
    assert heard == ["/health"]


def test_what_is_no_join_request_is_refused_in_a_word(hub: Hub) -> None:
    code = hub.enrolment.invite("north", 1)
    good = json.loads(JoinRequest.made(bytes(32), "north", bytes(32), _node_key()).model_dump_json())
    for body in (
        b"",
        b"{}",
        b"\xff\xfe",
        b"[" * 8000,
        json.dumps(good | {"more": 1}).encode(),
        json.dumps(good | {"site": "../../etc"}).encode(),
        json.dumps(good | {"node_key": "ssh-rsa AAAA"}).encode(),
        json.dumps(good | {"identity_key": 7}).encode(),
    ):
        hub.refused(400, "malformed", post(body))
    hub.refused(403, "refused", post(json.dumps(good).encode()))
    hub.refused(403, "refused", post(json.dumps(good | {"site": "nobody"}).encode()))
    # The word says nothing of what was sent, and no code is left in it.
    assert code.secret not in json.dumps(good)


def _node_key() -> str:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = ec.generate_private_key(ec.SECP384R1()).public_key()
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def test_a_body_that_is_too_large_is_not_read_to_its_end(hub: Hub) -> None:
    hub.refused(413, "too_large", post(b" " * 8193))
    hub.refused(400, "malformed", post(b" " * 8192))
    taken: list[int] = []
    answered: list[Any] = []

    async def receive() -> dict[str, Any]:
        taken.append(1024)
        return {"type": "http.request", "body": b" " * 1024, "more_body": True}

    async def send(message: Any) -> None:
        answered.append(message)

    scope = {"type": "http", "method": "POST", "path": JOIN_PATH, "headers": [], "query_string": b"",
             "client": ("192.0.2.1", 4711), "server": ("127.0.0.1", 1), "scheme": "https", "root_path": ""}  # fmt: skip
    asyncio.run(door(hub.folder)(scope, receive, send))
    assert answered[0]["status"] == 413 and sum(taken) == 9 * 1024


def test_a_body_that_never_ends_is_given_up(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wardround.server.door.BODY_SECONDS", 0.3)
    with socket.create_connection(("127.0.0.1", hub.folder.about.public_port)) as plain:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(hub.folder.ca)
        with context.wrap_socket(plain, server_hostname="127.0.0.1") as sock:
            sock.sendall(f"POST {JOIN_PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 4000\r\n\r\n{{".encode())
            sock.settimeout(10)
            answer = b""
            while part := sock.recv(4096):
                answer += part
    assert b" 408 " in answer and answer.endswith(b'{"error":"too_slow"}')


def test_other_paths_and_methods_are_not_here(hub: Hub) -> None:
    for path in (JOIN_PATH + "/", ROSTER_PATH + "/x", "/", "/docs", "/openapi.json", "/v1/fleet/wardround/../join"):
        hub.refused(404, "not_here", post(b"{}", path))
    hub.refused(405, "not_here", lambda client: client.get(JOIN_PATH))
    hub.refused(405, "not_here", lambda client: client.delete(ROSTER_PATH))


def test_who_asks_too_often_has_to_wait(hub: Hub, sites: dict[str, SiteFolder]) -> None:
    hub.limit.per_address = 3
    code = hub.enrolment.invite("north", 1)
    north = sites["north"].identity().public.key
    for _ in range(3):
        hub.refused(
            403, "refused", post(JoinRequest.made(bytes(32), "north", north, _node_key()).model_dump_json().encode())
        )
    right = JoinRequest.made(code.proof_key, "north", north, _node_key()).model_dump_json().encode()
    hub.refused(429, "slow_down", post(right))
    hub.refused(429, "slow_down", lambda client: client.get(ROSTER_PATH))
    hub.limit.per_address = 30
    with hub.client() as client:
        assert client.post(JOIN_PATH, content=right).status_code == 200


def test_the_rate_is_counted_by_address_and_in_total_over_a_minute() -> None:
    limit = RateLimit(per_address=2, in_total=5)
    assert [limit.allows("192.0.2.1", 0.0) for _ in range(3)] == [True, True, False]
    assert limit.allows("::ffff:192.0.2.1", 1.0) is False
    assert [limit.allows(f"2001:db8::{n}", 2.0) for n in range(3)] == [True, True, False]
    assert limit.allows("2001:db8:0:1::1", 3.0) and not limit.allows("192.0.2.9", 4.0)
    assert limit.allows("192.0.2.1", 60.0) and limit.allows("192.0.2.9", 60.0)
    # What has left the window leaves the memory too.
    assert limit.allows("192.0.2.7", 1000.0) and len(limit._counts) == len(limit._all) == 1


def test_the_roster_in_force_is_given_in_its_own_bytes(hub: Hub) -> None:
    hub.refused(404, "none", lambda client: client.get(ROSTER_PATH))
    owner = {"legal_entity": "North", "controlling_authority": "County"}
    roster = Roster.model_validate(
        {"consortium": "Hearts", "epoch": 1, "previous": None, "issued": date(2026, 11, 1),
         "expires": date(2027, 10, 31),
         "coordinator": {"legal_entity": "Midland", "controlling_authority": "Midland",
                         "key": hub.folder.identity().public.key.hex()},
         "parties": [owner | {"site": "north", "key": Identity.generate("north").public.key.hex(),
                              "valid_from": date(2026, 1, 1), "valid_until": date(2028, 1, 1)}],
         "governance": {"m": 1, "keys": {"anna": ANNA.public.key.hex()}}}
    ).signed_by(ANNA)  # fmt: skip
    hub.enrolment.propose(roster.canonical)
    with hub.client() as client:
        answer = client.get(ROSTER_PATH)
    assert answer.content == roster.canonical and Roster.parse(answer.content) == roster


def test_a_broken_database_is_one_word_too(hub: Hub) -> None:
    request = JoinRequest.made(bytes(32), "north", bytes(32), _node_key()).model_dump_json().encode()
    hub.folder.database.with_name("coordinator.sqlite").rename(hub.folder.path / "aside")
    for name in ("coordinator.sqlite-wal", "coordinator.sqlite-shm"):
        (hub.folder.path / name).unlink(missing_ok=True)
    hub.folder.database.write_bytes(b"no database " * 1000)
    with hub.client() as client:
        for answer in (client.post(JOIN_PATH, content=request), client.get(ROSTER_PATH)):
            assert (answer.status_code, answer.json()) == (503, {"error": "unavailable"})
