"""``wardround officer init``: a sealed key that nobody else may read, and a card that says whose it is."""

import json
import os
import pty
import stat
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from select import select
from signal import SIGKILL

import pytest

from wardround.client.store.keys import read_officer_card, read_officer_key

WORDS = "a long enough passphrase"
PATIENCE = 60
"""Seconds without a word from the command."""


def command(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "wardround.console.cli", "officer", *map(str, words)]
    given = {name: value for name, value in os.environ.items() if name != "WARDROUND_PASSPHRASE"} | environment
    return subprocess.run(line, capture_output=True, text=True, timeout=120, env=given, stdin=subprocess.DEVNULL)


def test_a_key_is_sealed_and_the_card_is_its_public_half(tmp_path: Path) -> None:
    done = command("init", "anna", "--folder", tmp_path, WARDROUND_PASSPHRASE=WORDS)
    assert done.returncode == 0 and done.stderr == ""
    key, card = tmp_path / "anna.key", tmp_path / "anna.pub"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    officer = read_officer_key(key, WORDS)
    assert read_officer_card(card) == officer.public and officer.site == "anna"
    secret = officer.private.private_bytes_raw()
    assert secret.hex() not in key.read_text() + card.read_text() + done.stdout and secret not in key.read_bytes()
    # The fingerprint by another path: the first 32 hex digits of the SHA-256 of the key in the card.
    digits = sha256(bytes.fromhex(json.loads(card.read_text())["key"])).hexdigest()[:32]
    assert " ".join(digits[i : i + 4] for i in range(0, 32, 4)) in done.stdout
    assert WORDS not in done.stdout + key.read_text() + card.read_text()


@pytest.mark.parametrize(
    ("words", "passphrase", "why"),
    [
        (("init", "Anna"), WORDS, "is no officer's name"),
        (("init", "anna"), "short", "the passphrase is too short"),
        (("init", "anna", "--folder", "{}/none"), WORDS, "there is no folder"),
        (("init",), WORDS, "NAME"),
    ],
)
def test_what_is_wrong_is_said_in_two_lines_and_leaves_no_file(
    tmp_path: Path, words: tuple[str, ...], passphrase: str, why: str
) -> None:
    folder = () if "--folder" in words else ("--folder", str(tmp_path))
    done = command(*(word.format(tmp_path) for word in words), *folder, WARDROUND_PASSPHRASE=passphrase)
    lines = done.stderr.strip().splitlines()
    assert done.returncode != 0 and len(lines) == 2 and why in lines[0], done.stderr
    assert lines[1].startswith("wardround: hint: ") and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["anna.key", "anna.pub"])
def test_neither_file_is_ever_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    done = command("init", "anna", "--folder", tmp_path, WARDROUND_PASSPHRASE=WORDS)
    assert done.returncode != 0 and "exists already" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "mine"


def typed(folder: Path, *answers: str) -> tuple[int, str]:
    """Run the command at a terminal of its own, and type the answers; (exit code, what the terminal showed)."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.pop("WARDROUND_PASSPHRASE", None)
        line = [sys.executable, "-m", "wardround.console.cli", "officer", "init", "anna", "--folder", str(folder)]
        os.execv(sys.executable, line)
    shown = b""
    waiting = [answer.encode() + b"\n" for answer in answers]
    while True:
        if not select([terminal], [], [], PATIENCE)[0]:
            os.kill(pid, SIGKILL)
        try:
            part = os.read(terminal, 1024)
        except OSError:
            part = b""  # how Linux reports the end of a terminal
        if not part:
            break
        shown += part
        if waiting and shown.endswith(b": "):
            os.write(terminal, waiting.pop(0))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode()


def test_at_a_terminal_the_passphrase_is_asked_for_twice_and_not_shown(tmp_path: Path) -> None:
    code, shown = typed(tmp_path, WORDS, WORDS)
    assert code == 0 and WORDS not in shown and "Repeat" in shown, shown
    assert read_officer_key(tmp_path / "anna.key", WORDS).site == "anna"
