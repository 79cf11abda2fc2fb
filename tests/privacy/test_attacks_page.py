"""docs/attacks.md and the attack suites name each other, and the page quotes what the code says."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "attacks.md").read_text(encoding="utf-8")
SUITES = sorted((ROOT / "tests" / "privacy" / "secagg").glob("test_malicious_*.py"))
LAYERS = ("client", "privacy", "protocol", "server", "simulations")
SOURCES = [path for folder in LAYERS for path in (ROOT / folder).rglob("*.py")]
CODE = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES)


def attacks() -> list[str]:
    return [name for suite in SUITES for name in re.findall(r"^def (test_\w+)", suite.read_text("utf-8"), re.MULTILINE)]


def commands(page: str) -> list[str]:
    return re.findall(r"`make attack NAME=(\w+)`", page)


def ambiguous(page: str) -> list[str]:
    """Commands that play no attack, or more than one."""
    return [command for command in commands(page) if sum(command in name for name in attacks()) != 1]


def unlisted(page: str) -> list[str]:
    """Attacks that no command on the page plays."""
    return [name for name in attacks() if not any(command in name for command in commands(page))]


def invented(page: str) -> list[str]:
    """Words that a table quotes from ledger or report, and that no line of the code says."""
    rows = [line for line in page.splitlines() if line.startswith("|")]
    cells = [row.split("|")[-3] for row in rows]
    return [words for cell in cells for words in re.findall(r'"([^"]+)"', cell) if words not in CODE]


def test_every_command_on_the_page_plays_exactly_one_attack() -> None:
    assert len(commands(PAGE)) > 40
    assert ambiguous(PAGE) == []


def test_every_attack_is_on_the_page() -> None:
    assert unlisted(PAGE) == []


def test_the_page_quotes_what_ledger_and_report_say() -> None:
    assert invented(PAGE) == []
    assert len(re.findall(r'\| [^|]*"[^|]+" \| `', PAGE)) > 30


def test_make_attack_plays_every_suite() -> None:
    """Read from what make would run, so that a suite that is added later is not forgotten."""
    made = subprocess.run(
        ["make", "-n", "-o", ".venv/.setup", "attack"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    played = {path for word in made.stdout.split() for path in ROOT.glob(word) if word.endswith(".py")}
    assert [suite.name for suite in SUITES if suite not in played] == []


def test_the_files_that_the_page_names_hold_the_tests_that_it_names() -> None:
    named = re.findall(r"`pytest (\S+) -k (\w+)`", PAGE)
    assert named
    for path, name in named:
        assert name in (ROOT / path).read_text(encoding="utf-8")
    for path in re.findall(r"`(tests/\S+\.py)`", PAGE):
        assert (ROOT / path).is_file(), path


def test_a_page_that_leaves_out_an_attack_or_names_a_strange_one_is_noticed() -> None:
    """The control of the checks above."""
    assert unlisted(PAGE.replace("`make attack NAME=a_forged_key`", "")) == [
        "test_a_forged_key_in_a_sites_message_is_refused"
    ]
    assert ambiguous(PAGE.replace("NAME=a_forged_key", "NAME=a_forged_kee")) == ["a_forged_kee"]
    assert ambiguous(PAGE.replace("NAME=a_forged_key", "NAME=a_")) == ["a_"]
    assert invented(PAGE.replace("its signature does not belong", "its signature is false")) == [
        "its signature is false to its message"
    ]
