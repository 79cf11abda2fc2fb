"""``wardround site``: a folder with its officers, and the answer to one patient, logged before it is shown."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from wardround.client.governance import open_domain
from wardround.client.store.database import open_store
from wardround.client.store.folder import SiteFolder
from wardround.client.store.keys import fingerprint, write_officer_key
from wardround.client.store.members import Members, Part
from wardround.client.store.opt_outs import OptOuts
from wardround.client.store.verify import verify_file
from wardround.console.cli import main
from wardround.console.commands import site as command_module
from wardround.privacy.accounting import epsilon, rounded_up
from wardround.protocol.events import PoissonGaussian
from wardround.protocol.identity import Identity
from wardround.protocol.ledger import Grant, Release, Reserve, Start, approve

EVENT = PoissonGaussian(noise_multiplier=2.0, sampling_probability=0.25, steps=5, declared_patients=200)
WORDS = "a long enough passphrase"
CANARY = "zx-canary-4417-qj"
PLAN = "ab" * 32


def command(*words: Any, typed: str = "", passphrase: str = WORDS) -> subprocess.CompletedProcess[str]:
    """The command line in this process, so that the accountant is loaded once."""
    line, out, err = ["wardround", *map(str, words)], StringIO(), StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setenv("WARDROUND_PASSPHRASE", passphrase)
        patch.setattr(sys, "argv", line)
        patch.setattr(sys, "stdin", StringIO(typed))
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
    return subprocess.CompletedProcess(line, code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two officers, a stranger who took the name of one, and a site where round 2 of 3 could have drawn the canary."""
    place = tmp_path_factory.mktemp("north")
    officers = [Identity.generate(name) for name in ("anna", "ben")]
    site = SiteFolder.create(place / "site", "north", [officer.public for officer in officers])
    write_officer_key(place / "anna.key", officers[0], WORDS)
    write_officer_key(place / "stranger.key", Identity.generate("anna"), WORDS)
    ledger, key = site.ledger(), site.identity().public.key.hex()
    ledger.record(approve(open_domain("training", 8.0, 1e-4), key, officers[0]))
    ledger.record(approve(Grant(domain="training", plan=PLAN, event=EVENT, blocks=15), key, officers[0]))
    members = Members(ledger._store, site.patients_key())

    def run(number: int) -> None:
        block = f"b{number}"
        ledger.reserve(Reserve(domain="training", block=block, plan=PLAN, round_number=number, event=EVENT))
        ledger.record(Start(block=block))
        ledger.record(Release(block=block, attempt=1, content=f"{number:064x}"))

    run(1)
    members.enrol([CANARY, "other"], "training", Part.TRAIN)
    run(2)
    OptOuts(members).update([CANARY])
    run(3)
    ledger.close()
    return place


@pytest.fixture
def north(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "north"))


def show(north: Path, *words: str, key: str = "anna.key", **more: str) -> subprocess.CompletedProcess[str]:
    return command("site", "patient", "show", *words, "--folder", north / "site", "--officer-key", north / key, **more)


def inquiries(north: Path) -> list[str]:
    shown = command("ledger", "show", north / "site" / "ledger.sqlite").stdout.splitlines()
    facts = [json.loads(line)["fact"] for line in shown]
    return [fact["officer"] for fact in facts if fact["kind"] == "inquiry"]


def test_the_answer_says_could_have_been_drawn_with_all_terms_of_its_epsilon(north: Path) -> None:
    done = show(north, CANARY)
    text = " ".join(done.stdout.split())
    assert done.returncode == 0 and done.stderr == ""
    expected = rounded_up(epsilon([EVENT], 1e-4))
    for part in ("In 'training', for training, since", f"Epsilon {expected} at delta 0.0001", "one patient of one site",
                 "add or remove one patient", "whoever colludes", "rounded up", "epsilon at most 8", "% is left",
                 "Opted out since", f"Study with plan {PLAN}: 1 round(s) could have drawn", "Round 2 on 'training'",
                 f"SHA-256 {2:064x}", "Who was drawn is written down nowhere"):  # fmt: skip
        assert part in text, text
    assert "Round 1" not in text and "Round 3" not in text and "was drawn in" not in text
    assert CANARY not in done.stdout


def test_the_answer_as_json_has_the_same(north: Path) -> None:
    found = json.loads(show(north, "-", "--json", typed=f"{CANARY}\n").stdout)
    (domain,), (study,) = found["domains"], found["studies"]
    assert found["known"] is True and domain["domain"] == "training" and domain["part"] == "train"
    assert domain["epsilon"] == pytest.approx(epsilon([EVENT], 1e-4)) and domain["delta"] == 1e-4
    assert {domain["unit"], domain["adjacency"], domain["against"]} == {
        "one patient of one site", "add or remove one patient", "everyone, whoever colludes"}  # fmt: skip
    assert [row["round_number"] for row in study["rounds"]] == [2]
    assert found["opted_out"][0]["until"] is None and 0.5 < domain["share_left"] < 1


def test_the_inquiry_is_in_the_ledger_before_anything_is_shown(north: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    real = command_module.Ledger.record

    def noted(self: Any, *facts: Any, **more: Any) -> None:
        real(self, *facts, **more)
        order.extend(fact.kind for fact in facts)

    def failing(*arguments: Any) -> Any:
        order.append("looked up")
        raise KeyboardInterrupt

    monkeypatch.setenv("WARDROUND_PASSPHRASE", WORDS)
    monkeypatch.setattr(command_module.Ledger, "record", noted)
    monkeypatch.setattr(command_module, "patient_record", failing)
    with pytest.raises(KeyboardInterrupt):
        command_module.patient_show_command([CANARY], north / "site", north / "anna.key", False)
    assert order == ["inquiry", "looked up"] and inquiries(north) == ["anna"]


def test_an_unknown_patient_is_in_no_domain_and_the_question_is_logged_all_the_same(north: Path) -> None:
    done = show(north, "nobody-Quillfeather")
    assert done.returncode == 0 and "in no data domain" in done.stdout and "Quillfeather" not in done.stdout
    assert inquiries(north) == ["anna"]
    assert verify_file(north / "site" / "ledger.sqlite").entries == 14


def test_nothing_that_stays_has_the_id(north: Path, tmp_path: Path) -> None:
    line = [sys.executable, "-m", "wardround.console.cli", "site", "patient", "show", "-", "--folder", north / "site",
            "--officer-key", north / "anna.key"]  # fmt: skip
    environment = os.environ | {"WARDROUND_PASSPHRASE": WORDS, "TMPDIR": str(tmp_path)}
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, env=environment, input=f"{CANARY}\n")
    assert done.returncode == 0 and "Round 2" in done.stdout and CANARY not in done.stdout + done.stderr
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) >= 7 and CANARY.encode() not in b"".join(path.read_bytes() for path in files)


@pytest.mark.parametrize(
    ("words", "key", "passphrase", "why"),
    [
        ((CANARY,), "stranger.key", WORDS, "'anna' with this key is no officer"),
        ((CANARY,), "anna.key", "another passphrase", "cannot be opened"),
        ((CANARY,), "site/site.json", WORDS, "is no officer's key"),
        ((CANARY, "second"), "anna.key", WORDS, "one question is about one patient"),
        ((CANARY, f"--{CANARY}"), "anna.key", WORDS, "one question is about one patient"),
        ((" ",), "anna.key", WORDS, "there is no id"),
        (("-",), "anna.key", WORDS, "there is no id"),
    ],
)
def test_who_may_not_ask_gets_two_lines_and_nothing_is_logged(
    north: Path, words: tuple[str, ...], key: str, passphrase: str, why: str
) -> None:
    done = show(north, *words, key=key, passphrase=passphrase)
    lines = done.stderr.strip().splitlines()
    assert done.returncode != 0 and len(lines) == 2 and why in lines[0], done.stderr
    assert CANARY not in done.stdout + done.stderr and done.stdout == "" and inquiries(north) == []


def test_an_id_that_looks_like_an_option_is_an_id(north: Path) -> None:
    assert "in no data domain" in show(north, "-4711").stdout


def test_a_ledger_that_cannot_be_written_answers_nothing(north: Path) -> None:
    store = open_store(north / "site" / "ledger.sqlite")
    store.execute("CREATE TRIGGER full BEFORE INSERT ON entries BEGIN SELECT RAISE(ABORT, 'disk full'); END")
    store.close()
    done = show(north, CANARY)
    assert done.returncode != 0 and done.stdout == "" and CANARY not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 2


# init


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("cards")
    for name in ("anna", "ben"):
        assert command("officer", "init", name, "--folder", place).returncode == 0
    return place


def test_a_new_site_has_a_ledger_that_names_its_officers(cards: Path, tmp_path: Path) -> None:
    folder = tmp_path / "south"
    done = command("site", "init", folder, "--name", "south", "--officer", cards / "anna.pub", "--officer",
                   cards / "ben.pub")  # fmt: skip
    assert done.returncode == 0 and done.stderr == ""
    site = SiteFolder.open(folder)
    opened = site.ledger().state
    assert site.site == "south" and opened.officers is not None
    assert opened.officers.officers == {
        name: json.loads((cards / f"{name}.pub").read_text())["key"] for name in ("anna", "ben")
    }
    for key in (site.identity().public.key, *(bytes.fromhex(key) for key in opened.officers.officers.values())):
        assert fingerprint(key) in done.stdout
    assert folder.stat().st_mode & 0o077 == 0
    asked = command("site", "patient", "show", "4711", "--folder", folder, "--officer-key", cards / "ben.key")
    assert "in no data domain" in asked.stdout


def test_one_officer_alone_is_a_warning(cards: Path, tmp_path: Path) -> None:
    done = command("site", "init", tmp_path / "south", "--name", "south", "--officer", cards / "anna.pub")
    assert done.returncode == 0 and "warning: 1 officer alone" in done.stderr and "2 signatures" in done.stderr


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("{place}", "--name", "south", "--officer", "{cards}/anna.pub"), "exists already"),
        (("{place}/x", "--name", "South", "--officer", "{cards}/anna.pub"), "is no site name"),
        (("{place}/x", "--name", "south", "--officer", "{cards}/anna.key"), "is no officer's card"),
        (("{place}/x", "--name", "south", "--officer", "{cards}/carl.pub"), "cannot be read"),
        (("{place}/x", "--name", "south", "--officer", "{cards}/ben.pub", "--officer", "{cards}/ben.pub"), "different"),
        (("{place}/x", "--name", "south"), "--officer"),
    ],
)
def test_a_site_that_cannot_be_made_leaves_nothing(
    cards: Path, tmp_path: Path, words: tuple[str, ...], why: str
) -> None:
    done = command("site", "init", *(word.format(cards=cards, place=tmp_path) for word in words))
    lines = done.stderr.strip().splitlines()
    assert done.returncode != 0 and len(lines) == 2 and why in lines[0], done.stderr
    assert list(tmp_path.iterdir()) == []
