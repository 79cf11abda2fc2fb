"""Break the code on purpose, one fault at a time, and show that the tests named beside each fault fail.

Tests that pass say little about privacy unless wrong code makes them fail. A mutant (DeMillo, Lipton and Sayward 1978)
is a small change that would break a promise: no clipping, half the noise, a step that is not charged. Each is applied
to a copy of the tree; the tree itself is only read. A test that crashes proves nothing: a mutant that ends in a
NameError or keeps its tests from being collected is broken, not killed.

Exit codes: 0 every mutant was killed; 1 one survived; 2 the list or the tree is at fault (a text that is not there
exactly once, a broken mutant, a test that fails without any fault), so that not everything was shown.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LIST = ROOT / "scripts" / "mutants.toml"
SECONDS = 300
"""Longest time for the tests of one mutant."""
PASSED_BY = ("passed", "skipped")
"""Outcomes of a test that did not notice the fault."""

GUARD = '''
"""Loaded by pytest beside the tests: writes down how each ended and why, and where every module came from."""

import json
import os
import sys
from pathlib import Path

import pytest
from hypothesis import Phase, settings

# The same examples every time, and the first that fails is enough: nobody reads the smallest one.
settings.register_profile("mutants", derandomize=True, phases=[Phase.explicit, Phase.generate], deadline=None)
settings.load_profile("mutants")
CRASHES = (NameError, SyntaxError, ImportError, TypeError, AttributeError, LookupError)
OUTCOMES, REASONS = {}, {}


def crash(error):
    """The first crash in ``error``, in what caused it and in what it is a group of; in its own words."""
    seen, ahead = [], [error]
    while ahead:
        error = ahead.pop()
        if error is None or any(error is other for other in seen):
            continue
        if isinstance(error, CRASHES):
            return f"{type(error).__name__}: {error}"
        seen.append(error)
        ahead += [error.__cause__, error.__context__, *getattr(error, "exceptions", ())]
    return None


def note(node, reason):
    if reason is not None:
        REASONS.setdefault(node, reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.outcome == "failed":
        note(item.nodeid, crash(call.excinfo.value) if call.excinfo else None)
    if OUTCOMES.get(item.nodeid, "passed") == "passed":
        error = type(call.excinfo.value).__name__ if call.excinfo else "XPASS"
        OUTCOMES[item.nodeid] = error if report.outcome == "failed" else report.outcome
    return report


def pytest_collectreport(report):
    if report.failed:
        said = [line.removeprefix("E").strip() for line in str(report.longrepr).splitlines() if line.startswith("E")]
        note("collection", said[-1] if said else "no reason given")


def pytest_sessionfinish():
    files = [getattr(module, "__file__", None) for name, module in sys.modules.items() if name.startswith("wardround.")]
    loaded = sorted({str(Path(file).resolve()) for file in files if file})
    report = {"outcomes": OUTCOMES, "reasons": REASONS, "loaded": loaded}
    Path(os.environ["MUTANTS_REPORT"]).write_text(json.dumps(report))
'''


class Unfit(Exception):
    """The list and the tree do not fit, or a mutant is broken: nothing was shown."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One fault: ``old`` occurs exactly once in ``file`` and becomes ``new``; then every one of ``tests`` must fail."""

    name: str
    file: str
    breaks: str
    """What is no longer true with the fault, for a reader."""
    old: str
    new: str
    tests: tuple[str, ...]
    quick: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """``word`` is killed, survived, broken or stale; ``why`` says for each test how it ended, or what is at fault."""

    name: str
    file: str
    breaks: str
    word: str
    why: tuple[str, ...]
    seconds: float


def read_list(path: Path) -> list[Mutant]:
    """The mutants of a list. Raises Unfit unless names differ and each has every field and a test."""
    try:
        entries: list[dict[str, Any]] = tomllib.loads(path.read_text(encoding="utf-8"))["mutant"]
        mutants = [Mutant(**(entry | {"tests": tuple(entry["tests"])})) for entry in entries]
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise Unfit(f"{path.name} is no list of mutants: {error}") from None
    if len({mutant.name for mutant in mutants}) != len(mutants):
        raise Unfit(f"two mutants of {path.name} have the same name")
    if not all(mutant.tests and all(mutant.tests) for mutant in mutants):
        raise Unfit(f"a mutant of {path.name} names no test")
    return mutants


def mutated(mutant: Mutant, tree: Path) -> str:
    """The text of the mutant's file with the fault in it. Raises Unfit unless ``old`` is there exactly once."""
    file = tree / mutant.file
    if not file.is_file():
        raise Unfit(f"there is no file {mutant.file}")
    text = file.read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        raise Unfit(f"its text is {text.count(mutant.old)} times in {mutant.file}, not once")
    if mutant.old == mutant.new:
        raise Unfit("it changes nothing")
    return text.replace(mutant.old, mutant.new)


def copy_tree(target: Path) -> None:
    """What the tests need, without compiled files, and links that make ``wardround.X`` importable from the copy."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    folders = config["tool"]["setuptools"]["package-dir"].values()
    for folder in [*folders, "tests", "benchmarks", "scripts", "docs"]:
        shutil.copytree(ROOT / folder, target / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy2(ROOT / "pyproject.toml", target)
    subprocess.run([sys.executable, "scripts/link.py"], cwd=target, check=True)
    (target / "guard").mkdir()
    (target / "guard" / "mutant_guard.py").write_text(GUARD, encoding="utf-8")


def outcomes_of(tests: Sequence[str], tree: Path, must_load: str | None = None) -> dict[str, str]:
    """Run ``tests`` on the copy; each with 'passed', 'skipped' or the name of the error that it failed with.

    Raises Unfit when a test did not run or crashed, when a module came from elsewhere than the copy, or when the tests
    never imported ``must_load``, which a page's script need not be.
    """
    report = tree / "report.json"
    report.unlink(missing_ok=True)
    changed = {"PYTEST_ADDOPTS", "WARDROUND_NO_SKIP"}  # a skip is told apart from a failure here
    environment = {name: value for name, value in os.environ.items() if name not in changed}
    environment |= {
        "PYTHONPATH": os.pathsep.join([str(tree / ".links"), str(tree / "guard")]),
        "PYTHONDONTWRITEBYTECODE": "1",  # compiled files are told apart by size and second: too coarse for mutants
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # the plugins of others cost two seconds a mutant
        "MUTANTS_REPORT": str(report),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "mutant_guard", "-p", "no:cacheprovider", "--tb=short"]
    try:
        done = subprocess.run(
            [*command, *tests],
            cwd=tree, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Unfit(f"the tests took more than {SECONDS} seconds") from None
    if not report.is_file():
        raise Unfit(f"the tests did not run:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    seen = json.loads(report.read_text(encoding="utf-8"))
    if "collection" in seen["reasons"]:
        raise Unfit(f"the tests could not be collected: {seen['reasons']['collection']}")
    if done.returncode not in (0, 1):
        raise Unfit(f"the tests did not run:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    loaded = [Path(file) for file in seen["loaded"]]
    strange = [str(file) for file in loaded if not file.is_relative_to(tree.resolve())]
    if strange:
        raise Unfit(f"not imported from the copy: {', '.join(strange)}")
    # A page's script is loaded by a browser, from the folder beside the modules that were imported from the copy.
    if must_load is not None and must_load.endswith(".py") and (tree / must_load).resolve() not in loaded:
        raise Unfit(f"the tests never import {must_load}")
    for node, reason in seen["reasons"].items():
        raise Unfit(f"{node} crashed instead of failing: {reason}")
    return {test: _worst(test, seen["outcomes"]) for test in tests}


def _worst(test: str, outcomes: dict[str, str]) -> str:
    """The outcome of a test is the worst of its parameters'."""
    of_test = [outcome for node, outcome in outcomes.items() if node == test or node.startswith(f"{test}[")]
    if not of_test:
        raise Unfit(f"{test} did not run")
    return max(of_test, key=lambda outcome: {"passed": 0, "skipped": 1}.get(outcome, 2))


def judge(mutant: Mutant, tree: Path) -> tuple[str, tuple[str, ...]]:
    """``word`` and ``why`` of the verdict on one mutant. The copy in ``tree`` is sound again afterwards."""
    try:
        faulty = mutated(mutant, tree)
    except Unfit as error:
        return "stale", (str(error),)
    file = tree / mutant.file
    sound = file.read_text(encoding="utf-8")
    try:
        file.write_text(faulty, encoding="utf-8")
        outcomes = outcomes_of(mutant.tests, tree, must_load=mutant.file)
    except Unfit as error:
        return "broken", (str(error),)
    finally:
        file.write_text(sound, encoding="utf-8")
    blind = tuple(f"{test} {outcome}" for test, outcome in outcomes.items() if outcome in PASSED_BY)
    return ("survived", blind) if blind else ("killed", tuple(f"{test} ({how})" for test, how in outcomes.items()))


def run(mutants: Sequence[Mutant], tree: Path) -> list[Verdict]:
    """The verdict on every mutant, printed as it falls. Raises Unfit when a test fails without any fault."""
    tests = sorted({test for mutant in mutants for test in mutant.tests})
    for test, outcome in outcomes_of(tests, tree).items():
        if outcome != "passed":
            raise Unfit(f"{test} ended with '{outcome}' without any fault, so it can show none")
    print(f"{'verdict':8}  {'time':>6}  mutant, file: the promise that it breaks")
    verdicts = []
    for mutant in mutants:
        started = perf_counter()
        word, why = judge(mutant, tree)
        seconds = round(perf_counter() - started, 1)
        verdicts.append(Verdict(mutant.name, mutant.file, mutant.breaks, word, why, seconds))
        shown = word if word == "killed" else word.upper()
        print(f"{shown:8}  {seconds:4.1f} s  {mutant.name}, {mutant.file}: {mutant.breaks}")
        for number, line in enumerate(line for part in why for line in part.splitlines()):
            joined = ("by " if number == 0 else "and ") if word == "killed" else ""
            print(f"{'':18}{joined}{line}", flush=True)
    return verdicts


def summary(verdicts: Sequence[Verdict]) -> str:
    """One line: how many of each verdict, and the names of those that were not killed."""
    parts = []
    for word in ("killed", "survived", "broken", "stale"):
        names = [verdict.name for verdict in verdicts if verdict.word == word]
        named = f" ({', '.join(names)})" if names and word != "killed" else ""
        parts.append(f"{len(names)} {word}{named}")
    return f"{len(verdicts)} mutants: {', '.join(parts)}; {sum(verdict.seconds for verdict in verdicts):.0f} s"


def main() -> int:
    """Read the arguments; returns the exit code."""
    parser = argparse.ArgumentParser(description="Show that the tests notice faults that would break privacy.")
    parser.add_argument("--quick", action="store_true", help="only the mutants that are marked quick")
    parser.add_argument("--only", metavar="NAME", action="append", help="only this mutant; may be given again")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the verdicts to FILE as well")
    parser.add_argument("--list", type=Path, default=LIST, metavar="FILE", help="another list of mutants")
    arguments = parser.parse_args()
    try:
        mutants = read_list(arguments.list)
        names = [mutant.name for mutant in mutants]
        wanted = arguments.only or names
        if unknown := sorted(set(wanted) - set(names)):
            raise Unfit(f"no mutant is called {', '.join(unknown)}; known: {', '.join(names)}")
        chosen = [m for m in mutants if m.name in wanted and (m.quick or not arguments.quick)]
        if not chosen:
            raise Unfit("no mutant is left to run")
        with tempfile.TemporaryDirectory(prefix="wardround-mutants-") as folder:
            copy_tree(Path(folder))
            verdicts = run(chosen, Path(folder))
    except Unfit as error:
        return _fail(2, str(error), "bring the list of mutants and the code together again")
    print(summary(verdicts))
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(verdict) for verdict in verdicts], indent=1) + "\n")
    words = {verdict.word for verdict in verdicts}
    if words & {"broken", "stale"}:
        return _fail(2, "a mutant shows nothing", "write it anew for the code as it is now; it must fail an assertion")
    if "survived" in words:
        return _fail(1, "a mutant survived", "write the test that it would fail; do not drop the mutant")
    return 0


def _fail(code: int, message: str, hint: str) -> int:
    print(f"wardround: error: {message}\nwardround: hint: {hint}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
