"""What must hold for every task of the registry: the protocol's layout, and the facts that privacy rests on."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from wardround.client.compatibility import CLIP_NORM, incompatibilities
from wardround.client.tasks import TASKS, Task
from wardround.client.tasks.module import ModuleTask
from wardround.privacy.closed_form import DenseEngine
from wardround.privacy.gradients import Array, Examples
from wardround.privacy.per_sample import ModuleEngine, module_layout
from wardround.protocol.errors import UsageError
from wardround.protocol.image_tasks import ImageClassification, ImageDenseNet, ImageSegmentation, LinearProbe
from wardround.protocol.networks import DenseNet121, SmallNetwork
from wardround.protocol.parameters import initial_weights
from wardround.protocol.tasks import SurvivalCox, SurvivalPiecewise, TabularClassification, TabularRegression

RANDOM = np.random.Generator(np.random.PCG64(3))
FEATURES = 7
OF = np.array([0, 0, 1, 2, 2, 2, 3, 4, 5])
"""The patient of each record."""

SPECS: dict[str, Any] = {
    "tabular_classification": TabularClassification(hidden=(5,), activation="tanh"),
    "tabular_classification, findings": TabularClassification(outputs=3, positive_weights=(1.0, 4.0, 0.5)),
    "tabular_regression": TabularRegression(hidden=(5,), center=120.0, scale=15.0),
    "survival_cox": SurvivalCox(hidden=(4,), activation="relu"),
    "survival_piecewise": SurvivalPiecewise(cuts=(1.0, 2.5), baseline_rate=0.3),
    "image_classification": ImageClassification(size=(16, 12), widths=(4, 8), groups=2),
    "image_classification, findings": ImageClassification(size=(16, 12), widths=(4, 8), groups=2, outputs=3),
    "image_classification, volumes": ImageClassification(size=(8, 12, 16), widths=(4, 8), groups=2),
    "image_densenet121": ImageDenseNet(size=(32, 32)),
    "image_segmentation": ImageSegmentation(size=(16, 12), widths=(4, 8, 8), structures=2),
    "image_segmentation, volumes": ImageSegmentation(size=(8, 8, 12), widths=(4, 8)),
    "linear_probe": LinearProbe(size=(16, 12), network=SmallNetwork(widths=(4, 8), groups=2)),
    "linear_probe, densenet121": LinearProbe(size=(32, 32), network=DenseNet121(), outputs=3),
}


def task_of(case: str) -> Task:
    return TASKS[case.split(",")[0]](SPECS[case], FEATURES)


def examples_for(spec: Any) -> Examples:
    """Records as the site's connectors give them to this task."""
    records = len(OF)
    if isinstance(spec, ImageSegmentation):
        pixels = RANDOM.normal(size=(records, *spec.shape))
        mask = RANDOM.integers(0, spec.structures + 1, (records, 1, *spec.size))
        features = np.concatenate([pixels, mask], axis=1).astype(np.float32)
    elif isinstance(spec, LinearProbe):
        features = RANDOM.normal(size=(records, spec.network.features))
    elif isinstance(spec, ImageClassification | ImageDenseNet):
        features = RANDOM.normal(size=(records, *spec.shape)).astype(np.float32)
    else:
        features = RANDOM.normal(size=(records, FEATURES))
    outputs = getattr(spec, "outputs", 1)
    if spec.label_kind == "survival":
        targets = np.column_stack([RANDOM.integers(1, 5, records), RANDOM.integers(0, 2, records)]).astype(float)
    elif spec.label_kind == "number":
        targets = RANDOM.normal(120, 20, (records, 1))
    elif spec.label_kind == "findings":
        targets = RANDOM.integers(-1, 2, (records, outputs)).astype(float)
    else:
        targets = RANDOM.integers(0, 2, (records, 1)).astype(float)
    return Examples(features, targets, OF, int(OF.max()) + 1)


def test_the_protocol_and_the_registry_name_the_same_tasks() -> None:
    assert {case.split(",")[0] for case in SPECS} == set(TASKS)
    assert all(spec.name == case.split(",")[0] for case, spec in SPECS.items())


@pytest.mark.parametrize("case", SPECS)
def test_a_task_is_what_the_protocol_says(case: str) -> None:
    spec, task = SPECS[case], task_of(case)
    assert task.layout == spec.layout(FEATURES) and task.couples_patients == spec.couples_patients
    assert task.engine.size == task.layout.size
    patients = examples_for(spec)
    outputs = task.engine.outputs(initial_weights(task.layout, "uniform", 1).astype(float), patients.features)
    assert len(outputs) == len(OF)
    scores = task.scores(outputs, patients)
    assert len(scores.score) == len(scores.target) == patients.patients
    for name, metric in task.metrics.items():
        found = metric(scores, np.ones((2, patients.patients)))
        assert found.shape == (2,), name
        assert found[0] == pytest.approx(found[1], nan_ok=True)


@pytest.mark.parametrize("case", [case for case in SPECS if case.startswith("image")])
def test_a_network_in_torch_has_the_tensors_of_the_protocol(case: str) -> None:
    task = task_of(case)
    engine: Any = task.engine
    ours = [(tensor.name, tensor.shape) for tensor in task.layout.tensors]
    assert ours == [(tensor.name, tensor.shape) for tensor in module_layout(engine._module).tensors]
    assert not list(engine._module.buffers())


@pytest.mark.parametrize("case", [case for case, spec in SPECS.items() if not spec.couples_patients])
def test_a_task_is_compatible_with_differential_privacy(case: str) -> None:
    task = task_of(case)
    patients, model = examples_for(SPECS[case]), initial_weights(task.layout, "uniform", 2)
    assert incompatibilities(task, model, patients) == []
    # And written out: one patient more or less moves the sum by at most C, whoever it is.
    whole = task.engine.gradient_sum(model.astype(float), patients, CLIP_NORM)
    for gone in range(patients.patients):
        others = patients.take(np.array([one for one in range(patients.patients) if one != gone]))
        moved = whole - task.engine.gradient_sum(model.astype(float), others, CLIP_NORM)
        assert np.linalg.norm(moved) <= CLIP_NORM * 1.001


@pytest.mark.parametrize("case", [case for case, spec in SPECS.items() if spec.couples_patients])
def test_a_task_that_couples_patients_says_so_and_is_never_clipped(case: str) -> None:
    task, patients = task_of(case), examples_for(SPECS[case])
    model = initial_weights(task.layout, "uniform", 2)
    assert "couples" in incompatibilities(task, model, patients)[0]
    with pytest.raises(UsageError):
        task.engine.gradient_sum(model.astype(float), patients, CLIP_NORM)


def squares(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return ((outputs - targets) ** 2).mean(1)


def test_batch_normalisation_is_refused_before_anything_is_tried() -> None:
    module = nn.Sequential(nn.Linear(FEATURES, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    with pytest.raises(UsageError, match="BatchNorm"):
        _ = ModuleTask(module, squares, {}).engine


class Centred(nn.Module):
    """Takes the batch's mean off: no layer of a known kind, and patients are coupled."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(FEATURES, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.dense(features - features.mean(0))
        return outputs


def linear() -> tuple[Task, Examples]:
    patients = examples_for(TabularClassification())
    return ModuleTask(nn.Linear(FEATURES, 1), squares, {}), patients


def test_a_model_that_couples_patients_without_saying_so_is_found() -> None:
    _, patients = linear()
    task = ModuleTask(Centred(), squares, {})
    found = incompatibilities(task, initial_weights(task.layout, "uniform", 2), patients)
    assert any("depends on the others" in one for one in found)


class Weighed(nn.Module):
    """Says the same of a record whoever stands beside it, and learns from it by who does."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(FEATURES, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.dense(features)
        return outputs


def test_a_model_whose_gradients_couple_patients_is_found() -> None:
    def coupled(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return squares(outputs, targets) * outputs.abs().mean()

    _, patients = linear()
    task = ModuleTask(Weighed(), coupled, {})
    found = incompatibilities(task, initial_weights(task.layout, "uniform", 2), patients)
    assert found == ["what a patient adds to the sum depends on the others in its batch"]


@dataclass(frozen=True)
class Faulty:
    """A task whose engine is another's, with one method replaced."""

    inner: Any
    fault: str

    couples_patients = False

    @property
    def layout(self) -> Any:
        return self.inner.layout

    @property
    def engine(self) -> Any:
        inner, fault, seen = self.inner.engine, self.fault, [0.0]

        class Engine:
            size = inner.size + (fault == "size")

            def outputs(self, parameters: Array, features: Any) -> Array:
                seen[0] += fault == "remembers"
                return np.asarray(inner.outputs(parameters, features) + seen[0])

            def gradient_sum(self, parameters: Array, examples: Examples, clip_norm: float | None) -> Array:
                return np.asarray(inner.gradient_sum(parameters, examples, None if fault == "unclipped" else clip_norm))

        return Engine()


@pytest.mark.parametrize(
    ("fault", "said"), [("size", "parameters"), ("unclipped", "clip norm"), ("remembers", "buffer")]
)
def test_each_part_of_the_check_finds_the_fault_that_it_is_for(fault: str, said: str) -> None:
    task, patients = linear()
    model = initial_weights(task.layout, "uniform", 2)
    assert incompatibilities(task, model, patients) == []
    faulty: Any = Faulty(task, fault)
    assert any(said in one for one in incompatibilities(faulty, model, patients))


def test_a_large_model_takes_its_patients_in_parts_and_finds_the_same_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = SPECS["image_classification"]
    patients, model = examples_for(spec), initial_weights(spec.layout(1), "uniform", 2).astype(float)
    whole = task_of("image_classification").engine
    expected = [whole.gradient_sum(model, patients, clip) for clip in (None, CLIP_NORM)]
    loss, seen = whole.mean_loss(model, patients), whole.outputs(model, patients.features)
    passes: list[int] = []
    one_pass = ModuleEngine._one_pass

    def counted(self: Any, parameters: Array, examples: Examples, clip_norm: float | None) -> Array:
        passes.append(len(examples.patient))
        return one_pass(self, parameters, examples, clip_norm)

    monkeypatch.setattr(ModuleEngine, "_one_pass", counted)
    # Two records at once: the third patient has three, and is still one.
    monkeypatch.setattr("wardround.privacy.per_sample._FLOATS_AT_ONCE", 2 * 64 * 16 * 12)
    monkeypatch.setattr("wardround.privacy.per_sample._RECORDS_AT_ONCE", 2 * 16 * 12)
    parts = task_of("image_classification").engine
    for clip, one in zip((None, CLIP_NORM), expected, strict=True):
        assert np.allclose(parts.gradient_sum(model, patients, clip), one, atol=1e-5)
    assert passes[: len(passes) // 2] == [2, 1, 3, 2, 1]
    assert parts.mean_loss(model, patients) == pytest.approx(loss, abs=1e-6)
    assert np.allclose(parts.outputs(model, patients.features), seen, atol=1e-6)


def test_a_linear_probe_is_the_closed_form_engine_of_tables() -> None:
    spec = SPECS["linear_probe, densenet121"]
    task, patients = task_of("linear_probe, densenet121"), examples_for(spec)
    same = DenseEngine(TabularClassification(outputs=3).layout(1024), (), "tanh", task.engine._head)  # type: ignore[attr-defined]
    model = initial_weights(task.layout, "uniform", 2).astype(float)
    assert np.array_equal(
        task.engine.gradient_sum(model, patients, 1.0), same.gradient_sum(model, replace(patients), 1.0)
    )
