"""The tests notice faults that would break privacy; and the program that says so notices when they do not.

The controls run ``scripts/mutants.py`` on lists of their own, with mutants of one function that is simple to judge.
"""

import ast
import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "mutants.py"))
FILE = "privacy/clipping.py"
TEST = "tests/privacy/test_mechanisms.py::test_who_is_not_finite_has_factor_zero"
RETURN = "return factors if finite.all() else np.where(finite, factors, 0.0)"
CORE = {
    *("clip-off", "noise-halved", "noise-reused-between-calls", "noise-reused-in-a-round", "seed-fixed"),
    *("shuffle-instead-of-poisson", "step-not-counted", "nan-row-not-zeroed", "divided-by-the-real-batch"),
    *("event-level-grouping", "event-level-count", "patient-in-two-domains", "test-patient-moved-to-training"),
    *("cancel-after-start", "crash-gives-the-charge-back", "filter-not-asked"),
}
"""What the design asks the tests to notice: these run every time."""


def mutants(*arguments: str | Path, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts/mutants.py", *map(str, arguments)]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=600)


def write(folder: Path, **changes: dict[str, str]) -> Path:
    """A list of mutants by name; what a change leaves out is the NaN row that is not zeroed, which is killed."""
    lines = []
    for name, change in changes.items():
        entry = {"file": FILE, "breaks": "a promise", "old": RETURN, "new": "return factors", "tests": TEST} | change
        tests = entry.pop("tests")
        lines += [f"[[mutant]]\nname = '{name}'", *(f"{key} = '{text}'" for key, text in entry.items())]
        lines.append(f"tests = ['{tests}']\n")
    path = folder / "list.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.mark.slow
def test_every_core_fault_of_the_mechanism_makes_its_tests_fail(tmp_path: Path) -> None:
    mine = [m for m in SCRIPT["read_list"](SCRIPT["LIST"]) if m.quick]
    before = {mutant.file: (ROOT / mutant.file).read_bytes() for mutant in mine}
    report = mutants("--quick", "--json", tmp_path / "verdicts.json")
    assert report.returncode == 0, report.stdout + report.stderr
    verdicts = json.loads((tmp_path / "verdicts.json").read_text())
    assert [(verdict["name"], verdict["word"]) for verdict in verdicts] == [(mutant.name, "killed") for mutant in mine]
    summary = report.stdout.splitlines()[-1]
    assert summary.startswith(f"{len(mine)} mutants: {len(mine)} killed, 0 survived, 0 broken, 0 stale; ")
    assert {file: (ROOT / file).read_bytes() for file in before} == before


def misfits(list_of_mutants: list[Any], tree: Path) -> list[str]:
    """Mutants that do not fit the code or are no Python, and tests that nobody wrote, without running anything."""
    found = []
    for mutant in list_of_mutants:
        try:
            code = SCRIPT["mutated"](mutant, tree)
            if mutant.file.endswith(".py"):
                ast.parse(code)
        except (SCRIPT["Unfit"], SyntaxError) as error:
            found.append(f"{mutant.name}: {error}")
        for test in mutant.tests:
            file, name = test.split("[")[0].split("::")
            if f"\ndef {name}(" not in (tree / file).read_text(encoding="utf-8"):
                found.append(f"{mutant.name}: no {name}")
    return found


def test_the_whole_list_fits_the_code_and_holds_what_the_design_asks_for() -> None:
    known = SCRIPT["read_list"](SCRIPT["LIST"])
    assert misfits(known, ROOT) == []
    assert CORE - {mutant.name for mutant in known if mutant.quick} == set()


def test_a_mutant_that_does_not_fit_is_found_without_running_it(tmp_path: Path) -> None:
    wrong = {"gone": {"old": "nobody wrote this"}, "no_python": {"new": "return ("}, "no_test": {"tests": f"{TEST}x"}}
    found = misfits(SCRIPT["read_list"](write(tmp_path, good={}, **wrong)), ROOT)
    assert [fault.partition(":")[0] for fault in found] == ["gone", "no_python", "no_test"]


def test_a_change_that_harms_nothing_survives_and_is_a_failure(tmp_path: Path) -> None:
    report = mutants("--list", write(tmp_path, harmless={"new": f"{RETURN}  # as before"}, harmful={}))
    assert report.returncode == 1 and "a mutant survived" in report.stderr, report.stdout + report.stderr
    lines = report.stdout.splitlines()
    assert lines[1].startswith("SURVIVED") and f"harmless, {FILE}: a promise" in lines[1]
    assert lines[2].split() == [TEST, "passed"]
    assert lines[3].startswith("killed") and lines[4].split() == ["by", TEST, "(AssertionError)"]
    assert lines[-1].startswith("2 mutants: 1 killed, 1 survived (harmless), 0 broken, 0 stale; ")


def test_a_crash_is_no_kill(tmp_path: Path) -> None:
    broken = {
        "NameError": {"new": "return misspelt"},
        "TypeError": {"new": "return factors + None"},
        "AttributeError": {"new": "return factors.misspelt"},
        "KeyError": {"new": "return {}[len(factors)]"},
        "ImportError": {"new": "from numpy import misspelt"},
        "ModuleNotFoundError": {"old": "import numpy as np", "new": "import numpy_misspelt as np"},
        "SyntaxError": {"new": "return ("},
        "behind-another": {"new": "raise ValueError from TypeError()"},
        "never-imported": {"file": "privacy/dpsgd.py", "old": "noised /= ", "new": "noised *= "},
    }
    path = write(tmp_path, harmful={}, harmless={"new": f"{RETURN}  # as before"}, **broken)
    report = mutants("--list", path, "--json", tmp_path / "verdicts.json")
    assert report.returncode == 2 and "a mutant shows nothing" in report.stderr, report.stdout + report.stderr
    verdicts = {verdict["name"]: verdict for verdict in json.loads((tmp_path / "verdicts.json").read_text())}
    words = {name: verdict["word"] for name, verdict in verdicts.items()}
    assert words == {"harmful": "killed", "harmless": "survived"} | dict.fromkeys(broken, "broken")
    why = {name: verdicts[name]["why"][0] for name in broken}
    for name in ("NameError", "TypeError", "AttributeError", "KeyError", "ImportError"):
        assert why[name].startswith(f"{TEST} crashed instead of failing: {name}: ")
    assert why["behind-another"] == f"{TEST} crashed instead of failing: TypeError: "
    for name in ("ModuleNotFoundError", "SyntaxError"):
        assert why[name].startswith("the tests could not be collected: ") and name in why[name]
    assert why["never-imported"] == "the tests never import privacy/dpsgd.py"
    assert f"9 broken ({', '.join(broken)})" in report.stdout.splitlines()[-1]


def test_a_mutant_whose_code_has_changed_is_stale(tmp_path: Path) -> None:
    stale = {
        "absent": {"old": "a text that nobody wrote"},
        "twice": {"old": "isfinite(", "file": "privacy/mechanisms.py"},
        "no-file": {"file": "privacy/none.py"},
        "idle": {"new": RETURN},
    }
    count = (ROOT / "privacy" / "mechanisms.py").read_text().count("isfinite(")
    report = mutants("--list", write(tmp_path, harmful={}, **stale))
    assert report.returncode == 2, report.stdout + report.stderr
    assert "5 mutants: 1 killed, 0 survived, 0 broken, 4 stale (absent, twice, no-file, idle); " in report.stdout
    assert f"its text is 0 times in {FILE}, not once" in report.stdout
    assert count > 1 and f"its text is {count} times in privacy/mechanisms.py, not once" in report.stdout
    assert "there is no file privacy/none.py" in report.stdout and "it changes nothing" in report.stdout


def test_a_tree_whose_tests_fail_without_a_fault_can_show_none(tmp_path: Path) -> None:
    SCRIPT["copy_tree"](tmp_path / "tree")
    clipping = tmp_path / "tree" / FILE
    clipping.write_text(clipping.read_text().replace(RETURN, "return factors"))
    path = write(tmp_path, one={"old": "return factors", "new": "return factors * 2"})
    report = mutants("--list", path, root=tmp_path / "tree")
    assert report.returncode == 2 and "killed" not in report.stdout
    assert f"{TEST} ended with 'AssertionError' without any fault" in report.stderr


@pytest.mark.parametrize(
    ("change", "says"),
    [({"tests": f"{TEST}_x"}, "the tests did not run"), ({"why": "x"}, "no list"), ({"tests": ""}, "names no test")],
    ids=["no-such-test", "unknown-field", "no-test"],
)
def test_a_list_that_is_none_shows_nothing(change: dict[str, str], says: str, tmp_path: Path) -> None:
    report = mutants("--list", write(tmp_path, one=change))
    assert report.returncode == 2 and says in report.stderr and report.stdout == ""


def test_an_unknown_mutant_is_answered_with_the_known_ones() -> None:
    report = mutants("--only", "no such mutant")
    assert report.returncode == 2 and "known: clip-off, " in report.stderr
