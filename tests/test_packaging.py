"""The rule "top-level folder X/ is the package wardround.X" holds in the tree, the wheel and every gate.

Each gate is also run on a tree with a fault in it, because a gate that reads nothing passes everything.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = CONFIG["tool"]["setuptools"]
FOLDERS: dict[str, str] = SETUPTOOLS["package-dir"]
PACKAGES: list[str] = SETUPTOOLS["packages"]
NOT_PACKAGED = {"tests", "docs", "scripts", "benchmarks", "build", "dist"}
INSTALLED = {
    ".py",
    ".yaml",
    ".json",
    ".html",
    ".css",
    ".j2",
    ".sql",
    ".proto",
    ".pyi",
    ".service",
    ".js",
    ".po",
    ".svg",
}


def run(*command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program without the caller's PYTHONPATH and report what it said if the test then fails."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=inherited | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )


def tool(name: str) -> Path:
    """A program of the environment that runs the tests."""
    return Path(sysconfig.get_path("scripts")) / name


def copy_tree(target: Path) -> Path:
    """A copy of what is packaged: built in place, leftovers in build/ could reach the wheel."""
    target.mkdir()
    for folder in [*FOLDERS.values(), "scripts"]:
        shutil.copytree(ROOT / folder, target / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ROOT.iterdir():
        if file.name in {"pyproject.toml", "LICENSE", "NOTICE", "README.md", "MANIFEST.in"}:
            shutil.copy2(file, target)
    return target


def replace(file: Path, old: str, new: str) -> None:
    """Change a text that must be there, so that a negative control cannot silently lose its fault."""
    text = file.read_text(encoding="utf-8")
    assert old in text, f"{file.name} no longer says {old!r}"
    file.write_text(text.replace(old, new), encoding="utf-8")


def build_wheel(tree: Path) -> Path:
    built = run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist", cwd=tree)
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = (tree / "dist").glob("*.whl")
    return wheel


def absent_from(wheel: Path, tree: Path) -> set[str]:
    """The files of the packages' folders that the wheel does not have."""
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = set()
    for package, folder in FOLDERS.items():
        for file in (tree / folder).rglob("*"):
            if file.suffix in INSTALLED:
                wanted.add(f"{package.replace('.', '/')}/{file.relative_to(tree / folder).as_posix()}")
    assert wanted, "the packages' folders hold no files"
    return wanted - names


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(copy_tree(tmp_path_factory.mktemp("wheel") / "tree"))


def test_there_is_no_folder_that_would_shadow_the_installed_package() -> None:
    assert not (ROOT / "wardround").exists()


def test_every_folder_with_python_in_it_is_a_package_with_a_line_in_pyproject() -> None:
    top = {path for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith((".", "_"))}
    found = set()
    for path in top:
        if path.name in NOT_PACKAGED or path.name.endswith(".egg-info"):
            continue
        for file in path.rglob("*.py"):
            folder = file.parent
            assert (folder / "__init__.py").exists(), f"{folder.relative_to(ROOT)} has no __init__.py"
            found.add(".".join(["wardround", *folder.relative_to(ROOT).parts]))
    assert found == set(PACKAGES)
    assert {name: name.split(".")[1] for name in PACKAGES if name.count(".") == 1} == FOLDERS


def test_every_file_kind_in_a_package_is_one_that_gets_installed() -> None:
    kinds = {
        file.suffix or file.name
        for folder in FOLDERS.values()
        for file in (ROOT / folder).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts and not file.name.startswith(".")
    }
    assert kinds <= INSTALLED, "a new kind: add it to package-data in pyproject.toml and to INSTALLED"


def test_the_wheel_has_every_file_and_only_our_package(wheel: Path) -> None:
    assert absent_from(wheel, ROOT) == set()
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"wardround"}


def test_data_files_of_every_kind_reach_the_wheel_from_any_depth(tmp_path: Path) -> None:
    tree = copy_tree(tmp_path / "tree")
    for number, suffix in enumerate(sorted(INSTALLED - {".py"})):
        file = tree.joinpath("console", *["deep"] * number, f"file{suffix}")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    assert absent_from(build_wheel(tree), tree) == set()


def test_a_nested_package_that_pyproject_forgets_is_found_missing(tmp_path: Path) -> None:
    tree = copy_tree(tmp_path / "tree")
    replace(tree / "pyproject.toml", '    "wardround.client.tasks",\n', "")
    missing = absent_from(build_wheel(tree), tree)
    assert "wardround/client/tasks/__init__.py" in missing
    assert all(name.startswith("wardround/client/tasks/") for name in missing)


def test_the_installed_wheel_answers_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "venv"
    made = run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    python = environment / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "--quiet"]
    installed = run(*pip, wheel, cwd=tmp_path)
    assert installed.returncode == 0, installed.stderr
    # The dependencies are borrowed. A .pth line adds a folder but does not run the .pth files in it, so the
    # editable install of this tree stays out. It comes after pip, which would count wardround as installed.
    packages = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path)
    (Path(packages.stdout.strip()) / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")

    where = run(python, "-c", "import wardround.console.cli as cli; print(cli.__file__)", cwd=tmp_path)
    assert where.returncode == 0, where.stderr
    assert Path(where.stdout.strip()).is_relative_to(environment)
    answer = run(environment / "bin" / "wardround", "--help", cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert "usage" in answer.stdout.lower()


def imported_libraries(file: Path) -> set[str]:
    """Top-level names of what a module imports, inside functions too, but the standard library and us."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names - sys.stdlib_module_names - {"wardround"}


def test_every_library_that_the_packages_import_is_declared_outside_the_dev_extra() -> None:
    # The tests run with the dev extra, so a library that only it brings would be missed by every other test.
    project = CONFIG["project"]
    extras = project["optional-dependencies"].items()
    lines = project["dependencies"] + [line for extra, more in extras if extra != "dev" for line in more]
    declared = {re.split(r"[^\w.-]", line)[0].lower().replace("_", "-") for line in lines}
    distributions = packages_distributions()
    for folder in FOLDERS.values():
        for file in (ROOT / folder).rglob("*.py"):
            for name in imported_libraries(file):
                providers = {known.lower().replace("_", "-") for known in distributions.get(name, [])}
                assert providers & declared, f"declare {name}, which {file.relative_to(ROOT)} imports"


def test_an_undeclared_import_is_seen_inside_a_function_too(tmp_path: Path) -> None:
    (tmp_path / "fault.py").write_text("import os\n\ndef late():\n    from lifelines.utils import x\n")
    assert imported_libraries(tmp_path / "fault.py") == {"lifelines"}


def test_links_follow_the_map_and_stale_ones_go(tmp_path: Path) -> None:
    tree = copy_tree(tmp_path / "tree")
    links = tree / ".links" / "wardround"
    links.mkdir(parents=True)
    (links / "gone").symlink_to("../../gone")
    (links / "client").symlink_to("../../server")
    for _ in range(2):
        linked = run(sys.executable, "scripts/link.py", cwd=tree)
        assert linked.returncode == 0, linked.stderr
        found = {f"wardround.{link.name}": link.resolve() for link in links.iterdir()}
        assert found == {package: tree / folder for package, folder in FOLDERS.items()}


IMPORT_ALL_WITHOUT_TORCH = """
import importlib, pkgutil, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "opacus"}:
            raise ModuleNotFoundError(f"No module named {name!r} (blocked)", name=name)

sys.meta_path.insert(0, Absent())
for name in sys.argv[1:]:
    package = importlib.import_module(name)
    print(name)
    for module in pkgutil.walk_packages(package.__path__, name + "."):
        if not module.name.endswith(".__main__"):
            importlib.import_module(module.name)
            print(module.name)
"""


def import_all_without_torch(*packages: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, "-c", IMPORT_ALL_WITHOUT_TORCH, *packages, cwd=ROOT.parent, **environment)


def test_what_the_coordinator_runs_imports_without_torch() -> None:
    imported = import_all_without_torch("wardround.server", "wardround.strategies", "wardround.protocol")
    assert imported.returncode == 0, imported.stderr
    for folder in ["server", "strategies", "protocol"]:
        for file in (ROOT / folder).rglob("*.py"):
            if file.stem != "__main__":
                parts = file.relative_to(ROOT).with_suffix("").parts
                module = ".".join(["wardround", *parts]).removesuffix(".__init__")
                assert module in imported.stdout.split()


@pytest.mark.parametrize("banned", ["torch", "opacus"])
def test_an_import_of_torch_in_the_coordinator_is_noticed(tmp_path: Path, banned: str) -> None:
    (tmp_path / "coordinator").mkdir()
    (tmp_path / "coordinator" / "__init__.py").touch()
    (tmp_path / "coordinator" / "rounds.py").write_text(f"import {banned}\n")
    imported = import_all_without_torch("coordinator", PYTHONPATH=str(tmp_path))
    assert imported.returncode != 0
    assert f"No module named '{banned}' (blocked)" in imported.stderr


LINT_IMPORTS = ["lint-imports", "--no-logo", "--no-cache"]
FAULTS = {
    "Imports point down only": ("protocol/fault.py", "import wardround.privacy\n"),
    "The coordinator runs without torch": ("server/fault.py", "import torch\n"),
    "The mathematics knows no transport": ("conf/fault.py", "import grpc\n"),
    "Flower is imported in the adapters only": ("client/fault.py", "import flwr.app\n"),
}


def lint_imports(tree: Path) -> dict[str, bool]:
    """Contract -> was it kept."""
    assert run(sys.executable, "scripts/link.py", cwd=tree).returncode == 0
    program, *arguments = LINT_IMPORTS
    report = run(tool(program), *arguments, cwd=tree, PYTHONPATH=".links")
    kept = {name: word == "KEPT" for name, word in re.findall(r"^(.+?) (KEPT|BROKEN)", report.stdout, re.M)}
    assert kept, report.stdout + report.stderr
    assert (report.returncode == 0) is all(kept.values())
    return kept


def test_each_import_contract_fails_on_its_own_fault_and_no_other(tmp_path: Path) -> None:
    tree = copy_tree(tmp_path / "tree")
    assert lint_imports(tree) == dict.fromkeys(FAULTS, True)
    for contract, (name, fault) in FAULTS.items():
        (tree / name).write_text(fault)
        assert lint_imports(tree) == {other: other != contract for other in FAULTS}
        (tree / name).unlink()


@pytest.mark.parametrize(
    ("name", "line"),
    [("server/fault.py", "import wardround.client\n"), ("client/fault.py", "import wardround.server\n")],
)
def test_the_two_shells_may_not_import_each_other(tmp_path: Path, name: str, line: str) -> None:
    tree = copy_tree(tmp_path / "tree")
    (tree / name).write_text(line)
    assert lint_imports(tree)["Imports point down only"] is False


def test_a_folder_outside_the_order_is_refused(tmp_path: Path) -> None:
    tree = copy_tree(tmp_path / "tree")
    (tree / "common").mkdir()
    (tree / "common" / "__init__.py").touch()
    heading = "[tool.setuptools.package-dir]\n"
    replace(tree / "pyproject.toml", heading, heading + '"wardround.common" = "common"\n')
    assert run(sys.executable, "scripts/link.py", cwd=tree).returncode == 0
    report = run(tool("lint-imports"), *LINT_IMPORTS[1:], cwd=tree, PYTHONPATH=".links")
    assert report.returncode != 0
    assert "common" in report.stdout


@pytest.mark.parametrize("adapter", ["server/flower/more.py", "client/flower/more.py", "simulations/flower.py"])
def test_the_adapters_may_import_flower(tmp_path: Path, adapter: str) -> None:
    tree = copy_tree(tmp_path / "tree")
    (tree / adapter).write_text("import flwr.app\n")
    assert all(lint_imports(tree).values())


def test_mypy_reads_every_package(tmp_path: Path) -> None:
    # The real configuration over small packages, each with one fault: the true tree would take much longer.
    shutil.copy2(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    for package in PACKAGES:
        folder = tmp_path.joinpath(*package.split(".")[1:])
        folder.mkdir(parents=True)
        (folder / "__init__.py").touch()
        (folder / "fault.py").write_text("def untyped(argument):\n    return argument\n")
    assert run(sys.executable, "scripts/link.py", cwd=tmp_path).returncode == 0
    report = run(tool("mypy"), "--cache-dir", "cache", cwd=tmp_path)
    assert report.returncode == 1, report.stdout + report.stderr
    for package in PACKAGES:
        path = package.replace(".", "/")
        assert f".links/{path}/fault.py:1: error: Function is missing a type annotation" in report.stdout


SKIPPING = {
    "test_inside.py": "import pytest\n\ndef test_skips():\n    pytest.skip('no data')\n",
    "test_module.py": "import pytest\n\npytest.skip('no data', allow_module_level=True)\n",
    "test_marked.py": "import pytest\n\n@pytest.mark.skip('no data')\ndef test_skips():\n    pass\n",
    "test_expected.py": "import pytest\n\n@pytest.mark.xfail\ndef test_fails():\n    assert False\n",
}


def run_skipping(folder: Path, *arguments: str, no_skip: str) -> subprocess.CompletedProcess[str]:
    shutil.copy2(ROOT / "tests" / "conftest.py", folder)
    (folder / "pytest.ini").write_text(f"[pytest]\nmarkers = server(name)\npythonpath = {ROOT / 'benchmarks'}\n")
    for name, text in SKIPPING.items():
        (folder / name).write_text(text)
    return run(sys.executable, "-m", "pytest", *arguments, cwd=folder, WARDROUND_NO_SKIP=no_skip)


def test_skips_are_counted_by_reason(tmp_path: Path) -> None:
    report = run_skipping(tmp_path, no_skip="")
    assert report.returncode == 0, report.stdout
    assert "skipped because no data: 3\n" in report.stdout


def test_skips_are_failures_where_they_are_forbidden(tmp_path: Path) -> None:
    report = run_skipping(tmp_path, "--continue-on-collection-errors", no_skip="1")
    assert report.returncode == 1, report.stdout
    assert report.stdout.count("skipped, which WARDROUND_NO_SKIP=1 forbids: no data") >= 3
    # pytest calls a failure outside the body of a test an error: the module's and the marker's.
    assert "1 failed, 1 xfailed, 2 errors" in report.stdout
