"""docs/attacks.md and the attack suites name each other, one line for one test."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "attacks.md").read_text(encoding="utf-8")
SUITES = ("test_malicious_server.py", "test_malicious_site.py")


def attacks() -> list[str]:
    folder = ROOT / "tests" / "privacy" / "secagg"
    return [
        name for suite in SUITES for name in re.findall(r"^def (test_\w+)", (folder / suite).read_text(), re.MULTILINE)
    ]


def commands() -> list[str]:
    return re.findall(r"`make attack NAME=(\w+)`", PAGE)


def test_every_command_on_the_page_plays_exactly_one_attack() -> None:
    assert len(commands()) > 30
    for command in commands():
        assert sum(command in name for name in attacks()) == 1, command


def test_every_attack_is_on_the_page() -> None:
    missing = [name for name in attacks() if not any(command in name for command in commands())]
    assert missing == []


def test_the_files_that_the_page_names_hold_the_tests_that_it_names() -> None:
    for path, name in re.findall(r"`pytest (\S+) -k (\w+)`", PAGE):
        assert name in (ROOT / path).read_text(encoding="utf-8")
