"""The operator's and the hospital's commands of enrolment, from an empty folder to a pinned roster."""

import io
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from wardround.client.link import LinkFolder
from wardround.client.store.database import open_store
from wardround.client.store.folder import SiteFolder
from wardround.client.store.keys import fingerprint
from wardround.client.store.roster import PinnedRoster
from wardround.console.commands.coordinator_enrol import (
    init_command,
    invite_command,
    renew_command,
    roster_propose_command,
    roster_revoke_command,
    roster_show_command,
)
from wardround.console.commands.site_join import join_command
from wardround.protocol.errors import ProtocolViolation, Unavailable, UsageError
from wardround.protocol.identity import Identity
from wardround.protocol.invitation import Invitation
from wardround.protocol.roster import Roster
from wardround.server.certificates import issue, own_ca
from wardround.server.door import door
from wardround.server.folder import CoordinatorFolder

ANNA = Identity.generate("anna")
HTTP = "http:" + "//"


def said(command: Callable[..., None], *arguments: Any) -> str:
    """What a command prints."""
    with redirect_stdout(io.StringIO()) as output:
        command(*arguments)
    return output.getvalue()


@contextmanager
def serving(hub: CoordinatorFolder, sock: socket.socket) -> Iterator[None]:
    config = uvicorn.Config(
        door(hub), lifespan="off", ws="none", log_config=None,
        ssl_certfile=hub.certificate, ssl_keyfile=hub.certificate_key,
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(60)
        sock.close()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[CoordinatorFolder]:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    said(init_command, tmp_path / "hub", "Hearts", "127.0.0.1", sock.getsockname()[1], None, None, None)
    made = CoordinatorFolder.open(tmp_path / "hub")
    with serving(made, sock):
        yield made


@pytest.fixture
def north(tmp_path: Path) -> SiteFolder:
    return SiteFolder.create(tmp_path / "north", "north", [ANNA.public])


def code_for(hub: CoordinatorFolder, site: str = "north") -> str:
    return said(invite_command, hub.path, site, 7).splitlines()[0]


def roster(hub: CoordinatorFolder, *sites: SiteFolder, behind: Roster | None = None, **changes: Any) -> Roster:
    fields: dict[str, Any] = {
        "consortium": "Hearts", "epoch": 1 if behind is None else behind.epoch + 1,
        "previous": None if behind is None else behind.digest, "issued": date(2026, 11, 1),
        "expires": date(2027, 10, 31),
        "coordinator": {"legal_entity": "Midland", "controlling_authority": "Midland",
                        "key": hub.identity().public.key.hex()},
        "parties": [{"site": site.site, "key": site.identity().public.key.hex(), "legal_entity": f"{site.site} trust",
                     "controlling_authority": f"{site.site} county", "valid_from": date(2026, 1, 1),
                     "valid_until": date(2028, 1, 1)} for site in sites],
        "governance": {"m": 1, "keys": {"anna": ANNA.public.key.hex()}},
    }  # fmt: skip
    return Roster.model_validate(fields | changes).signed_by(ANNA)


def propose(hub: CoordinatorFolder, made: Roster) -> str:
    file = hub.path.parent / f"epoch-{made.epoch}.json"
    file.write_bytes(made.canonical)
    return said(roster_propose_command, hub.path, file)


def held(site: SiteFolder) -> Roster | None:
    return PinnedRoster(open_store(site.database), site.identity().public).held()


def join_site(site: SiteFolder, code: str, told: str | None = None, link: Path | None = None) -> str:
    return said(join_command, site.path, code, link, None, None, None, told)


def answering(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def test_from_an_empty_folder_to_a_pinned_roster(
    hub: CoordinatorFolder, north: SiteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = code_for(hub)
    assert "north: invited until" in said(roster_show_command, hub.path)
    told = join_site(north, code)
    mine = fingerprint(north.identity().public.key)
    assert mine in told and fingerprint(hub.identity().public.key) in told and "no roster with this site yet" in told
    assert LinkFolder.open(north.path.with_name("north-link")).about.site == "north"
    shown = said(roster_show_command, hub.path)
    assert f"north: {mine}  joined, not yet known to Flower" in shown and "invited" not in shown
    first = roster(hub, north)
    assert first.fingerprint in propose(hub, first)
    # The hospital runs the same command again; now there is a roster to compare.
    answering(monkeypatch, "n\n")
    told = join_site(north, code)
    assert "Nothing was pinned" in told and held(north) is None
    groups = first.fingerprint.split()
    assert " ".join(groups[:4]) in told and " ".join(groups[12:]) in told
    answering(monkeypatch, "y\n")
    assert "Pinned: epoch 1 of 'Hearts'" in join_site(north, code)
    assert held(north) == first
    assert "holds the roster of epoch 1 already" in join_site(north, code)
    assert "joined, in the roster" in said(roster_show_command, hub.path)


def test_a_script_gives_the_fingerprint_and_is_not_asked(hub: CoordinatorFolder, north: SiteFolder) -> None:
    first = roster(hub, north)
    propose(hub, first)
    code = code_for(hub)
    with pytest.raises(ProtocolViolation, match="another roster than the officers agreed on"):
        join_site(north, code, "00" * 32)
    assert held(north) is None
    assert "Pinned: epoch 1" in join_site(north, code, first.fingerprint)
    assert held(north) == first


def test_without_a_person_nothing_is_pinned(
    hub: CoordinatorFolder, north: SiteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    propose(hub, roster(hub, north))
    answering(monkeypatch, "")
    assert "Nothing was pinned" in join_site(north, code_for(hub)) and held(north) is None


def test_a_code_can_come_from_standard_input(
    hub: CoordinatorFolder, north: SiteFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answering(monkeypatch, code_for(hub) + "\n")
    assert "has joined" in join_site(north, "-", link=tmp_path / "elsewhere")
    assert LinkFolder.open(tmp_path / "elsewhere").about.site == "north"


def test_a_roster_that_names_another_coordinator_is_not_pinned(hub: CoordinatorFolder, north: SiteFolder) -> None:
    """The site has pinned the officers' roster already; whoever answers now is not the coordinator in it."""
    other = {"legal_entity": "X", "controlling_authority": "X", "key": Identity.generate("x").public.key.hex()}
    made = roster(hub, north, coordinator=other)
    PinnedRoster(open_store(north.database), north.identity().public).pin(made.canonical, made.fingerprint)
    with pytest.raises(ProtocolViolation, match="names another coordinator"):
        join_site(north, code_for(hub))
    with pytest.raises(UsageError, match="another coordinator's key"):
        propose(hub, made)


def test_proposing_warns_of_who_is_missing_and_refuses_a_wrong_key(
    hub: CoordinatorFolder, north: SiteFolder, tmp_path: Path
) -> None:
    south = SiteFolder.create(tmp_path / "south", "south", [ANNA.public])
    join_site(north, code_for(hub))
    first = roster(hub, south)
    told = propose(hub, first)
    assert "Warning: joined but not in this roster: north." in told and "Not joined yet: south." in told
    assert "joined, NOT in the roster" in said(roster_show_command, hub.path)
    assert "It was in force already." in propose(hub, first)
    impostor = SiteFolder.create(tmp_path / "impostor", "north", [ANNA.public])
    with pytest.raises(ProtocolViolation, match="another key than it joined with"):
        propose(hub, roster(hub, impostor, south, behind=first))
    assert "Warning" not in propose(hub, roster(hub, north, south, behind=first))
    with pytest.raises(Unavailable, match="cannot be read"):
        roster_propose_command(hub.path, tmp_path / "none.json")


def test_revoking_says_what_the_officers_should_do(hub: CoordinatorFolder, north: SiteFolder) -> None:
    code = code_for(hub)
    join_site(north, code)
    assert "next epoch without it" not in said(roster_revoke_command, hub.path, "north")
    assert "was revoked already" in said(roster_revoke_command, hub.path, "north")
    assert "revoked on" in said(roster_show_command, hub.path)
    with pytest.raises(UsageError, match="has revoked this site"):
        join_site(north, code)
    assert "Warning: in this roster although revoked here: north." in propose(hub, roster(hub, north))


def test_revoking_a_site_of_the_roster_asks_for_the_next_epoch(hub: CoordinatorFolder, north: SiteFolder) -> None:
    join_site(north, code_for(hub))
    propose(hub, roster(hub, north))
    assert "sign a next epoch without it" in said(roster_revoke_command, hub.path, "north")


def test_an_invitation_is_a_code_on_a_line_of_its_own(hub: CoordinatorFolder) -> None:
    lines = said(invite_command, hub.path, "north", 3).splitlines()
    code = Invitation.parse(lines[0])
    assert code.site == "north" and code.port == hub.about.public_port and len(lines) == 4
    assert all(code.secret not in line for line in lines[1:])


def test_given_certificates_come_as_three_files(tmp_path: Path) -> None:
    ca, key = own_ca("Clinic", datetime.now(UTC))
    chain = issue(ca, key, "hub.example.org", datetime.now(UTC))
    files = [tmp_path / name for name in ("server.pem", "server.key", "ca.pem")]
    for file, content in zip(files, (chain.server, chain.server_key, chain.ca), strict=True):
        file.write_bytes(content)
    for some in ((files[0], None, None), (files[0], files[1], None), (None, None, files[2])):
        with pytest.raises(UsageError, match="comes with its key and its CA"):
            init_command(tmp_path / "hub", "Hearts", "hub.example.org", 443, *some)
    with pytest.raises(UsageError, match="address to listen at"):
        init_command(tmp_path / "hub", "Hearts", "hub.example.org", 443, None, None, None, "")
    with pytest.raises(UsageError, match="not for the host"):
        init_command(tmp_path / "hub", "Hearts", "other.example.org", 443, *files)
    assert "397 more days" in said(init_command, tmp_path / "hub", "Hearts", "hub.example.org", 443, *files).replace(
        "396", "397"
    )
    assert CoordinatorFolder.open(tmp_path / "hub").ca.read_bytes() == ca
    said(init_command, tmp_path / "inner", "Hearts", "hub.example.org", 443, None, None, None, "192.0.2.7")
    assert CoordinatorFolder.open(tmp_path / "inner").about.listen_host == "192.0.2.7"
    with pytest.raises(UsageError, match="not its own"):
        renew_command(tmp_path / "hub", None, None, None)
    assert "Start the coordinator again" in said(renew_command, tmp_path / "hub", *files)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ((None, "clinic", None), "but no proxy"),
        (("proxy:3128", None, None), "not given as http"),
        ((HTTP + "clinic:hunter2@proxy:3128", None, None), "not given as http"),
        ((HTTP + "proxy:3128", None, Path("none")), "but no user"),
        ((HTTP + "proxy:3128", "clinic", Path("none")), "holds no password"),
    ],
)
def test_a_proxy_is_given_in_parts(north: SiteFolder, options: tuple[Any, ...], fault: str) -> None:
    with pytest.raises(UsageError, match=fault) as told:
        join_command(north.path, "code", None, *options)
    assert "hunter2" not in told.value.lines()
    assert not north.path.with_name("north-link").exists()
