"""The folder of installed weights files, and plans that start from one."""

import stat
from datetime import date
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from wardround.conf.compose import compose_configuration
from wardround.conf.planning import make_plan
from wardround.conf.schema import parse_configuration
from wardround.conf.weights import WeightsFolder
from wardround.protocol.errors import UsageError
from wardround.protocol.parameters import model_hash
from wardround.protocol.plan import StudyPlan
from wardround.protocol.weights import WeightsFile

DECLARED = {"east": 200, "north": 200, "south": 200}


def file_with(path: Path, **tensors: np.ndarray) -> WeightsFile:
    data = save({name.replace("__", "."): value for name, value in tensors.items()})
    path.write_bytes(data)
    return WeightsFile(sha256=sha256(data).hexdigest(), licence="MIT", provenance="made by a test of this folder")


def test_an_installed_file_lies_under_its_hash_for_its_user_alone(tmp_path: Path) -> None:
    file = file_with(tmp_path / "mine.safetensors", a=np.zeros((2, 3), np.float32), b=np.zeros(4, np.float32))
    folder = WeightsFolder(tmp_path / "weights")
    assert not folder.has(file)
    held = folder.install(tmp_path / "mine.safetensors")
    assert (held.sha256, held.tensors, held.parameters) == (file.sha256, 2, 10)
    assert folder.has(file) and folder(file) == (tmp_path / "mine.safetensors").read_bytes()
    place = tmp_path / "weights" / f"{file.sha256}.safetensors"
    assert stat.S_IMODE(place.stat().st_mode) == 0o600 and [p.name for p in folder.path.iterdir()] == [place.name]
    assert folder.install(tmp_path / "mine.safetensors") == held


def test_what_is_no_weights_file_is_not_installed(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"PK\x03\x04 a pickle in a zip")
    folder = WeightsFolder(tmp_path / "weights")
    with pytest.raises(UsageError, match="no safetensors file"):
        folder.install(tmp_path / "model.pt")
    with pytest.raises(UsageError, match="cannot be read"):
        folder.install(tmp_path / "nothing.safetensors")
    assert not folder.path.exists()


def planned(file: WeightsFile, weights: Path) -> StudyPlan:
    words = [
        "study=heart_disease",
        "initial.scheme=file",
        f"initial.file={{sha256:{file.sha256},licence:{file.licence},provenance:'{file.provenance}'}}",
        f"weights={weights}",
    ]
    return make_plan(parse_configuration(compose_configuration(words)), DECLARED, date(2026, 11, 24))


def layout_size() -> int:
    words = ["study=heart_disease"]
    return make_plan(parse_configuration(compose_configuration(words)), DECLARED, date(2026, 11, 24)).layout.size - 1


def test_a_plan_can_start_from_an_installed_file_and_names_the_hash_of_its_numbers(tmp_path: Path) -> None:
    weight = np.linspace(-1, 1, layout_size(), dtype=np.float32)[None]
    bias = np.array([0.25], np.float32)
    file = file_with(tmp_path / "start.safetensors", dense0__weight=weight, dense0__bias=bias)
    WeightsFolder(tmp_path / "weights").install(tmp_path / "start.safetensors")
    plan = planned(file, tmp_path / "weights")
    start = np.concatenate([weight[0], bias])
    assert plan.model.hash == model_hash(start)
    assert np.array_equal(plan.starting_model(WeightsFolder(tmp_path / "weights")), start)
    assert plan.weights_files == (file,)
    assert StudyPlan.parse(plan.canonical) == plan
    with pytest.raises(UsageError, match="not installed"):
        plan.starting_model()


def test_a_start_that_is_not_installed_makes_no_plan(tmp_path: Path) -> None:
    file = file_with(tmp_path / "start.safetensors", dense0__weight=np.zeros((1, 3), np.float32))
    with pytest.raises(UsageError, match="not installed"):
        planned(file, tmp_path / "weights")
    WeightsFolder(tmp_path / "weights").install(tmp_path / "start.safetensors")
    with pytest.raises(UsageError, match=r"dense0\.weight"):
        planned(file, tmp_path / "weights")


def test_a_file_without_the_scheme_or_the_scheme_without_a_file_is_refused() -> None:
    for words in (["initial.scheme=file"], ["initial.file={sha256:" + "a" * 64 + ",licence:MIT,provenance:somebody}"]):
        with pytest.raises(UsageError):
            parse_configuration(compose_configuration(["study=heart_disease", *words]))
