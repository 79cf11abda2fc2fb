"""The wheelhouse: what it lists installs without an index, and what was changed does not."""

import platform
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def wheel(folder: Path, name: str, text: str) -> Path:
    """A small pure wheel (PEP 427)."""
    path, info = folder / f"{name}-1.0-py3-none-any.whl", f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", text)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    wheel(folder, "alpha", "WORD = 'alpha'\n")
    wheel(folder, "beta", "WORD = 'beta'\n")
    done = subprocess.run([sys.executable, ROOT / "scripts" / "bundle_manifest.py", folder], capture_output=True)
    assert done.returncode == 0, done.stderr
    return folder


def install(bundle: Path, target: Path) -> subprocess.CompletedProcess[str]:
    command = ["sh", str(bundle / "install"), str(target), sys.executable]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.slow
def test_what_is_in_the_bundle_installs_without_an_index(bundle: Path, tmp_path: Path) -> None:
    done = install(bundle, tmp_path / "venv")
    assert done.returncode == 0, done.stderr
    said = subprocess.run(
        [tmp_path / "venv" / "bin" / "python", "-c", "import alpha, beta; print(alpha.WORD, beta.WORD)"],
        capture_output=True,
        text=True,
    )
    assert said.stdout == "alpha beta\n"


def test_a_wheel_that_was_changed_on_the_way_is_not_installed(bundle: Path, tmp_path: Path) -> None:
    wheel(bundle, "beta", "WORD = 'changed'\n")
    done = install(bundle, tmp_path / "venv")
    assert done.returncode != 0
    assert not (tmp_path / "venv").exists()


def test_a_bundle_for_another_python_says_so_before_anything_is_made(bundle: Path, tmp_path: Path) -> None:
    script = (bundle / "install").read_text()
    made_for = f'made_for="{sys.version_info[0]}.{sys.version_info[1]} {platform.machine()}"'
    assert made_for in script
    (bundle / "install").write_text(script.replace(made_for, f'made_for="3.9 {platform.machine()}"'))
    done = install(bundle, tmp_path / "venv")
    assert done.returncode != 0
    assert "these wheels are for Python 3.9" in done.stderr and "hint:" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_an_environment_that_exists_is_not_written_into(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "venv").mkdir()
    done = install(bundle, tmp_path / "venv")
    assert done.returncode != 0 and "exists already" in done.stderr
    assert not list((tmp_path / "venv").iterdir())


def test_the_papers_name_every_wheel_once_with_its_own_hash(bundle: Path) -> None:
    """The hashes are recomputed by coreutils."""
    wheels = sorted(path.name for path in bundle.glob("*.whl"))
    sums = subprocess.run(["sha256sum", *wheels], cwd=bundle, capture_output=True, text=True, check=True).stdout
    hashes = [line.split()[0] for line in sums.splitlines()]
    wanted = [f"{name}==1.0 --hash=sha256:{hash_}" for name, hash_ in zip(["alpha", "beta"], hashes, strict=True)]
    assert (bundle / "requirements.txt").read_text().splitlines() == wanted
    listed = [line.split()[1] for line in (bundle / "SHA256SUMS").read_text().splitlines()]
    assert listed == [*wheels, "requirements.txt", "install"]


def test_two_wheels_of_one_name_are_refused(tmp_path: Path) -> None:
    wheel(tmp_path, "alpha", "")
    wheel(tmp_path, "Alpha", "")
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "bundle_manifest.py", tmp_path], capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "two wheels of alpha" in done.stderr


def test_torch_is_taken_by_its_exact_version_and_before_the_rest() -> None:
    script = (ROOT / "scripts" / "bundle").read_text()
    assert script.index("grep '^torch==' constraints.txt") < script.index("pip wheel")
    assert re.search(r"(?m)^torch==[\d.]+$", (ROOT / "constraints.txt").read_text())


def test_a_folder_with_something_else_than_wheels_is_refused(tmp_path: Path) -> None:
    (tmp_path / "alpha-1.0.tar.gz").touch()
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "bundle_manifest.py", tmp_path], capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "not a wheel" in done.stderr
