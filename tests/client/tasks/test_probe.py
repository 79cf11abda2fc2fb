"""A linear probe: the frozen part is the network that the plan names, run once, each picture by itself."""

from hashlib import sha256

import numpy as np
import pytest
import torch
from monai.networks.nets.densenet import DenseNet121 as MonaiDenseNet121
from safetensors.numpy import save
from torch import nn

from wardround.client.connectors.table import Records
from wardround.client.tasks import frozen_part, with_frozen_part
from wardround.client.tasks.networks import network
from wardround.protocol.errors import UsageError
from wardround.protocol.image_tasks import LinearProbe
from wardround.protocol.networks import DenseNet121, SmallNetwork
from wardround.protocol.parameters import Layout, initial_weights
from wardround.protocol.tasks import TabularClassification
from wardround.protocol.weights import PublicSeed, WeightsFile, nothing_installed

RANDOM = np.random.Generator(np.random.PCG64(14))
SMALL = LinearProbe(size=(16, 12), network=SmallNetwork(widths=(4, 8), groups=2), weights=PublicSeed(seed=5))


def unit(values: np.ndarray) -> np.ndarray:
    return np.asarray(values / np.sqrt((values**2).mean(axis=1, keepdims=True)))


def test_features_are_those_of_the_network_with_the_seeds_weights_at_mean_square_one() -> None:
    pixels = RANDOM.normal(size=(70, 1, 16, 12)).astype(np.float32)
    frozen = frozen_part(SMALL, nothing_installed)
    assert frozen is not None
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.GroupNorm(2, 4, affine=False), nn.ReLU(), nn.AvgPool2d(2),
        nn.Conv2d(4, 8, 3, padding=1, bias=False), nn.GroupNorm(2, 8, affine=False), nn.ReLU(), nn.AvgPool2d(2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip
    weights = Layout(SMALL.frozen).split(initial_weights(Layout(SMALL.frozen), "uniform", 5))
    for parameter, values in zip(module.parameters(), weights.values(), strict=True):
        parameter.data = torch.from_numpy(np.array(values, np.float32))
    with torch.no_grad():
        expected = unit(module(torch.from_numpy(pixels)).double().numpy())
    assert np.allclose(frozen(pixels), expected, atol=1e-5)
    # Each picture by itself: the same whoever stands beside it.
    assert np.allclose(frozen(pixels[3:4]), frozen(pixels)[3:4], atol=1e-6)


def test_a_densenet_from_a_file_has_the_features_of_monais() -> None:
    """The file is what MONAI's own module holds, head and all."""
    torch.manual_seed(1)
    monai = MonaiDenseNet121(2, 1, 1, norm=("group", {"num_groups": 32, "affine": False})).eval()
    data = save({name: value.detach().numpy() for name, value in monai.named_parameters()})
    file = WeightsFile(
        sha256=sha256(data).hexdigest(), licence="Apache-2.0", provenance="drawn at random by this test alone"
    )
    spec = LinearProbe(size=(32, 32), network=DenseNet121(), weights=file)
    frozen = frozen_part(spec, lambda wanted: data)
    assert frozen is not None
    pixels = RANDOM.normal(size=(3, 1, 32, 32)).astype(np.float32)
    with torch.no_grad():
        inner = monai.features(torch.from_numpy(pixels))
        expected = inner.relu().mean((2, 3)).double().numpy()
    assert frozen(pixels).shape == (3, 1024)
    assert np.allclose(frozen(pixels), unit(expected), atol=1e-4)


def test_nothing_of_the_network_is_trained_and_the_model_is_small() -> None:
    spec = LinearProbe(size=(32, 32), network=DenseNet121())
    assert spec.layout(1).size == 1025
    assert {tensor.name for tensor in spec.frozen}.isdisjoint(tensor.name for tensor in spec.layout(1).tensors)
    module = network(spec.network, 1, 2, None)
    assert sum(parameter.numel() for parameter in module.parameters()) == sum(tensor.size for tensor in spec.frozen)


def test_records_keep_all_but_their_pixels() -> None:
    pixels = RANDOM.normal(size=(4, 1, 16, 12)).astype(np.float32)
    records = Records(pixels, np.ones((4, 1)), np.array(list("abcd"), object), np.arange(4), {"label missing": 2})
    frozen = frozen_part(SMALL, nothing_installed)
    (found,) = with_frozen_part([records], frozen)
    assert found.features.shape == (4, 8) and found.excluded == records.excluded and found.patients is records.patients
    (same,) = with_frozen_part([records], frozen_part(TabularClassification(), nothing_installed))
    assert same is records


def test_an_empty_batch_stays_empty() -> None:
    frozen = frozen_part(SMALL, nothing_installed)
    assert frozen is not None and frozen(np.zeros((0, 1, 16, 12), np.float32)).shape == (0, 8)


def test_a_frozen_network_whose_file_is_not_installed_is_no_cohort() -> None:
    file = WeightsFile(sha256="a" * 64, licence="MIT", provenance="nobody has this file")
    with pytest.raises(UsageError, match="not installed"):
        frozen_part(SMALL.model_copy(update={"weights": file}), nothing_installed)
