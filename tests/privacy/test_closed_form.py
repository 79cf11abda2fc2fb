"""Closed form == torch autograd, patient by patient: gradients, clipping, and what a bad patient may do."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wardround.privacy import closed_form
from wardround.privacy.closed_form import DenseEngine
from wardround.privacy.gradients import Array, Examples
from wardround.protocol.errors import UsageError
from wardround.protocol.parameters import Layout, Tensor
from wardround.protocol.tasks import SurvivalCox, SurvivalPiecewise, TabularClassification

FEATURES = 5
torch.set_num_threads(1)


class LogLoss:
    couples_patients = False

    def loss_and_slope(self, outputs: Array, targets: Array) -> tuple[Array, Array]:
        logit, label = outputs[:, 0], targets[:, 0]
        return np.logaddexp(0.0, logit) - label * logit, 1.0 / (1.0 + np.exp(-outputs)) - targets

    def torch_loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (torch.logaddexp(torch.zeros_like(outputs), outputs) - targets * outputs)[:, 0]


class Piecewise:
    """Poisson form: targets are K exposures, then K events; outputs are log hazards."""

    couples_patients = False

    def loss_and_slope(self, outputs: Array, targets: Array) -> tuple[Array, Array]:
        exposure, events = np.split(targets, 2, axis=1)
        expected = exposure * np.exp(outputs)
        return (expected - events * outputs).sum(1), expected - events

    def torch_loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        exposure, events = torch.split(targets, targets.shape[1] // 2, dim=1)
        return (exposure * torch.exp(outputs) - events * outputs).sum(1)


class Contrast:
    """A coupled loss: every record is compared with the batch's mean output."""

    couples_patients = True

    def loss_and_slope(self, outputs: Array, targets: Array) -> tuple[Array, Array]:
        loss = (outputs - outputs.mean() - targets)[:, 0] ** 2
        error = outputs - outputs.mean() - targets
        return loss, 2 * (error - error.mean())

    def torch_loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return ((outputs - outputs.mean() - targets) ** 2)[:, 0]


@dataclass
class Case:
    layout: Layout
    hidden: tuple[int, ...]
    activation: str
    head: LogLoss | Piecewise | Contrast
    outputs: int

    def engine(self) -> DenseEngine:
        return DenseEngine(self.layout, self.hidden, self.activation, self.head)

    def forward(self, parameters: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """The definition of the network, in torch."""
        tensors, start = {}, 0
        for tensor in self.layout.tensors:
            tensors[tensor.name] = parameters[start : start + tensor.size].reshape(tensor.shape)
            start += tensor.size
        values = features
        for index in range(len(self.hidden) + 1):
            values = values @ tensors[f"dense{index}.weight"].T + tensors.get(f"dense{index}.bias", 0.0)
            if index < len(self.hidden):
                values = torch.tanh(values) if self.activation == "tanh" else torch.relu(values)
        return values + tensors["hazard.bias"] if "hazard.bias" in tensors else values

    def reference(self, parameters: Array, examples: Examples, clip_norm: float | None) -> Array:
        """One autograd call for each patient."""
        total = np.zeros(len(parameters))
        for patient in range(examples.patients):
            rows = examples.patient == patient
            leaf = torch.tensor(parameters, requires_grad=True)
            outputs = self.forward(leaf, torch.tensor(examples.features[rows], dtype=torch.float64))
            self.head.torch_loss(outputs, torch.tensor(examples.targets[rows])).mean().backward()
            gradient = leaf.grad.numpy()
            norm = np.linalg.norm(gradient)
            total += gradient if clip_norm is None or norm <= clip_norm else gradient * clip_norm / norm
        return total

    def examples(self, records: list[int], seed: int = 0) -> Examples:
        """Patients with that many ``records`` each."""
        random = np.random.default_rng(seed)
        count = sum(records)
        features = 2 * random.normal(size=(count, FEATURES))
        targets = random.integers(0, 2, (count, self.outputs if self.outputs == 1 else 2 * self.outputs)).astype(float)
        return Examples(features, targets, np.repeat(np.arange(len(records)), records), len(records))

    def parameters(self, seed: int = 0) -> Array:
        return np.random.default_rng(seed).normal(size=self.layout.size)


def tabular(hidden: tuple[int, ...], activation: str) -> Case:
    layout = TabularClassification(hidden=hidden).layout(FEATURES)
    return Case(layout, hidden, activation, LogLoss(), 1)


def piecewise(hidden: tuple[int, ...], activation: str) -> Case:
    layout = SurvivalPiecewise(hidden=hidden, cuts=(1.0, 2.0), baseline_rate=0.1).layout(FEATURES)
    return Case(layout, hidden, activation, Piecewise(), 3)


def cox(bias: bool) -> Case:
    return Case(SurvivalCox(hidden=(4,), bias=bias).layout(FEATURES), (4,), "tanh", Contrast(), 1)


CASES = {
    "linear": tabular((), "tanh"),
    "tanh": tabular((7,), "tanh"),
    "relu": tabular((7,), "relu"),
    "deep": tabular((6, 4, 3), "relu"),
    "piecewise-linear": piecewise((), "tanh"),
    "piecewise": piecewise((6,), "tanh"),
}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
each_grouping = pytest.mark.parametrize("records", [[1] * 9, [1, 4, 2, 1, 7], [3]], ids=["one", "several", "alone"])


@each_case
@each_grouping
@pytest.mark.parametrize("clip_norm", [None, 0.3, 2.0, 1e6])
def test_equals_autograd_patient_by_patient(case: Case, records: list[int], clip_norm: float | None) -> None:
    examples, parameters = case.examples(records), case.parameters()
    expected = case.reference(parameters, examples, clip_norm)
    mine = case.engine().gradient_sum(parameters, examples, clip_norm)
    np.testing.assert_allclose(mine, expected, rtol=1e-9, atol=1e-11)


@each_case
@pytest.mark.parametrize("at_once", [1, 3, 5, 8])
def test_norms_do_not_depend_on_how_records_are_split(
    case: Case, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closed_form, "_RECORDS_AT_ONCE", at_once)
    examples, parameters = case.examples([2, 9, 1, 1, 4, 6]), case.parameters()
    expected = case.reference(parameters, examples, 0.2)
    np.testing.assert_allclose(case.engine().gradient_sum(parameters, examples, 0.2), expected, rtol=1e-9, atol=1e-11)


@each_case
def test_outputs_and_mean_loss_are_the_networks(case: Case) -> None:
    examples, parameters = case.examples([2, 1, 3]), case.parameters()
    outputs = case.forward(torch.tensor(parameters), torch.tensor(examples.features))
    np.testing.assert_allclose(case.engine().outputs(parameters, examples.features), outputs.numpy(), rtol=1e-12)
    losses = case.head.torch_loss(outputs, torch.tensor(examples.targets)).numpy()
    expected = np.mean([losses[examples.patient == patient].mean() for patient in range(3)])
    assert case.engine().mean_loss(parameters, examples) == pytest.approx(expected, rel=1e-12)


@settings(deadline=None, max_examples=60)
@given(
    name=st.sampled_from(sorted(CASES)),
    extra=st.integers(1, 6),
    scale=st.sampled_from([1e-3, 1.0, 1e3, 1e8]),
    clip_norm=st.floats(1e-3, 1e3),
    seed=st.integers(0, 1000),
)
def test_one_patient_moves_the_sum_by_at_most_the_clip_norm(
    name: str, extra: int, scale: float, clip_norm: float, seed: int
) -> None:
    case = CASES[name]
    examples, parameters = case.examples([2, 1, 3, extra], seed), case.parameters(seed)
    examples.features[-extra:] *= scale
    engine = case.engine()
    without = engine.gradient_sum(parameters, examples.take(np.arange(3)), clip_norm)
    moved = engine.gradient_sum(parameters, examples, clip_norm) - without
    assert np.linalg.norm(moved) <= clip_norm * (1 + 1e-12)


@pytest.mark.parametrize("difference", np.linspace(3e-9, 9e-8, 12).tolist())
def test_records_that_cancel_do_not_hide_a_long_gradient(difference: float) -> None:
    """Slopes of 1e9 cancel up to a gradient of length 1e9 / 2 * difference; the sum over pairs loses it."""
    case = Case(TabularClassification().layout(FEATURES), (), "tanh", Weighted(), 1)
    base = np.linspace(0.7, 1.3, FEATURES)
    features = np.stack([base, base + np.array([difference, 0, 0, 0, 0])])
    examples = Examples(features, np.array([[1e9], [-1e9]]), np.zeros(2, np.int64), 1)
    whole = case.engine().gradient_sum(case.parameters(), examples, None)
    assert np.linalg.norm(whole) == pytest.approx(5e8 * difference, rel=1e-3)
    assert np.linalg.norm(case.engine().gradient_sum(case.parameters(), examples, 1.0)) <= 1.0


class Weighted:
    """The targets are the slopes."""

    couples_patients = False

    def loss_and_slope(self, outputs: Array, targets: Array) -> tuple[Array, Array]:
        return (outputs * targets)[:, 0], targets


@each_case
@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
@pytest.mark.parametrize("records", [[1, 1, 1, 1], [2, 3, 1, 2]], ids=["one", "several"])
@pytest.mark.parametrize("clip_norm", [None, 0.5])
def test_a_patient_who_is_not_finite_contributes_zero(
    case: Case, bad: float, records: list[int], clip_norm: float | None
) -> None:
    examples, parameters = case.examples(records), case.parameters()
    examples.features[np.flatnonzero(examples.patient == 1)[-1], 2] = bad
    with np.errstate(all="ignore"):
        mine = case.engine().gradient_sum(parameters, examples, clip_norm)
    others = case.engine().gradient_sum(parameters, examples.take(np.array([0, 2, 3])), clip_norm)
    assert np.isfinite(mine).all()
    if np.isfinite(bad):  # it may be finite after all; then it is bounded
        assert clip_norm is None or np.linalg.norm(mine - others) <= clip_norm * (1 + 1e-9)
    else:
        np.testing.assert_allclose(mine, others, rtol=1e-12, atol=1e-14)


@each_case
def test_no_patients_give_zeros(case: Case) -> None:
    nobody = case.examples([1, 1]).take(np.empty(0, np.int64))
    assert case.engine().gradient_sum(case.parameters(), nobody, 1.0).tolist() == [0.0] * case.layout.size
    assert case.engine().size == case.layout.size


@pytest.mark.parametrize("bias", [False, True])
def test_a_coupled_loss_has_the_gradient_of_the_batch_and_is_never_clipped(bias: bool) -> None:
    case = cox(bias)
    examples, parameters = case.examples([1] * 6), case.parameters()
    leaf = torch.tensor(parameters, requires_grad=True)
    outputs = case.forward(leaf, torch.tensor(examples.features))
    loss = case.head.torch_loss(outputs, torch.tensor(examples.targets)).mean()
    loss.backward()
    assert case.engine().mean_loss(parameters, examples) == pytest.approx(loss.item())
    np.testing.assert_allclose(
        case.engine().gradient_sum(parameters, examples, None) / 6, leaf.grad.numpy(), rtol=1e-9, atol=1e-12
    )
    with pytest.raises(UsageError, match="couples patients"):
        case.engine().gradient_sum(parameters, examples, 1.0)


def test_a_layout_that_is_not_dense_is_refused() -> None:
    for tensors, hidden in (
        ((Tensor("conv.weight", (2, 2), 2),), ()),
        ((Tensor("dense0.weight", (2, 2), 2), Tensor("dense1.weight", (1, 3), 3)), (2,)),
        ((Tensor("dense0.weight", (2, 2), 2), Tensor("hazard.bias", (2,), 1)), ()),
        ((Tensor("dense0.weight", (1, 2), 2),), (3,)),
    ):
        with pytest.raises(UsageError):
            DenseEngine(Layout(tensors), hidden, "tanh", LogLoss())
