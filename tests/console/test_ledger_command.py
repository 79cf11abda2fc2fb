"""``wardround ledger``: what holds in some lines, what does not in two, and a recovery that two officers sign."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from wardround.client.governance import open_domain
from wardround.client.store.folder import SiteFolder
from wardround.client.store.keys import write_officer_key
from wardround.protocol.events import PoissonGaussian
from wardround.protocol.identity import Identity
from wardround.protocol.ledger import Grant, Reserve, Start, approve

EVENT = PoissonGaussian(noise_multiplier=2.0, sampling_probability=0.25, steps=5, declared_patients=200)
WORDS = "a long enough passphrase"


def command(*words: Any, **environment: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "wardround.console.cli", "ledger", *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, timeout=120, env=environment or None)


@pytest.fixture(scope="module")
def north(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site whose ledger holds one round, a copy of it from before, and both officers' keys."""
    place = tmp_path_factory.mktemp("north")
    officers = [Identity.generate(name) for name in ("anna", "ben")]
    folder = SiteFolder.create(place / "site", "north", [officer.public for officer in officers])
    for officer in officers:
        write_officer_key(place / f"{officer.site}.key", officer, WORDS)
    ledger, key = folder.ledger(), folder.identity().public.key.hex()
    ledger.record(approve(open_domain("training", 8.0, 1e-4), key, officers[0]))
    ledger.record(approve(Grant(domain="training", plan="ab" * 32, event=EVENT, blocks=15), key, officers[0]))
    ledger._store.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copytree(place / "site", place / "before")
    ledger.reserve(Reserve(domain="training", block="b1", plan="ab" * 32, round_number=1, event=EVENT))
    ledger.record(Start(block="b1"))
    ledger.close()
    (place / "head.txt").write_bytes(command("checkpoint", place / "site").stdout.encode())
    return place


def test_a_ledger_that_holds_is_described_with_the_terms_of_its_epsilon(north: Path) -> None:
    done = command("verify", north / "site" / "ledger.sqlite", "--against", north / "head.txt")
    text = " ".join(done.stdout.split())
    assert done.returncode == 0 and done.stderr == ""
    for part in ("'north' holds: 6 entries", "continues the 1 checkpoint", "1 rounds charged", "of at most 8", "delta",
                 "one patient of one site", "add or remove", "whoever colludes"):  # fmt: skip
        assert part in text


def test_the_description_as_json_agrees_with_the_file(north: Path) -> None:
    data = json.loads(command("verify", north / "site" / "ledger.sqlite", "--json").stdout)
    shown = [json.loads(line) for line in command("show", north / "site" / "ledger.sqlite").stdout.splitlines()]
    assert data["entries"] == len(shown) == 6 and data["key"] == shown[0]["fact"]["key"]
    assert [entry["number"] for entry in shown] == [1, 2, 3, 4, 5, 6]
    assert data["domains"][0]["blocks"] == 1 and data["domains"][0]["delta"] == 1e-4
    again = command("verify", north / "site" / "ledger.sqlite", "--key", data["key"])
    assert "the key that you gave" in again.stdout


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("verify", "{}/before/ledger.sqlite", "--against", "{}/head.txt"), "others have seen 6 entries"),
        (("verify", "{}/site/ledger.sqlite", "--key", "00" * 32), "entry 1: it names another key"),
        (("verify", "{}/site/ledger.sqlite", "--key", "x"), "64 hex digits"),
        (("verify", "{}/site/ledger.sqlite", "--against", "{}/anna.key"), "is no checkpoint"),
        (("verify", "{}/head.txt"), "cannot be read as a ledger"),
        (("verify", "{}/nothing"), "there is no file"),
        (("show", "{}/head.txt"), "cannot be read as a ledger"),
        (("checkpoint", "{}"), "is no site's folder"),
        (
            ("recover", "{}/before", "--seen", "{}/head.txt", "--witness", "south", "--reason", "x"),
            "a recovery needs 2 officers",
        ),
    ],
)
def test_what_is_wrong_is_said_in_two_lines(north: Path, words: tuple[str, ...], why: str) -> None:
    done = command(*(word.format(north) for word in words))
    lines = done.stderr.strip().splitlines()
    assert done.returncode != 0 and len(lines) == 2 and why in lines[0], done.stderr
    assert lines[1].startswith("wardround: hint: ")


def test_a_ledger_that_was_put_back_goes_on_behind_two_officers_signatures(north: Path, tmp_path: Path) -> None:
    import os

    site = tmp_path / "site"
    shutil.copytree(north / "before", site)
    words = ["recover", site, "--seen", north / "head.txt", "--witness", "south", "--reason", "disk replaced"]
    keys = ["--officer-key", north / "anna.key", "--officer-key", north / "ben.key"]
    environment = os.environ | {"WARDROUND_PASSPHRASE": WORDS}
    same = command(*words, "--officer-key", north / "anna.key", "--officer-key", north / "anna.key", **environment)
    assert same.returncode != 0 and "signatures of 2 officers" in same.stderr
    wrong = command(*words, *keys, **os.environ | {"WARDROUND_PASSPHRASE": "another passphrase"})
    assert wrong.returncode != 0 and "check the passphrase" in wrong.stderr
    done = command(*words, *keys, **environment)
    assert done.returncode == 0 and "2 of plan abababababababab on 'training'" in " ".join(done.stdout.split())
    verified = command("verify", site / "ledger.sqlite", "--against", north / "head.txt")
    assert "Recoveries after a restored copy: 1." in verified.stdout
    assert "nothing to recover" in command(*words, *keys, **environment).stdout
    assert "nothing to recover" in command("recover", north / "site", *words[2:], *keys, **environment).stdout
