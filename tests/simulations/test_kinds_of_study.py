"""Every kind of label and of model, through a whole study: on phantoms, and on hospitals made of a contract."""

import json
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

from wardround.conf.compose import compose_configuration
from wardround.conf.schema import Configuration, parse_configuration
from wardround.protocol.errors import UsageError
from wardround.protocol.plan import TrainedModel
from wardround.simulations.configured import Simulated, simulate
from wardround.simulations.rehearsal import rehearse

TODAY = date(2026, 11, 29)
SITES = ("north", "east", "south", "west")
UNPROTECTED = ["privacy=none", "local.steps=null", "local.epochs=1", "local.batch_size=16"]

HEAD: dict[str, Any] = {
    "study": {
        "name": "made", "title": "A study of a test", "purpose": "try every kind of label",
        "controllers": [{"name": "nobody", "role": "joint"}], "legal_basis": "none", "ethics_reference": "none needed",
        "recipients": ["the test"], "permitted_use": "this test only",
    },
    "data": {"declared": dict.fromkeys(SITES, 100)},
}  # fmt: skip
COLUMNS = {
    "age": {"type": "number", "meaning": "Age", "unit": "a", "minimum": 18, "maximum": 100, "center": 60, "scale": 15},
    "bmi": {
        "type": "number",
        "meaning": "BMI",
        "unit": "kg/m2",
        "minimum": 10,
        "maximum": 80,
        "center": 27,
        "scale": 5,
    },
}
IMAGE = {"modality": "DX", "size": [16, 16], "window": [0, 255]}
FINDINGS = {
    "kind": "findings", "meaning": "Findings", "findings": [
        {"column": "opacity", "meaning": "Opacity", "unknown": ["-1"]},
        {"column": "effusion", "meaning": "Effusion"},
    ],
}  # fmt: skip
PRESSURE = {
    "kind": "number", "column": "pressure", "meaning": "Systolic pressure", "unit": "mm[Hg]", "minimum": 60,
    "maximum": 260, "missing_codes": [0],
}  # fmt: skip
LUNGS = {"kind": "mask", "column": "mask", "meaning": "Lungs", "structures": {"1": "left", "7": "right"}}
CONTRAST = {"kind": "class", "column": "contrast", "meaning": "Contrast", "positive": ["1"], "negative": ["0"]}
VOLUME = {"modality": "CT", "size": [8, 16, 16], "window": [-160, 240], "spacing": [8, 4, 4], "orientation": "LPS"}
UNET = {"name": "image_segmentation", "size": [16, 16], "widths": [4, 8], "structures": 2}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a quantity": (
        {"columns": COLUMNS, "label": PRESSURE},
        {"name": "tabular_regression", "hidden": [], "center": 120, "scale": 20},
    ),
    "findings in a table": ({"columns": COLUMNS, "label": FINDINGS}, {"name": "tabular_classification", "outputs": 2}),
    "findings in pictures": (
        {"image": IMAGE, "label": FINDINGS},
        {"name": "image_classification", "size": [16, 16], "widths": [4, 8], "outputs": 2, "positive_weights": [2, 1]},
    ),
    "findings by a probe": (
        {"image": IMAGE, "label": FINDINGS},
        {"name": "linear_probe", "size": [16, 16], "outputs": 2},
    ),
    "structures in pictures": (
        {"image": IMAGE, "label": LUNGS},
        UNET,
    ),
    "a class of volumes": (
        {"image": VOLUME, "label": CONTRAST},
        {"name": "image_classification", "size": [8, 16, 16], "widths": [4, 8]},
    ),
}  # fmt: skip


def made(tmp_path: Path, contract: dict[str, Any], task: dict[str, Any], *words: str) -> Configuration:
    start = {"scheme": "uniform"} if "hidden" not in task else {"scheme": "zeros"}
    text = {**HEAD, "contract": {"patient_id": "patient", **contract}, "initial": start}
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(text), encoding="utf-8")
    given = compose_configuration([f"study={path}", *words])
    return parse_configuration({**given, "task": task})


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("words", [(), ("privacy=none", "local.steps=null", "local.epochs=1", "local.batch_size=16")])
def test_every_kind_runs_at_hospitals_that_are_made_of_its_contract(
    case: str, words: tuple[str, ...], tmp_path: Path
) -> None:
    contract, task = CASES[case]
    found = rehearse(made(tmp_path, contract, task, *words), SITES, 50, 1, TODAY)
    assert [each.state for each in found.rounds] == ["closed"]
    assert len(found.cohorts) == 4 and all(cohort.train.patients > 20 for cohort in found.cohorts)
    # The last hospital is of one class; a quantity has none.
    if contract["label"]["kind"] == "findings":
        assert (found.cohorts[-1].train.targets <= 0).all() and (found.cohorts[0].train.targets > 0).any()


@pytest.mark.parametrize(
    ("contract", "task", "said"),
    [
        ({"columns": COLUMNS, "label": FINDINGS}, {"name": "tabular_classification", "outputs": 3}, "2 findings"),
        ({"columns": COLUMNS, "label": FINDINGS}, {"name": "tabular_classification"}, "'class' label"),
        ({"columns": COLUMNS, "label": PRESSURE}, {"name": "tabular_classification"}, "'class' label"),
        ({"image": IMAGE, "label": FINDINGS}, {"name": "image_densenet121", "size": [16, 16]}, "too small"),
        ({"image": IMAGE, "label": FINDINGS}, {"name": "linear_probe", "size": [32, 32], "outputs": 2}, "pictures of"),
        ({"image": IMAGE, "label": LUNGS}, {"name": "image_segmentation", "size": [16, 16]}, "2 structures"),
        ({"image": IMAGE, "label": LUNGS}, {**UNET, "size": [18, 18], "widths": [4, 8, 8]}, "multiple of 4"),
        ({"columns": COLUMNS, "label": LUNGS}, UNET, "region of a picture"),
    ],
)  # fmt: skip
def test_a_task_that_does_not_fit_its_label_is_refused_in_a_sentence(
    contract: dict[str, Any], task: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=said):
        rehearse(made(tmp_path, contract, task), SITES, 50, 1, TODAY)


def simulated(tmp_path: Path, *words: str) -> Simulated:
    given = [*words, f"simulation.output={tmp_path / 'runs'}", "simulation.evaluate_every=0"]
    return simulate(parse_configuration(compose_configuration(given)), today=TODAY, started=0.0)


def mean(done: Simulated, metric: str) -> float:
    found = [site.shared.metrics[metric].value for site in done.result.sites]
    return sum(value for value in found if value is not None) / len(found)


def test_a_lesion_is_marked_in_volumes_of_phantoms(tmp_path: Path) -> None:
    words = ["rounds=14", "local.epochs=2", "local.batch_size=8", "local.learning_rate=0.4"]
    done = simulated(tmp_path, "study=brain_lesion", *UNPROTECTED, *words)
    assert done.result.headline_metrics == ("dice",)
    assert mean(done, "dice") > 0.2


def test_the_same_study_runs_under_differential_privacy(tmp_path: Path) -> None:
    done = simulated(tmp_path, "study=brain_lesion", "data.split=small", "rounds=1", "local.steps=1")
    assert done.result.privacy.mode == "local" and done.result.rounds[0].state == "closed"


def test_a_model_of_one_study_is_the_frozen_network_of_another(tmp_path: Path) -> None:
    """The way of a weights file: trained here, installed by its hash, named in a plan, frozen in a probe."""
    study = ["study=brain_mri", "data.split=small"]
    first = simulated(tmp_path, *study, *UNPROTECTED, "rounds=10", "local.epochs=2", "local.batch_size=8")
    assert mean(first, "auroc") > 0.8
    released = first.folder.path / "model.safetensors"
    sha = sha256(released.read_bytes()).hexdigest()
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / f"{sha}.safetensors").write_bytes(released.read_bytes())
    named = f"sha256:{sha},licence:CC0-1.0,provenance:'the study brain_mri, on phantoms'"
    probe = [
        *study, "task=probe", f"weights={tmp_path / 'weights'}",
        "task.size=[12,32,32]", "task.network.widths=[8,16,32]", "~task.widths", "~task.weights",
        f"+task.weights={{source:file,{named}}}",
        *UNPROTECTED, "rounds=20", "local.epochs=5", "local.batch_size=8",
    ]  # fmt: skip
    done = simulated(tmp_path, *probe)
    assert done.plan.layout.size == 33 and [file.sha256 for file in done.plan.weights_files] == [sha]
    assert mean(done, "auroc") > 0.8
    # And as the start of a whole model: round 0 is the released model, bit for bit.
    whole = [*study, "initial.scheme=file", f"initial.file={{{named}}}", f"weights={tmp_path / 'weights'}"]
    again = simulated(tmp_path, *whole, *UNPROTECTED, "rounds=1")
    assert isinstance(again.plan.model, TrainedModel)
    assert again.plan.model.hash == first.result.final_model
    assert np.array_equal(
        again.plan.starting_model(lambda file: released.read_bytes()),
        again.plan.layout.join(load_file(released)),
    )
    stored = json.loads((again.folder.path / "plan.json").read_text())
    assert stored["model"]["file"]["licence"] == "CC0-1.0"


def test_a_probe_is_small_enough_for_a_secure_sum_of_every_step(tmp_path: Path) -> None:
    words = ["study=brain_mri", "data.split=small", "task=probe", "~task.widths", "task.size=[12,32,32]"]
    done = simulated(tmp_path, *words, "privacy=dist", "rounds=3")
    assert done.plan.privacy.mode == "dist" and done.plan.layout.size == 65
    assert [result.state for result in done.result.rounds] == ["closed"] * 3
    assert done.result.privacy.epsilon_consortium is not None
