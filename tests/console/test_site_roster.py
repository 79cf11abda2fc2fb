"""``wardround site roster``: pinned by telephone, followed by signatures, and what it says of who directs whom."""

import json
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from datetime import date
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from wardround.client.store.evidence import Evidence
from wardround.client.store.folder import SiteFolder
from wardround.console.cli import main
from wardround.protocol.identity import Identity
from wardround.protocol.roster import Roster

ANNA, BEN, CARL, SOUTH, CARRIER = (Identity.generate(name) for name in ("anna", "ben", "carl", "south", "carrier"))


def command(*words: Any, group: tuple[str, ...] = ("roster",)) -> subprocess.CompletedProcess[str]:
    line, out, err = ["wardround", "site", *group, *map(str, words)], StringIO(), StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", line)
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
    return subprocess.CompletedProcess(line, code, out.getvalue(), err.getvalue())


@pytest.fixture
def north(tmp_path: Path) -> SiteFolder:
    return SiteFolder.create(tmp_path / "north", "north", [ANNA.public, BEN.public])


def roster(north: SiteFolder, behind: Roster | None = None, officers: tuple[Identity, ...] = (ANNA, BEN),
           authority: str = "County") -> Roster:  # fmt: skip
    parties = [
        {"site": site, "key": key.hex(), "legal_entity": f"{site} trust", "controlling_authority": authority,
         "valid_from": date(2026, 1, 1), "valid_until": date(2030, 1, 1)}
        for site, key in (("north", north.identity().public.key), ("south", SOUTH.public.key))
    ]  # fmt: skip
    made = Roster.model_validate(
        {"consortium": "Hearts", "epoch": behind.epoch + 1 if behind else 1, "previous": behind and behind.digest,
         "issued": date(2026, 11, 1), "expires": date(2027, 10, 31), "parties": parties,
         "coordinator": {"legal_entity": "Midland", "controlling_authority": "Midland",
                         "key": CARRIER.public.key.hex()},
         "governance": {"m": 2, "keys": {o.site: o.public.key.hex() for o in (ANNA, BEN, CARL)}}}
    )  # fmt: skip
    for officer in officers:
        made = made.signed_by(officer)
    return made


def test_a_roster_is_pinned_followed_and_shown(north: SiteFolder, tmp_path: Path) -> None:
    first = roster(north)
    second = roster(north, first, authority="Midland")
    for number, each in enumerate((first, second), start=1):
        (tmp_path / f"{number}.json").write_bytes(each.canonical)
    assert "holds no roster yet" in command("show", north.path).stderr
    told = command("pin", north.path, tmp_path / "1.json", "--fingerprint", first.fingerprint)
    assert (
        told.returncode == 0 and "epoch 1 of 'Hearts'" in told.stdout and "against the coordinator too" in told.stdout
    )
    told = command("next", north.path, tmp_path / "2.json")
    assert (
        told.returncode == 0
        and "protects against outsiders only" in told.stdout
        and "Sites: north, south." in told.stdout
    )
    assert command("show", north.path).stdout == told.stdout


def test_another_roster_than_was_read_out_is_refused_in_two_lines(north: SiteFolder, tmp_path: Path) -> None:
    (tmp_path / "1.json").write_bytes(roster(north).canonical)
    told = command("pin", north.path, tmp_path / "1.json", "--fingerprint", "00" * 32)
    assert told.returncode != 0 and len(told.stderr.strip().splitlines()) == 2
    assert "another roster than the officers agreed on" in told.stderr
    told = command("pin", north.path, tmp_path / "none.json", "--fingerprint", "00" * 32)
    assert told.returncode != 0 and "cannot be read" in told.stderr


def test_evidence_against_officers_is_shown(north: SiteFolder, tmp_path: Path) -> None:
    first, other = roster(north), roster(north, officers=(BEN, CARL), authority="Other")
    (tmp_path / "1.json").write_bytes(first.canonical)
    (tmp_path / "other.json").write_bytes(other.canonical)
    command("pin", north.path, tmp_path / "1.json", "--fingerprint", first.fingerprint)
    told = command("next", north.path, tmp_path / "other.json")
    assert told.returncode != 0 and "officers who signed both: ben" in told.stderr
    assert "Evidence: a second roster of epoch 1, signed by ben as well." in command("show", north.path).stdout


def test_evidence_is_listed_and_given_out_whole(north: SiteFolder) -> None:
    told = command("evidence", north.path, group=())
    assert told.returncode == 0 and "No evidence" in told.stdout
    ledger = north.ledger()
    Evidence(ledger._store, "north").keep("request", b'{"header":{},"signature":"00"}')
    told = command("evidence", north.path, group=())
    assert "request" in told.stdout and "SHA-256" in told.stdout
    (row,) = json.loads(command("evidence", north.path, "--json", group=()).stdout)
    assert row["kind"] == "request" and row["content"] == '{"header":{},"signature":"00"}'
