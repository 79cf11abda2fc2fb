"""What the console says and a language does not: list it, or add it to the language's PO files to be translated.

python scripts/words.py           what is missing or stale in every language; ends with 1 where a full one has gaps
python scripts/words.py --add     add what is missing, with an empty translation, to the file of its page
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from babel.messages.catalog import Catalog, Message
from babel.messages.extract import extract_from_file
from babel.messages.pofile import read_po, write_po

from wardround.console.i18n import LANGUAGES, SOURCE

ROOT = Path(__file__).resolve().parent.parent
CONSOLE = ROOT / "console"
WEB = CONSOLE / "web"
OF_A_SUBJECT = {
    "plan": (
        "plan_words.py",
        "plan_changes.py",
        "reports/indicators_words.py",
        "reports/numbers.py",
        "reports/series_chart.py",
        "reports/statistics_words.py",
        "reports/task_words.py",
        "reports/words.py",
    ),
    "figures": ("reports/curves.py", "reports/figure_charts.py", "reports/figures_words.py"),
    "entries": ("paper/entry_words.py", "paper/kinds.py"),
    "paper": (
        "paper/anchor_words.py",
        "paper/audit_words.py",
        "paper/dpia_words.py",
        "paper/statement_words.py",
        "paper/study_words.py",
        "paper/terms.py",
    ),
}
"""Words outside the pages, which command line, papers and pages share: their PO file, and where they stand."""

SIGNED = frozenset({"paper"})
"""PO files of words that a hospital signs: no draft of a language needs them, because no paper is made in a draft."""

SUBJECTS = {CONSOLE / name: subject for subject, names in OF_A_SUBJECT.items() for name in names}
LOCALE = WEB / "locale"
KEYWORDS = {"_": None, "N_": None, "gettext": None, "ngettext": (1, 2)}
SHARED = "console"
ELSEWHERE = {
    "client/doctor/[!s]*.py": "health",
    "console/notices/watching.py": "notices",
}
"""Files whose sentences a page shows -> the PO file that they belong to."""

TEMPLATES = {"said": (0,), "ok": (1,), "warning": (1, 2), "failed": (1, 2), "Notice": (2, 3)}
"""Function -> the places of its arguments that are sentences, or templates of one."""

PLACE = re.compile(r"%\(\w+\)s|%s|%d|\{\w+\}")


def said() -> dict[str | tuple[str, str], str]:
    """Every message of the console, and the PO file that it belongs to."""
    found: dict[str | tuple[str, str], str] = {}
    for file in sorted([*WEB.rglob("*.py"), *WEB.rglob("*.j2"), *SUBJECTS]):
        method = "python" if file.suffix == ".py" else "jinja2.ext:babel_extract"
        for _, message, _, _ in extract_from_file(method, file, keywords=KEYWORDS):
            key = tuple(message[:2]) if isinstance(message, tuple) else message
            if key:
                found.setdefault(key, _page_of(file))
    for pattern, page in ELSEWHERE.items():
        for file in sorted(ROOT.glob(pattern)):
            for sentence in sentences(file):
                found.setdefault(sentence, page)
    return found


def wanted(language: str) -> dict[str | tuple[str, str], str]:
    """What ``language`` must say: everything, or where it is a draft all but what a hospital signs."""
    draft = any(one.code == language and one.draft for one in LANGUAGES)
    return {key: page for key, page in said().items() if not (draft and page in SIGNED)}


def sentences(file: Path) -> Iterator[str]:
    """What the functions of ``TEMPLATES`` say in a file. Raises ValueError where it is put together otherwise."""
    for call in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name):
            for place in TEMPLATES.get(call.func.id, ()):
                for argument in call.args[place : place + 1]:
                    yield from _constants(argument, file)


def _constants(argument: ast.expr, file: Path) -> Iterator[str]:
    if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
        yield argument.value
    elif isinstance(argument, ast.IfExp):
        yield from _constants(argument.body, file)
        yield from _constants(argument.orelse, file)
    elif isinstance(argument, (ast.JoinedStr, ast.BinOp)):
        raise ValueError(f"{file.name}, line {argument.lineno}: said() it, or no catalogue knows this sentence")


def _page_of(file: Path) -> str:
    if file in SUBJECTS:
        return SUBJECTS[file]
    pages = {page.stem for page in (WEB / "pages").glob("*.py")} - {"__init__", "login"}
    stem = file.name.split(".")[0]
    fits = [page for page in pages if stem == page or stem.startswith(f"{page}_")]
    return max(fits, key=len) if fits and file.parent.name in ("pages", "templates", "web") else SHARED


def catalogues(language: str) -> dict[str, Catalog]:
    """The PO files of a language by name."""
    found = {}
    for file in sorted((LOCALE / language / "LC_MESSAGES").glob("*.po")):
        with file.open("rb") as content:
            found[file.stem] = read_po(content, locale=language, domain=file.stem)
    return found


def faults(language: str) -> Iterator[tuple[str, str]]:
    """(kind, message) of everything that is wrong in a language: missing, stale, in two files, or with other places.

    All files of a language make one catalogue: of a message in two of them only one is ever said.
    """
    everything, held = said(), [message for one in catalogues(language).values() for message in one if message.id]
    known = {tuple(message.id) if message.pluralizable else message.id for message in held if _filled(message)}
    yield from (("missing", str(key)) for key in wanted(language) if key not in known)
    met = set()
    for message in held:
        key = tuple(message.id) if message.pluralizable else message.id
        if key in met:
            yield "twice", str(message.id)
        met.add(key)
        if key not in everything:
            yield "stale", str(message.id)
        elif _filled(message) and not _same_places(message):
            yield "other places", str(message.id)


def add(language: str) -> int:
    """Add what is missing with an empty translation; returns how many."""
    held, added = catalogues(language), 0
    known = {tuple(m.id) if m.pluralizable else m.id for one in held.values() for m in one if m.id}
    for key, page in wanted(language).items():
        if key not in known:
            held.setdefault(page, Catalog(locale=language, domain=page)).add(key)
            added += 1
    for page, catalogue in held.items():
        file = LOCALE / language / "LC_MESSAGES" / f"{page}.po"
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("wb") as content:
            write_po(content, catalogue, omit_header=True, no_location=True, width=120, sort_output=True)
    return added


def _filled(message: Message) -> bool:
    texts = message.string if isinstance(message.string, (list, tuple)) else [message.string]
    return bool(texts) and all(texts) and not message.fuzzy


def _same_places(message: Message) -> bool:
    """Whether each translation fills in what the English text does; a singular may leave out its number."""
    ids = message.id if message.pluralizable else (message.id,)
    texts = message.string if message.pluralizable else (message.string,)
    wanted = set(PLACE.findall(ids[-1]))
    free = wanted if len(ids) == 2 else set()
    return all(set(PLACE.findall(text)) <= wanted and wanted - set(PLACE.findall(text)) <= free for text in texts)


def main() -> int:
    gaps = 0
    for language in LANGUAGES:
        if language.code == SOURCE:
            continue
        if "--add" in sys.argv[1:]:
            print(f"{language.code}: {add(language.code)} added")
            continue
        found = list(faults(language.code))
        for kind, message in found:
            if kind != "missing" or not language.draft:
                print(f"{language.code}: {kind}: {message}")
                gaps += 1
        missing = sum(kind == "missing" for kind, _ in found)
        whole, draft = len(wanted(language.code)), " (draft)" if language.draft else ""
        print(f"{language.code}: {whole - missing} of {whole} messages{draft}")
    return 1 if gaps else 0


if __name__ == "__main__":
    sys.exit(main())
