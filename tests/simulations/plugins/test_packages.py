"""A plugin's package from ``plugin new`` to a run: it passes as it is written, and is one text in every form."""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from datetime import date
from importlib.metadata import PathDistribution
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from wardround.client.store.keys import write_officer_key
from wardround.client.tasks import task_from
from wardround.conf.compose import compose_configuration
from wardround.conf.planning import make_plan
from wardround.conf.schema import parse_configuration
from wardround.console.commands.plugin import check_command, new_command, show_command, sign_command
from wardround.console.commands.simulate import simulate_command
from wardround.console.commands.sweep import write_run_page
from wardround.protocol.errors import UsageError
from wardround.protocol.identity import Identity
from wardround.protocol.plan import StudyPlan
from wardround.protocol.plugins import Kind, sign_plugin
from wardround.simulations.cohorts import declared_patients
from wardround.simulations.configured import simulate
from wardround.simulations.plugins.configured import configuration_of, own_strategy, with_plugins
from wardround.simulations.plugins.local import local_task, task_spec
from wardround.simulations.plugins.new import new_plugin
from wardround.simulations.plugins.source import read_source
from wardround.simulations.result import SimulationResult
from wardround.simulations.sweep.folder import SweepFolder
from wardround.simulations.sweep.one_run import Runner
from wardround.simulations.sweep.sweeping import prepare
from wardround.strategies import strategy_for

KINDS: tuple[Kind, ...] = ("model", "task", "strategy")
TODAY = date(2026, 11, 29)
Folder = Callable[..., Path]


@pytest.fixture
def made(tmp_path: Path) -> Folder:
    """A package as ``plugin new`` writes it, with lines put in place of others."""

    def make(kind: Kind = "model", old: str = "", new: str = "") -> Path:
        new_plugin(f"my_{kind}", kind, tmp_path)
        file = tmp_path / f"my_{kind}" / f"my_{kind}" / "__init__.py"
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new) if old else text)
        return tmp_path / f"my_{kind}"

    return make


def test_each_kind_passes_its_tests_as_it_is_written_and_installed(tmp_path: Path, made: Folder) -> None:
    """In a process of its own, from a folder into which the real wheels were installed and nothing else."""
    folders = [made(kind) for kind in KINDS]
    wheels, target = tmp_path / "wheels", tmp_path / "installed"
    pip = [sys.executable, "-m", "pip", "-q", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w"]
    subprocess.run([*pip, str(wheels), *map(str, folders)], check=True)
    for wheel, folder in zip(sorted(wheels.glob("*.whl")), sorted(folders), strict=True):
        with zipfile.ZipFile(wheel) as packed:
            packed.extractall(target)
        assert read_source(wheel).plugin == read_source(folder).plugin
        (about,) = target.glob(f"{folder.name}-*.dist-info")
        assert [entry.value for entry in PathDistribution(about).entry_points] == [folder.name]
    tests = [folder / "tests" for folder in folders]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--import-mode=importlib", "-p", "no:cacheprovider", *map(str, tests)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout
    # Two or one tests of its own each, five of the contract of models, twice, six of that of strategies.
    assert "21 passed" in run.stdout, run.stdout


def test_a_check_finds_a_strategy_that_breaks_the_contract_and_ends_with_one(
    made: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = made("strategy", "self.rate * mean_update(total)", "1.0 + self.rate * mean_update(total)")
    with pytest.raises(typer.Exit) as ended:
        check_command(folder, True)
    found = json.loads(capsys.readouterr().out)
    assert ended.value.exit_code == 1 and found["passed"] is False
    assert found["own tests"].startswith("2 failed") and found["contract"].startswith("1 failed, 5 passed")
    assert found["digest"] == read_source(folder).plugin.digest and found["author"] == ""


def test_a_folder_that_exists_and_a_name_that_is_none_are_refused(tmp_path: Path, made: Folder) -> None:
    made()
    with pytest.raises(UsageError, match="exists already"):
        new_plugin("my_model", "model", tmp_path)
    with pytest.raises(UsageError, match="no name"):
        new_plugin("My-Model", "model", tmp_path)


def test_the_digest_covers_what_runs_and_what_is_said_of_it_and_nothing_else(made: Folder) -> None:
    folder = made()
    before = read_source(folder).plugin.digest
    (folder / "README.md").write_text("other words")
    (folder / "tests" / "test_my_model.py").write_text("")
    assert read_source(folder).plugin.digest == before
    digests = {before}
    for file, old, new in (
        ("my_model/__init__.py", "Tanh", "ReLU"),
        ("pyproject.toml", "0.1.0", "0.1.1"),
        ("pyproject.toml", "one hidden layer", "two hidden layers"),
    ):
        place = folder / file
        place.write_text(place.read_text().replace(old, new))
        digests.add(read_source(folder).plugin.digest)
    (folder / "my_model" / "more.py").write_text("")
    assert len(digests | {read_source(folder).plugin.digest}) == 5


@pytest.mark.parametrize(
    ("file", "content", "fault"),
    [
        ("my_model/fast.so", b"\x7fELF", "no Python file"),
        ("my_model/weights.bin", b"", "no Python file"),
        ("my_model/latin.py", b"# \xe9", "UTF-8"),
        ("pyproject.toml", b"[project]\nname = 'x'", "does not describe a plugin|entry points"),
        ("pyproject.toml", b"[project", "does not describe a plugin"),
        ("my_model/__init__.py", b'LABEL = "mask"', "label"),
    ],
)
def test_what_is_no_plugin_is_refused_in_two_lines(file: str, content: bytes, fault: str, made: Folder) -> None:
    folder = made()
    (folder / file).write_bytes(content)
    with pytest.raises(UsageError, match=fault) as error:
        read_source(folder)
    assert len(error.value.lines().splitlines()) == 2


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("nn.Tanh()", "nn.BatchNorm1d(int(width))", "BatchNorm"),
        ("nn.Linear(features, int(width))", "nn.Linear(features + 1, int(width))", None),
        ("    return nn", "    raise ValueError('no')\n    return nn", "cannot build"),
    ],
)
def test_a_model_that_couples_patients_or_cannot_be_built_is_refused(
    old: str, new: str, fault: str | None, made: Folder
) -> None:
    source = read_source(made("model", old, new))
    if fault is None:
        task = local_task(source.plugin, task_spec(source, 4, {}), 4)
        with pytest.raises(RuntimeError):
            task.engine.outputs(np.zeros(task.engine.size), np.zeros((1, 4)))
        return
    with pytest.raises(UsageError, match=fault):
        local_task(source.plugin, task_spec(source, 4, {}), 4)


def planned(*words: str) -> StudyPlan:
    configuration = configuration_of(["study=heart_disease", *words])
    return make_plan(configuration, declared_patients(configuration), TODAY)


def test_a_plan_names_the_plugin_by_digest_and_author_and_no_path(made: Folder, tmp_path: Path) -> None:
    folder, ada = made(), Identity.generate("ada")
    source = read_source(folder)
    file = tmp_path / "my_model.plugin.json"
    file.write_bytes(sign_plugin(source.plugin, ada).encoded)
    plain, signed, wide = (
        planned(*words)
        for words in ((f"task={folder}",), (f"task={file}",), (f"task={folder}", "+task.settings.width=4"))
    )
    for plan in (plain, signed, wide):
        assert StudyPlan.parse(plan.canonical) == plan and str(tmp_path) not in plan.canonical.decode()
        with pytest.raises(UsageError, match="not installed"):
            task_from(plan)
    assert plain.task.name == signed.task.name == "plugin"
    assert plain.task.plugin.digest == signed.task.plugin.digest == source.plugin.digest
    assert (plain.task.plugin.author, signed.task.plugin.author) == ("", "ada")
    assert signed.task.plugin.key == ada.public.key.hex()
    features = len(plain.contract_or_fail.feature_names)
    assert plain.layout.size == 16 * (features + 2) + 1 and wide.layout.size == 4 * (features + 2) + 1


def test_a_run_says_which_code_was_part_of_it(made: Folder, tmp_path: Path, capsys: Any) -> None:
    model, strategy = made("model"), made("strategy")
    words = [f"task={model}", f"strategy={strategy}", "+strategy.parameters.rate=0.5", "rounds=1", "secagg=off"]
    simulate_command(["study=heart_disease", *words, f"simulation.output={tmp_path / 'runs'}"], 0.0)
    (file,) = (tmp_path / "runs").glob("*/result.json")
    result = SimulationResult.model_validate_json(file.read_bytes())
    assert [(one.part, one.name, one.version, one.author) for one in result.plugins] == [
        ("task", "my_model", "0.1.0", ""),
        ("strategy", "my_strategy", "0.1.0", ""),
    ]
    assert [one.digest for one in result.plugins] == [read_source(one).plugin.digest for one in (model, strategy)]


def test_a_sweep_runs_plugins_and_goes_on_with_the_same_ones_only(made: Folder, tmp_path: Path) -> None:
    model, strategy = made("model"), made("strategy")
    words = ["study=heart_disease", f"task={model}", f"strategy={strategy},fedavg", "rounds=1", "secagg=off"]
    words += ["privacy=none", "simulation.evaluate_every=0"]
    folder = SweepFolder(tmp_path / "sweep")
    prepared = prepare(words, folder)
    digests = [read_source(one).plugin.digest for one in (model, strategy)]
    assert prepared.manifest.plugins == tuple(sorted(digests))
    runner = Runner(folder, TODAY, write_run_page)
    assert [runner(job).message for job in prepared.left] == ["", ""]
    runs, failed = folder.outcomes(prepared.grid)
    assert [[one.name for one in run.result.plugins] for run in runs] == [["my_model", "my_strategy"], ["my_model"]]
    assert not failed
    with (model / "my_model" / "__init__.py").open("a") as file:
        file.write("\nADDED = 1\n")
    with pytest.raises(UsageError, match="another plugin"):
        prepare(words, folder)


def test_a_plugin_is_not_sent_to_ray(made: Folder, tmp_path: Path) -> None:
    words = ["study=heart_disease", "rounds=1", "secagg=off", "simulation.engine=flower"]
    for own in (f"task={made('model')}", f"strategy={made('strategy')}"):
        configuration = configuration_of([*words, own, f"simulation.output={tmp_path / 'runs'}"])
        with pytest.raises(UsageError, match="not sent to Ray") as refused:
            simulate(configuration, today=TODAY, started=0.0)
        assert "simulation.engine=auto" in refused.value.hint


def test_no_hospital_takes_a_strategy_that_is_a_plugin(made: Folder) -> None:
    configuration = parse_configuration(
        with_plugins(compose_configuration(["study=heart_disease", f"strategy={made('strategy')}"]))
    )
    with pytest.raises(UsageError, match="simulation only"):
        make_plan(configuration, declared_patients(configuration), TODAY)
    plan = make_plan(configuration, declared_patients(configuration), TODAY, own_strategy(configuration))
    with pytest.raises(UsageError, match="simulation only"):
        strategy_for(plan)


def test_a_name_of_ours_is_never_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new_plugin("mlp", "model", tmp_path)
    monkeypatch.chdir(tmp_path)
    assert compose_configuration(["study=heart_disease", "task=mlp"])["plugins"]["task"] is None
    assert compose_configuration(["study=heart_disease", "task=./mlp"])["plugins"]["task"] == str(tmp_path / "mlp")


def test_new_says_what_comes_next_and_show_what_changed(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    new_command("one", "task", Path())
    said = capsys.readouterr().out
    assert "wardround plugin check one" in said and "task=./one" in said
    monkeypatch.setattr("wardround.console.commands.plugin.passphrase", lambda asked: "correct horse battery")
    write_officer_key(tmp_path / "ada.key", Identity.generate("ada"), "correct horse battery")
    sign_command(Path("one"), Path("ada.key"), Path("one-1.plugin.json"))
    assert read_source(Path("one")).plugin.digest in capsys.readouterr().out
    text = Path("one/one/__init__.py").read_text()
    Path("one/one/__init__.py").write_text(f"import socket\n# \x1b[2J\n{text}")
    show_command(Path("one"), Path("one-1.plugin.json"))
    shown = capsys.readouterr().out
    assert "gained: network ('socket')" in shown and "    +import socket" in shown
    assert "\x1b" not in shown and "\\x1b[2J" in shown and "nobody has signed it" in shown
