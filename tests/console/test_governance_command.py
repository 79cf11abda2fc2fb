"""``wardround governance``: a roster from YAML to enough signatures, and what an officer is shown before signing."""

import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml

from wardround.client.store.keys import fingerprint, write_officer_key
from wardround.console.cli import main
from wardround.protocol.identity import Identity
from wardround.protocol.roster import Roster, check_first, check_next

WORDS = "a long enough passphrase"
SITES = {name: Identity.generate(name) for name in ("aarau", "bern", "chur")}
OFFICERS = {name: Identity.generate(name) for name in ("anna", "ben", "carl", "eva")}
CARRIER = Identity.generate("carrier")
TODAY = datetime.now(UTC).date()


@dataclass(frozen=True, slots=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


def command(*words: object, typed: str = "") -> Done:
    """The whole command line, in this process because a new one takes a second."""
    out, err, code = StringIO(), StringIO(), 0
    with (
        mock.patch.object(sys, "argv", ["wardround", "governance", *map(str, words)]),
        mock.patch.object(sys, "stdin", StringIO(typed)),
        mock.patch.dict(os.environ, {"WARDROUND_PASSPHRASE": WORDS}),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
    return Done(code, out.getvalue(), err.getvalue())


def described(**changes: Any) -> str:
    """The YAML of a consortium; sites in no order."""
    party = {"valid_from": TODAY, "valid_until": TODAY + timedelta(days=365)}
    fields = {
        "consortium": "Alpine hearts",
        "issued": TODAY,
        "expires": TODAY + timedelta(days=365),
        "coordinator": {
            "legal_entity": "Carrier Ltd",
            "controlling_authority": "Carrier Ltd",
            "key": CARRIER.public.key.hex(),
        },
        "parties": [
            party
            | {
                "site": name,
                "legal_entity": f"Hospital {name}",
                "controlling_authority": f"Canton {name}",
                "key": site.public.key.hex(),
            }
            for name, site in reversed(SITES.items())
        ],
        "governance": {"m": 2, "keys": {name: OFFICERS[name].public.key.hex() for name in ("anna", "ben", "carl")}},
    }
    return yaml.safe_dump(fields | changes)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The officers' keys, an unsigned roster, and the same one signed by two."""
    folder = tmp_path_factory.mktemp("officers")
    for officer in OFFICERS.values():
        write_officer_key(folder / f"{officer.site}.key", officer, WORDS)
    (folder / "one.yaml").write_text(described())
    done = command("new", folder / "one.yaml", "--out", folder / "unsigned.json")
    assert done.returncode == 0, done.stderr
    roster = Roster.parse((folder / "unsigned.json").read_bytes())
    for name in ("anna", "ben"):
        roster = roster.signed_by(OFFICERS[name])
    (folder / "one.json").write_bytes(roster.canonical)
    return folder


def epoch_two(place: Path, tmp_path: Path, edit: Any) -> Path:
    fields = yaml.safe_load(described())
    edit(fields)
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(fields))
    out = tmp_path / "two.json"
    done = command("new", tmp_path / "two.yaml", "--previous", place / "one.json", "--out", out)
    assert done.returncode == 0, done.stderr
    return out


def test_two_officers_sign_one_after_the_other_and_the_site_can_pin_it(place: Path, tmp_path: Path) -> None:
    first = command("sign", place / "unsigned.json", "--key", place / "anna.key", "--yes", "--out", tmp_path / "r.json")
    assert first.returncode == 0 and first.stderr == ""
    assert "signed by anna. Signed by 1 of 2 officers of this roster (anna): 1 missing." in first.stdout
    second = command("sign", tmp_path / "r.json", "--key", place / "ben.key", "--yes")
    assert "Signed by 2 of 2 officers of this roster (anna, ben): enough." in second.stdout
    roster = Roster.parse((tmp_path / "r.json").read_bytes())
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]
    assert roster.fingerprint in first.stdout
    check_first(roster, roster.fingerprint)
    assert roster == Roster.parse((place / "one.json").read_bytes())


def test_the_fingerprint_is_computed_from_the_bytes_and_not_read(place: Path, tmp_path: Path) -> None:
    text = json.loads((place / "one.json").read_bytes())
    text["parties"][0]["key"] = "ab" * 32
    changed = tmp_path / "changed.json"
    changed.write_bytes(json.dumps(text, sort_keys=True, separators=(",", ":")).encode())
    shown, honest = command("show", changed), command("show", place / "one.json")
    assert shown.stdout.splitlines()[1] != honest.stdout.splitlines()[1]
    assert "0 of 2 officers of this roster (nobody): 2 missing" in shown.stdout


def test_an_officer_reads_every_name_and_key_before_signing(place: Path) -> None:
    shown = command("show", place / "unsigned.json").stdout
    for site in SITES.values():
        owner = f"{site.site}: Hospital {site.site}, controlled by Canton {site.site}"
        assert f"{owner}; key {fingerprint(site.public.key)}" in shown
    for name in ("anna", "ben", "carl"):
        assert f"{name}: key {fingerprint(OFFICERS[name].public.key)}" in shown
    for part in ("epoch 1", "Carrier Ltd", "2 of 3 must sign", "no site under the authority of the coordinator"):
        assert part in shown


def test_a_process_of_its_own_does_the_same(place: Path) -> None:
    line = [sys.executable, "-m", "wardround.console.cli", "governance", "show", str(place / "one.json")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, command("show", place / "one.json").stdout)


def test_who_says_no_signs_nothing(place: Path) -> None:
    before = (place / "unsigned.json").read_bytes()
    done = command("sign", place / "unsigned.json", "--key", place / "anna.key", typed="n\n")
    assert done.returncode == 1 and "Not signed." in done.stdout and "Sign this roster?" in done.stdout
    assert (place / "unsigned.json").read_bytes() == before


def test_who_says_yes_signs(place: Path, tmp_path: Path) -> None:
    words = ("sign", place / "unsigned.json", "--key", place / "anna.key", "--out", tmp_path / "r.json")
    assert command(*words, typed="y\n").returncode == 0
    assert Roster.parse((tmp_path / "r.json").read_bytes()).signatures.keys() == {
        OFFICERS["anna"].public.key.hex(),
    }


def test_the_next_epoch_shows_what_changes_and_needs_both_governances(place: Path, tmp_path: Path) -> None:
    other, dora = Identity.generate("bern"), Identity.generate("dora")

    def edit(fields: Any) -> None:
        aarau, bern = sorted(fields["parties"], key=lambda party: party["site"])[:2]
        new = bern | {"site": "davos", "key": Identity.generate("davos").public.key.hex()}
        bern |= {"key": other.public.key.hex(), "controlling_authority": "Carrier Ltd"}
        aarau["valid_until"] = TODAY + timedelta(days=30)
        fields["parties"] = [new, bern, aarau]
        fields["governance"]["keys"] = {
            "ben": OFFICERS["ben"].public.key.hex(),
            "dora": dora.public.key.hex(),
            "eva": OFFICERS["eva"].public.key.hex(),
        }

    two = epoch_two(place, tmp_path, edit)
    done = command("sign", two, "--key", place / "anna.key", "--previous", place / "one.json", "--yes")
    assert done.returncode == 0, done.stderr
    keys = f"now {fingerprint(other.public.key)}, before {fingerprint(SITES['bern'].public.key)}"
    for part in (
        "NEW SITE davos: Hospital bern, controlled by Canton bern",
        "SITE GONE chur",
        f"KEY CHANGED of site bern: {keys}",
        "CONTROL CHANGED of site bern: now Carrier Ltd, before Canton bern",
        f"site aarau: valid {TODAY} to {TODAY + timedelta(days=30)}, before",
        f"NEW OFFICER dora: key {fingerprint(dora.public.key)}",
        "OFFICER GONE anna",
        "One legal entity, Hospital bern: bern, davos. A session takes one of them.",
        "(Carrier Ltd) and bern are under one authority: secure aggregation protects against outsiders only",
        "0 of 2 officers of this roster (nobody): 2 missing; 1 of 2 officers of epoch 1 (anna): 1 missing",
    ):
        assert part in done.stdout, part
    assert "KEY CHANGED of site aarau" not in done.stdout
    for name in ("ben", "eva"):
        last = command("sign", two, "--key", place / f"{name}.key", "--previous", place / "one.json", "--yes")
    assert "(ben, eva): enough; 2 of 2 officers of epoch 1 (anna, ben): enough." in last.stdout
    check_next(Roster.parse((place / "one.json").read_bytes()), Roster.parse(two.read_bytes()))


def test_an_epoch_without_changes_says_so(place: Path, tmp_path: Path) -> None:
    two = epoch_two(place, tmp_path, lambda fields: None)
    shown = command("show", two, "--previous", place / "one.json").stdout
    assert "Against epoch 1:\n  nothing but dates\n" in shown


def test_from_epoch_2_on_nobody_signs_without_the_roster_before(place: Path, tmp_path: Path) -> None:
    two = epoch_two(place, tmp_path, lambda fields: None)
    done = command("sign", two, "--key", place / "anna.key", "--yes")
    assert done.returncode == 2 and "without seeing what changes" in done.stderr
    assert Roster.parse(two.read_bytes()).signatures == {}


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("sign", "{}/unsigned.json", "--key", "{}/eva.key", "--yes"), "no governance key"),
        (("sign", "{}/unsigned.json", "--key", "{}/anna.key", "--yes", "--out", "{}/one.yaml"), "exists already"),
        (("sign", "{}/unsigned.json", "--key", "{}/one.yaml", "--yes"), "others may read"),
        (("sign", "{}/one.yaml", "--key", "{}/anna.key", "--yes"), "this is no roster"),
        (("show", "{}/none.json"), "cannot be read"),
        (("show", "{}/one.json", "--previous", "{}/unsigned.json"), "never was in force"),
        (("show", "{}/one.json", "--previous", "{}/one.json"), "second roster of epoch 1"),
        (("new", "{}/one.yaml", "--out", "{}/one.json"), "exists already"),
        (("new", "{}/one.json", "--out", "{}/x.json"), "does not describe a roster"),
        (("new", "{}/anna.key", "--out", "{}/x.json"), "does not describe a roster"),
    ],
)
def test_what_is_wrong_is_said_in_two_lines_and_changes_no_file(place: Path, words: tuple[str, ...], why: str) -> None:
    before = {path: path.read_bytes() for path in place.iterdir()}
    done = command(*(word.format(place) for word in words))
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 2 and len(lines) == 2 and why in lines[0], done.stderr
    assert lines[1].startswith("wardround: hint: ")
    assert {path: path.read_bytes() for path in place.iterdir()} == before


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (described(parties=[]), "at least 1 item"),
        (described(governance={"m": 1, "keys": {"anna": "ab" * 32, "ben": "cd" * 32}}), "more than half"),
        (described(consortium="\x1b[2J"), "invisible characters"),
        (described(epoch=7), "does not describe a roster"),
        (described(mood="good"), "mood"),
        ("parties: [", "is no YAML"),
    ],
)
def test_yaml_that_makes_no_roster_is_refused(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    done = command("new", tmp_path / "bad.yaml", "--out", tmp_path / "x.json")
    assert done.returncode == 2 and why in done.stderr and "\x1b" not in done.stderr
    assert not (tmp_path / "x.json").exists()


def test_an_expired_roster_is_shown_and_not_signed(place: Path, tmp_path: Path) -> None:
    days = {"issued": TODAY - timedelta(days=9), "expires": TODAY - timedelta(days=1)}
    (tmp_path / "old.yaml").write_text(described(**days))
    assert command("new", tmp_path / "old.yaml", "--out", tmp_path / "old.json").returncode == 0
    assert "no session begins with it" in command("show", tmp_path / "old.json").stdout
    done = command("sign", tmp_path / "old.json", "--key", place / "anna.key", "--yes")
    assert done.returncode == 2 and "has expired" in done.stderr
