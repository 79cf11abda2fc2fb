"""The officer's guide says the same in each language, in the words of the screen, with pictures that are there.

The languages are compared by what needs no translator: headings, pictures, commands, links, tables and lists. What a
guide sets in italics is on the screen, so the other language's is what the catalogue makes of it.
"""

import re
import shlex
from collections import Counter
from functools import lru_cache
from pathlib import Path

import pytest
import typer
from babel.messages.pofile import read_po

from wardround.console.cli import app

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
IMAGES = DOCS / "img"
CATALOGUES = ROOT / "console" / "web" / "locale" / "fr" / "LC_MESSAGES"
MOST_BYTES = 120_000
MOST_PICTURES = 14


def guide(language: str = "") -> str:
    return (DOCS / f"officer{language}.md").read_text(encoding="utf-8")


@lru_cache
def translations() -> dict[str, set[str]]:
    """What each text of the screen is called in French; the same text may stand in several catalogues."""
    found: dict[str, set[str]] = {}
    for path in CATALOGUES.glob("*.po"):
        with path.open("rb") as file:
            for message in read_po(file):
                if isinstance(message.id, str) and message.id:
                    found.setdefault(message.id, set()).add(str(message.string))
    return found


def neutral(name: str) -> str:
    """A file's name without its language."""
    return name.replace(".fr.", ".")


def shape(text: str) -> dict[str, object]:
    """What must be the same in each language, in the order in which it stands."""
    fenced = re.compile(r"^ *```\n(.*?)^ *```$", re.M | re.S)
    prose = fenced.sub("", text)
    lines = prose.splitlines()
    return {
        "headings": re.findall(r"^(#+ (?:\d+\. )?)", prose, re.M),
        "commands": [" ".join(block.split()) for block in fenced.findall(text)],
        "pictures": [neutral(name) for name in re.findall(r"!\[.+?\]\((.+?)\)", prose)],
        "links": sorted(set(re.findall(r"(?<!!)\[[^\]]+\]\((?!officer)(.+?)\)", prose))),
        "rows": [line.count("|") for line in lines if line.startswith("|")],
        "points": [mark for line in lines for mark in re.findall(r"^(\*|\d+\.) ", line)],
    }


def screen_words(text: str) -> list[list[str]]:
    """What is in italics, for each section."""
    prose = re.sub(r"^ *```.*?```$", "", text, flags=re.M | re.S).replace("\N{NO-BREAK SPACE}", " ")
    prose = re.sub(r"^\* ", "- ", prose, flags=re.M)
    return [re.findall(r"(?<!\*)\*([^*\n]+)\*(?!\*)", section) for section in re.split(r"^## ", prose, flags=re.M)]


def drifted(english: str, french: str) -> list[str]:
    """What one language has and the other has not."""
    one, other = shape(english), shape(french)
    found = [f"{what}: {one[what]} and {other[what]}" for what in one if one[what] != other[what]]
    for number, (said, dit) in enumerate(zip(screen_words(english), screen_words(french), strict=False)):
        left = Counter(dit)
        for word in said:
            name = next((name for name in translations().get(word, ()) if left[name] > 0), None)
            if name is None:
                found.append(f"section {number}: {word}")
            else:
                left[name] -= 1
        found += [f"section {number}: {word}" for word in left.elements()]
    return found


def test_the_guide_is_the_same_in_both_languages() -> None:
    assert drifted(guide(), guide(".fr")) == []


def unknown_words(text: str) -> list[str]:
    """Commands of a text's blocks, indented ones too, that do not exist, or have no such option."""
    found = []
    for block in re.findall(r"^ *```\n(.*?)^ *```$", text, re.M | re.S):
        for line in block.splitlines():
            program, *words = shlex.split(line)
            command = typer.main.get_command(app)
            while hasattr(command, "commands") and words and words[0] in command.commands:
                command = command.commands[words.pop(0)]
            options = {name for parameter in command.params for name in parameter.opts}
            if program != "wardround" or hasattr(command, "commands"):
                found.append(line.strip())
            found += [word for word in words if word.startswith("--") and word not in options]
    return found


def test_every_command_of_the_guide_exists_with_its_options() -> None:
    assert unknown_words(guide()) == []


def test_a_command_and_an_option_that_do_not_exist_are_found() -> None:
    text = "1. a\n\n   ```\n   wardround officer initt anna\n   wardround site pause north --why x\n   ```\n"
    assert unknown_words(text) == ["wardround officer initt anna", "--why"]


def test_the_guide_has_what_is_compared() -> None:
    kept = shape(guide())
    assert len(kept["headings"]) == 9 and len(kept["pictures"]) == 6 and len(kept["commands"]) == 6  # type: ignore[arg-type]
    assert len(kept["rows"]) > 20 and len(kept["points"]) > 25 and len(kept["links"]) > 5  # type: ignore[arg-type]
    assert sum(map(len, screen_words(guide()))) > 25


@pytest.mark.parametrize(
    ("was", "now", "what"),
    [
        ("## 6. ", "## 7. ", "headings"),
        ("\n## 8. ", "\n**8.** ", "headings"),
        ("wardround site pause north", "wardround site stop north", "commands"),
        ("--key anna --reason stolen", "--key anna --reason lost", "commands"),
        ("img/study.fr.png", "img/overview.fr.png", "pictures"),
        ("[claims.md](claims.md)", "claims.md", "links"),
        ("| le service ne répond pas ", "le service ne répond pas ", "rows"),
        ("* Que rien ne sorte", "Que rien ne sorte", "points"),
        ("*Oppositions*", "*Refus*", "section 5: Opt-outs"),
        ("*Sorties et reçus*", "Sorties et reçus", "section 5: Releases and receipts"),
    ],
)
def test_a_language_that_drifts_is_found(was: str, now: str, what: str) -> None:
    french = guide(".fr")
    assert french.count(was) >= 1
    assert any(fault.startswith(what) for fault in drifted(guide(), french.replace(was, now)))


def test_the_guide_is_four_pages_and_says_who_has_read_it() -> None:
    for language in ("", ".fr"):
        prose = re.sub(r"^ *```.*?```$|!\[.*?\]\(.*?\)|(?<=\])\(.*?\)", "", guide(language), flags=re.M | re.S)
        assert 1600 <= len(re.findall(r"[\w'\N{RIGHT SINGLE QUOTATION MARK}-]+", prose)) <= 2000
    assert "no native speaker has read the French" in guide()
    assert "aucun lecteur de langue maternelle" in guide(".fr")


def faults_of_pictures(folder: Path, pages: str, taken: str) -> list[str]:
    """Pictures that are too many, too heavy, shown by no page, or that nothing makes anew."""
    pictures = sorted(folder.glob("*.png"))
    made = re.findall(r'Picture\(\s*"([\w.-]+)"', taken)
    found = [f"{len(pictures)} pictures"] if len(pictures) > MOST_PICTURES else []
    found += [f"{path.name}: heavy" for path in pictures if path.stat().st_size >= MOST_BYTES]
    found += [f"{path.name}: shown nowhere" for path in pictures if f"img/{path.name})" not in pages]
    return found + [f"{name}: not as it is made" for name in sorted({path.stem for path in pictures} ^ set(made))]


def test_pictures_are_few_light_shown_and_made_anew_by_a_command() -> None:
    pages = "".join(path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *DOCS.glob("*.md")])
    taken = (ROOT / "tests" / "console" / "web" / "screenshots.py").read_text(encoding="utf-8")
    assert faults_of_pictures(IMAGES, pages, taken) == []


def test_a_heavy_picture_one_that_nobody_shows_and_one_that_nothing_makes_are_found(tmp_path: Path) -> None:
    last = MOST_PICTURES
    for number in range(last):
        (tmp_path / f"p{number}.png").write_bytes(b"x")
    (tmp_path / f"p{last}.png").write_bytes(b"x" * MOST_BYTES)
    pages = "".join(f"![a](img/p{number}.png)" for number in range(1, last + 1))
    taken = "".join(f'Picture("p{number}", ' for number in range(last))
    faults = [f"{last + 1} pictures", f"p{last}.png: heavy", "p0.png: shown nowhere", f"p{last}: not as it is made"]
    assert faults_of_pictures(tmp_path, pages, taken) == faults
