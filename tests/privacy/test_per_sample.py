"""Any torch module: equal to autograd patient by patient and to the closed form; coupling is refused."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from wardround.privacy import layer_rules
from wardround.privacy.closed_form import DenseEngine
from wardround.privacy.gradients import Array, Examples
from wardround.privacy.per_sample import ModuleEngine, module_layout
from wardround.protocol.errors import UsageError
from wardround.protocol.tasks import TabularClassification

torch.set_num_threads(1)


def log_loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.binary_cross_entropy_with_logits(outputs, targets, reduction="none").mean(1)


class Residual(nn.Module):
    """Both branches of the sum get the same slope tensor, and a ReLU works in place on a recorded output."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.norm = nn.GroupNorm(2, 8)
        self.short = nn.Conv2d(4, 8, 1, stride=2, bias=False)
        self.other = nn.GroupNorm(4, 8)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.relu(self.norm(self.first(images)) + self.other(self.short(images)))


class Twice(nn.Module):
    """One layer called twice, and a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 5)
        self.last = nn.Linear(5, 1)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.last(torch.tanh(self.layer(torch.tanh(self.layer(values)))))


class Tied(Twice):
    def __init__(self) -> None:
        super().__init__()
        self.second = nn.Linear(5, 5)
        self.second.weight = self.layer.weight

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.last(torch.tanh(self.second(torch.tanh(self.layer(values)))))


class Scaled(nn.Module):
    """A layer that neither we nor Opacus has a rule for."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(5))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values * self.scale


def small_cnn() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
        *(
            nn.Conv2d(4, 8, 3, padding=1, dilation=1),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(8 * 16, 6),
            nn.ReLU(),
        ),
        nn.Linear(6, 2),
    )


MODULES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "mlp": (lambda: nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 1)), (5,), 1),
    "cnn": (small_cnn, (1, 8, 8), 2),
    "residual": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), Residual(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 1)),
        (3, 9, 9),
        1,
    ),
    "wide": (  # many inputs, few positions: Gram matrices
        lambda: nn.Sequential(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.Flatten(), nn.Linear(32 * 4, 1)),
        (16, 4, 4),
        1,
    ),
    "dilated": (
        lambda: nn.Sequential(nn.Conv2d(5, 6, (3, 2), (1, 2), (2, 1), (2, 1)), nn.Flatten(), nn.LazyLinear(1)),
        (5, 8, 8),
        1,
    ),
    "grouped": (
        lambda: nn.Sequential(nn.Conv2d(4, 8, 3, groups=2, padding="same"), nn.Flatten(), nn.Linear(8 * 36, 1)),
        (4, 6, 6),
        1,
    ),
    "sequence": (
        lambda: nn.Sequential(
            nn.Linear(5, 6), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 2), nn.Flatten(), nn.Linear(14, 1)
        ),
        (7, 5),
        1,
    ),
    "instance norm": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4, affine=True), nn.ReLU(), nn.Flatten(), nn.Linear(64, 1)
        ),
        (3, 6, 6),
        1,
    ),
    "volume": (
        lambda: nn.Sequential(nn.Conv3d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 1)),
        (1, 4, 4, 4),
        1,
    ),
    "twice": (Twice, (5,), 1),
    "tied": (Tied, (5,), 1),
    "own parameter": (lambda: nn.Sequential(nn.Linear(5, 5), Scaled(), nn.Linear(5, 1)), (5,), 1),
}
each_module = pytest.mark.parametrize("name", MODULES)


def make(name: str, records: list[int], seed: int = 0) -> tuple[nn.Module, Examples, Array]:
    build, shape, outputs = MODULES[name]
    module, random = build(), np.random.default_rng(seed)
    features = random.normal(size=(sum(records), *shape)).astype(np.float32)
    module(torch.from_numpy(features))  # gives lazy layers their shape
    parameters = random.normal(size=module_layout(module).size) * 0.3
    targets = random.integers(0, 2, (sum(records), outputs)).astype(float)
    patient = np.repeat(np.arange(len(records)), records)
    return module, Examples(features, targets, patient, len(records)), parameters


def reference(module: nn.Module, parameters: Array, examples: Examples, clip_norm: float | None) -> Array:
    """One autograd call for each patient, in double precision."""
    module = module.double()
    start = 0
    for parameter in module.parameters():
        values = parameters[start : start + parameter.numel()].astype(np.float32).astype(np.float64)
        parameter.data = torch.from_numpy(values).view(parameter.shape)
        start += parameter.numel()
    total = np.zeros(len(parameters))
    for patient in range(examples.patients):
        rows = examples.patient == patient
        outputs = module(torch.from_numpy(examples.features[rows]).double())
        loss = log_loss(outputs, torch.from_numpy(examples.targets[rows])).mean()
        gradients = torch.autograd.grad(loss, list(module.parameters()))
        gradient = torch.cat([g.reshape(-1) for g in gradients]).numpy()
        norm = np.linalg.norm(gradient)
        total += gradient if clip_norm is None or norm <= clip_norm else gradient * clip_norm / norm
    return total


@each_module
@pytest.mark.parametrize("records", [[1] * 6, [1, 4, 2, 3], [3]], ids=["one", "several", "alone"])
@pytest.mark.parametrize("clip_norm", [None, 0.05, 1.0, 1e6])
def test_equals_autograd_patient_by_patient(name: str, records: list[int], clip_norm: float | None) -> None:
    module, examples, parameters = make(name, records)
    mine = ModuleEngine(module, log_loss).gradient_sum(parameters, examples, clip_norm)
    expected = reference(module, parameters, examples, clip_norm)
    assert mine.dtype == np.float64
    np.testing.assert_allclose(mine, expected, rtol=0, atol=5e-4 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["cnn", "residual", "wide", "sequence", "twice"])
@pytest.mark.parametrize("advantage", [0, 10**9], ids=["kept", "ghost"])
@pytest.mark.parametrize("kept", [0, 10**9], ids=["products", "table"])
def test_every_way_to_a_norm_gives_the_same_sum(
    name: str, advantage: int, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer_rules, "_GHOST_ADVANTAGE", advantage)
    monkeypatch.setattr(layer_rules, "_KEPT_FLOATS", kept)
    for records in ([1] * 4, [2, 1, 3]):
        module, examples, parameters = make(name, records)
        mine = ModuleEngine(module, log_loss).gradient_sum(parameters, examples, 0.1)
        expected = reference(module, parameters, examples, 0.1)
        np.testing.assert_allclose(mine, expected, rtol=0, atol=5e-4 * np.abs(expected).max())


class LogLoss:
    couples_patients = False

    def loss_and_slope(self, outputs: Array, targets: Array) -> tuple[Array, Array]:
        loss = np.logaddexp(0.0, outputs) - targets * outputs
        return loss[:, 0], 1.0 / (1.0 + np.exp(-outputs)) - targets


@pytest.mark.parametrize("records", [[1] * 8, [2, 5, 1, 3]], ids=["one", "several"])
@pytest.mark.parametrize("clip_norm", [None, 0.2])
def test_agrees_with_the_closed_form_on_the_same_mlp(records: list[int], clip_norm: float | None) -> None:
    module, examples, parameters = make("mlp", records)
    dense = DenseEngine(TabularClassification(hidden=(7,)).layout(5), (7,), "tanh", LogLoss())
    general = ModuleEngine(module, log_loss)
    assert dense.size == general.size
    np.testing.assert_allclose(
        general.gradient_sum(parameters, examples, clip_norm),
        dense.gradient_sum(parameters, examples, clip_norm),
        atol=2e-4,
    )
    np.testing.assert_allclose(
        general.outputs(parameters, examples.features),
        dense.outputs(parameters, examples.features),
        atol=1e-5,
    )
    assert general.mean_loss(parameters, examples) == pytest.approx(dense.mean_loss(parameters, examples), rel=1e-5)


@settings(deadline=None, max_examples=30)
@given(
    name=st.sampled_from(["mlp", "cnn", "residual", "wide", "sequence", "twice"]),
    extra=st.integers(1, 5),
    scale=st.sampled_from([1e-3, 1.0, 1e3, 1e6]),
    clip_norm=st.floats(1e-2, 1e2),
    seed=st.integers(0, 1000),
)
def test_one_patient_moves_the_sum_by_at_most_the_clip_norm(
    name: str, extra: int, scale: float, clip_norm: float, seed: int
) -> None:
    module, examples, parameters = make(name, [1, 2, extra], seed)
    examples.features[-extra:] *= np.float32(scale)
    engine = ModuleEngine(module, log_loss)
    without = engine.gradient_sum(parameters, examples.take(np.arange(2)), clip_norm)
    moved = engine.gradient_sum(parameters, examples, clip_norm) - without
    assert np.linalg.norm(moved) <= clip_norm * (1 + 1e-5)


@pytest.mark.parametrize("difference", np.linspace(1e-4, 3e-3, 12).tolist())
def test_positions_that_cancel_do_not_hide_a_long_gradient(difference: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slopes of 1e4 cancel up to a length of 1e4 * difference, which float32 Gram matrices lose."""
    monkeypatch.setattr(layer_rules, "_GHOST_ADVANTAGE", 10**9)
    base = np.linspace(0.7, 1.3, 5, dtype=np.float32)
    positions = np.stack([base, base + np.float32([difference, 0, 0, 0, 0])])[None]
    module = nn.Sequential(nn.Linear(5, 1, bias=False), nn.Flatten())
    engine = ModuleEngine(module, lambda outputs, targets: (outputs * targets).sum(1))
    examples = Examples(positions, np.array([[1e4, -1e4]]), np.zeros(1, np.int64), 1)
    assert np.linalg.norm(engine.gradient_sum(np.ones(5), examples, None)) > 0.9e4 * difference
    assert np.linalg.norm(engine.gradient_sum(np.ones(5), examples, 0.5)) <= 0.5 * (1 + 1e-3)


@each_module
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("records", [[1, 1, 1, 1], [2, 3, 1, 2]], ids=["one", "several"])
@pytest.mark.parametrize("clip_norm", [None, 0.5])
def test_a_patient_who_is_not_finite_contributes_zero(
    name: str, bad: float, records: list[int], clip_norm: float | None
) -> None:
    module, examples, parameters = make(name, records)
    engine = ModuleEngine(module, log_loss)
    others = engine.gradient_sum(parameters, examples.take(np.array([0, 2, 3])), clip_norm)
    examples.features[np.flatnonzero(examples.patient == 1)[-1]].flat[2] = bad
    mine = engine.gradient_sum(parameters, examples, clip_norm)
    np.testing.assert_allclose(mine, others, atol=3e-4 * np.abs(others).max())


def test_no_patients_give_zeros() -> None:
    module, examples, parameters = make("mlp", [1, 1])
    nobody = examples.take(np.empty(0, np.int64))
    assert ModuleEngine(module, log_loss).gradient_sum(parameters, nobody, 1.0).tolist() == [0.0] * len(parameters)


@pytest.mark.parametrize(
    "layer",
    [
        *(nn.BatchNorm1d(5), nn.BatchNorm1d(5, track_running_stats=False), nn.SyncBatchNorm(5)),
        *(nn.InstanceNorm1d(5, affine=True, track_running_stats=True), nn.LazyLinear(3)),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_batch_coupling_buffers_and_shapeless_layers_are_refused_with_a_hint(layer: nn.Module) -> None:
    with pytest.raises(UsageError) as caught:
        ModuleEngine(nn.Sequential(nn.Linear(5, 5), layer), log_loss)
    assert len(caught.value.lines().splitlines()) == 2
    assert "Opacus" not in caught.value.message  # refused by us, whatever its validator thinks
    assert type(layer).__name__ in caught.value.message


def test_a_buffer_of_ones_own_is_refused() -> None:
    module = nn.Linear(5, 1)
    module.register_buffer("seen", torch.zeros(1))
    with pytest.raises(UsageError, match="buffers"):
        ModuleEngine(module, log_loss)


def test_a_loss_over_the_batch_is_refused() -> None:
    module, examples, parameters = make("mlp", [1, 1])
    with pytest.raises(UsageError, match="one number per record"):
        ModuleEngine(module, lambda o, t: log_loss(o, t).mean()).gradient_sum(parameters, examples, 1.0)


def test_an_input_changed_in_place_behind_its_layer_is_refused() -> None:
    class Careless(Twice):
        def forward(self, values: torch.Tensor) -> torch.Tensor:
            hidden = self.layer(values) * 1.0
            result = self.last(hidden)
            hidden.mul_(2.0)
            return result

    _, examples, parameters = make("twice", [1, 1])
    careless = Careless()
    with pytest.raises(UsageError, match="in place"):
        ModuleEngine(careless, log_loss).gradient_sum(parameters, examples, 1.0)


def test_frozen_parameters_stay_out_of_the_vector() -> None:
    module = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 1))
    module[0].requires_grad_(False)
    _, examples, _ = make("mlp", [1, 1, 2])
    engine = ModuleEngine(module, log_loss)
    assert [tensor.name for tensor in module_layout(module).tensors] == ["2.weight", "2.bias"]
    assert engine.size == 8
    frozen = module[0].weight.clone()
    assert np.linalg.norm(engine.gradient_sum(np.ones(8), examples, 1.0)) > 0
    assert torch.equal(module[0].weight, frozen)


def test_torchs_generator_is_left_alone() -> None:
    module, examples, parameters = make("cnn", [1, 2])
    state = torch.random.get_rng_state()
    ModuleEngine(module, log_loss).gradient_sum(parameters, examples, 1.0)
    assert torch.equal(torch.random.get_rng_state(), state)
