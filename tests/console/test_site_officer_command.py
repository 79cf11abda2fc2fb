"""``site officer``: the page docs/officer-keys.md, command by command, against a real office and on the bare folder."""

import re
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from wardround.client.control.server import ControlServer
from wardround.client.daemon import DaemonStatus
from wardround.client.office import Office
from wardround.client.settings import Roles
from wardround.client.store.database import open_store
from wardround.client.store.folder import SiteFolder
from wardround.client.store.keys import fingerprint, write_officer_key
from wardround.client.store.studies import Studies
from wardround.conf.compose import compose_configuration
from wardround.conf.planning import make_plan
from wardround.conf.schema import parse_configuration
from wardround.console.cli import app
from wardround.console.commands.ledger import PASSPHRASE
from wardround.console.commands.site_officer import list_command, name_command, suspend_command
from wardround.console.commands.site_study import approve_command, domain_open_command
from wardround.console.notices.looking import Looker
from wardround.console.notices.watching import notices
from wardround.protocol.errors import UsageError
from wardround.protocol.identity import Identity
from wardround.protocol.messages import Standing
from wardround.protocol.plan import StudyPlan

PAGE = Path(__file__).parents[2] / "docs" / "officer-keys.md"
WORDS = "correct horse battery"


class Daemon:
    """What the office asks of a daemon, remembered."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def status(self) -> DaemonStatus:
        return DaemonStatus("north", "running", "up", "", "", "", 0, 0, "1", "00", 1, 0.0, "")

    def pause(self, reason: str) -> None:
        self.said.append("pause")

    def resume(self) -> None:
        self.said.append("resume")

    def stop(self) -> None:
        self.said.append("stop")

    def interrupt(self, plan: str) -> None:
        self.said.append(f"interrupt {plan[:6]}")

    def let(self, plan: str) -> None:
        self.said.append(f"let {plan[:6]}")

    def report(self, plan: StudyPlan, store: Any) -> str:
        return "{}"


class Site:
    """The folder ``north`` with three officers' key files and cards beside it, and a study that anna has approved."""

    def __init__(self, path: Path) -> None:
        self.officers = [Identity.generate(name) for name in ("anna", "ben", "carl")]
        for one in self.officers:
            write_officer_key(path / f"{one.site}.key", one, WORDS)
            card = f'{{"format": "wardround/officer/1", "officer": "{one.site}", "key": "{one.public.key.hex()}"}}'
            (path / f"{one.site}.pub").write_text(card)
        self.made = SiteFolder.create(path / "north", "north", [one.public for one in self.officers])
        self.folder = Path("north")
        declared = "+data.declared={east:200,north:200,south:200}"
        words = ["study=heart_disease", "data.dataset=null", declared, "rounds=15", "privacy.noise_multiplier=2.84"]
        sizes = {"east": 200, "north": 200, "south": 200}
        self.plan = make_plan(parse_configuration(compose_configuration(words)), sizes, datetime.now(UTC).date())
        store = open_store(self.made.database)
        Studies(store).add(self.plan.canonical)
        store.close()
        self.daemon = Daemon()
        self.up()

    def up(self) -> None:
        self.office = Office(self.made, self.daemon)
        self.server = ControlServer(self.made.path / "control.sock", self.office, Roles(), self.made.path / "sockets")
        self.server.start()

    def down(self) -> None:
        self.server.stop()
        self.office.close()
        (self.made.path / "control.sock").unlink(missing_ok=True)

    @property
    def standing(self) -> Standing:
        store = open_store(self.made.database)
        state = self.made.ledger().state
        store.close()
        return Standing.SUSPENDED if state.plan_suspended_by(self.plan.digest) else Standing.APPROVED


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    folder = Path(tempfile.mkdtemp(prefix="wr-", dir="/tmp"))
    monkeypatch.chdir(folder)
    monkeypatch.setenv(PASSPHRASE, WORDS)
    made = Site(folder)
    domain_open_command(made.folder, "training", 8.0, 200, [Path("anna.key")], True)
    approve_command(made.folder, "heart_disease", [Path("anna.key")], "training", 1, None, True)
    made.daemon.said.clear()
    yield made
    made.down()
    shutil.rmtree(folder)


def commands() -> list[list[str]]:
    """The commands of the page, in its order."""
    import shlex

    blocks = re.findall(r"^ *```\n(.*?)^ *```", PAGE.read_text(), flags=re.S | re.M)
    return [shlex.split(line)[1:] for block in blocks for line in block.splitlines() if line.strip()]


def run(words: list[str]) -> str:
    result = CliRunner().invoke(app, words, input="y\n")
    assert result.exit_code == 0, (words, result.output, result.exception)
    return result.output


def test_every_command_of_the_page_does_what_the_page_says(site: Site) -> None:
    Path("new").mkdir()
    short, found = site.plan.digest[:6], {}
    for words in commands():
        name = " ".join(words[1:3]) if words[0] == "site" else " ".join(words[:2])
        found[name] = run(words)
        if name == "officer suspend":
            assert site.daemon.said == ["pause", f"interrupt {short}"]
            assert site.office.study(site.plan.digest).standing is Standing.SUSPENDED
    assert "1 suspended: they wait to be signed again" in found["study list"]
    assert "Suspended: the key of anna was reported stolen on 20" in found["study show"]
    assert "wardround site study approve FOLDER" in found["officer suspend"]
    listed = found["officer list"]
    assert "SUSPENDED: stolen, reported 20" in listed and "(laptop bag, on the train)" in listed
    assert re.search(r"approval of heart_disease on 'training': SUSPENDED until it is signed again", listed)
    assert "Signed again." in found["domain open"]
    assert site.office.study(site.plan.digest).standing is Standing.APPROVED
    assert site.daemon.said == [
        "pause",
        f"interrupt {short}",
        f"interrupt {short}",
        f"let {short}",
        f"let {short}",
        "resume",
    ]
    assert "holds" in found["ledger verify"]
    roll = site.office.officers()
    assert [(one.name, one.may_sign) for one in roll.keys] == [
        ("anna", True),
        ("ben", True),
        ("carl", True),
        ("anna", False),
    ]


def test_without_a_daemon_the_key_is_suspended_on_the_folder_and_a_daemon_that_starts_finds_it(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.down()
    card = Path("anna.pub")
    suspend_command(site.folder, str(card), "lost", "", Path("anna.key"), True)
    said = capsys.readouterr().out
    assert "May sign now: ben, carl." in said and "the budget of 'training'" in said
    list_command(site.folder)
    assert "SUSPENDED: lost" in capsys.readouterr().out
    site.up()
    assert site.office.study(site.plan.digest).standing is Standing.SUSPENDED
    assert site.daemon.said == []


def test_a_key_is_named_by_card_fingerprint_hex_or_officer_and_anything_else_says_what_there_is(site: Site) -> None:
    anna = site.officers[0].public.key
    with pytest.raises(UsageError, match="no one officer's key here") as error:
        suspend_command(site.folder, "dora", "lost", "", Path("ben.key"), True)
    assert fingerprint(anna) in error.value.hint
    suspend_command(site.folder, fingerprint(anna).upper(), "lost", "", Path("ben.key"), True)
    with pytest.raises(UsageError, match="suspended already"):
        suspend_command(site.folder, anna.hex(), "lost", "", Path("ben.key"), True)


def test_with_too_few_keys_left_it_says_so_and_no_new_list_is_taken(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("anna", "ben"):
        suspend_command(site.folder, name, "stolen", "", Path("carl.key"), True)
    assert "A new list of officers takes 2 of them: too few are left" in capsys.readouterr().out
    with pytest.raises(UsageError, match="2 officers"):
        name_command(site.folder, [Path("carl.pub")], [Path("carl.key")], True)


def test_people_are_told_once_that_a_study_waits_to_be_signed_again(site: Site) -> None:
    def told() -> list[Any]:
        found = notices(Looker(site.made).look(datetime.now(UTC)))
        return [notice for notice in found if notice.key.startswith("officer-keys")]

    assert told() == []
    suspend_command(site.folder, "anna", "stolen", "", Path("ben.key"), True)
    (notice,) = told()
    assert notice.sentence == "An officer's key was suspended. Studies to be signed again: 1."
    assert notice.level.value == "now" and "site officer list" in notice.cure and told() == [notice]
