"""The command line: it answers fast, fails in two lines, and never shows a traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def wardround(*words: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "wardround.console.cli", *words],
        cwd=folder, env=os.environ | environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def test_help_names_the_commands_and_loads_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom wardround.console.cli import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'numpy', 'hydra', 'pydantic', 'dp_accounting', 'pyarrow'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "simulate" in done.stdout


def test_a_simulation_prints_a_row_per_hospital_and_where_the_report_lies(tmp_path: Path) -> None:
    done = wardround("simulate", "study=heart_disease", "rounds=2", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    for site in ("cleveland", "hungarian", "switzerland", "va"):
        assert site in done.stdout
    (report,) = (tmp_path / "runs").glob("*/report.html")
    assert report.name in done.stdout and "not estimable" in done.stdout


def test_a_simulation_of_a_tabular_study_never_imports_torch(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom wardround.console.cli import app\n"
        "app(['simulate', 'rounds=1', 'privacy=none'], standalone_mode=False)\n"
        "sys.exit('torch was loaded' if 'torch' in sys.modules else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("simulate", "study=heart"), "there is no study 'heart'"),
        (("simulate", "privacy.epsilon=0.0001", "privacy.noise_multiplier=auto"), "no noise multiplier"),
        (("simulate", "simulation.output=/proc/none"), "cannot be made"),
        (("simulat",), "simulat"),
        (("simulate", "--wrong"), "wrong"),
    ],
)
def test_a_failure_is_two_lines_and_an_exit_code(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    done = wardround(*words, folder=tmp_path)
    lines = done.stderr.strip().splitlines()
    assert done.returncode != 0 and len(lines) == 2, done.stderr
    assert lines[0].startswith("wardround: error: ") and message in lines[0]
    assert lines[1].startswith("wardround: hint: ") and len(lines[1]) > 20


def test_a_defect_is_two_lines_without_its_text(tmp_path: Path) -> None:
    code = (
        "import wardround.console.cli as cli, wardround.console.commands.simulate as simulate\n"
        "def broken(*a): raise RuntimeError('patient Quillfeather')\n"
        "simulate.simulate_command = broken\n"
        "import sys; sys.argv = ['wardround', 'simulate']\ncli.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 70 and "Quillfeather" not in done.stderr + done.stdout
    assert len(done.stderr.strip().splitlines()) == 2 and "RuntimeError" in done.stderr


def test_ctrl_c_is_two_lines_that_say_how_to_go_on(tmp_path: Path) -> None:
    code = (
        "import wardround.console.cli as cli, wardround.console.commands.simulate as simulate\n"
        "def broken(*a): raise KeyboardInterrupt\n"
        "simulate.simulate_command = broken\n"
        "import sys; sys.argv = ['wardround', 'simulate']\ncli.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 130 and "simulation.resume=" in done.stderr


def test_windows_is_answered_with_wsl2(tmp_path: Path) -> None:
    code = "import sys\nimport wardround.console.cli as cli\nsys.platform = 'win32'\ncli.main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert "WSL2" in done.stderr and len(done.stderr.strip().splitlines()) == 2
