"""The networks of ``protocol/networks`` as torch modules: pictures (records, channels, *size) to outputs.

Frozen or trained, a network has the tensors that the protocol says, in that order; a contract test holds both equal.
"""

from typing import TYPE_CHECKING, Any

from wardround.protocol.image_tasks import ImageSegmentation
from wardround.protocol.networks import DenseNet121, SmallNetwork

if TYPE_CHECKING:
    import torch


def network(spec: SmallNetwork | DenseNet121, channels: int, axes: int, outputs: int | None) -> "torch.nn.Module":
    """The network for pictures of ``axes`` dimensions, to logits (records, outputs); None: to its features."""
    if isinstance(spec, DenseNet121):
        return _densenet121(spec, channels, axes, outputs)
    return _small(spec, channels, axes, outputs)


def _small(spec: SmallNetwork, channels: int, axes: int, outputs: int | None) -> "torch.nn.Module":
    from torch import nn

    convolution: Any = nn.Conv2d if axes == 2 else nn.Conv3d
    mean: Any = nn.AvgPool2d if axes == 2 else nn.AvgPool3d
    whole: Any = nn.AdaptiveAvgPool2d if axes == 2 else nn.AdaptiveAvgPool3d
    layers: dict[str, nn.Module] = {}
    for number, width in enumerate(spec.widths):
        layers[f"convolution{number}"] = convolution(channels, width, 3, padding=1, bias=False)
        layers[f"normalisation{number}"] = nn.GroupNorm(spec.groups, width, affine=False)
        layers[f"rectifier{number}"] = nn.ReLU()
        layers[f"mean{number}"] = mean(2)
        channels = width
    layers["whole"] = whole(1)
    layers["flat"] = nn.Flatten()
    if outputs is not None:
        layers["dense"] = nn.Linear(channels, outputs)
    module = nn.Sequential()
    for name, layer in layers.items():
        module.add_module(name, layer)
    return module


def _densenet121(spec: DenseNet121, channels: int, axes: int, outputs: int | None) -> "torch.nn.Module":
    from monai.networks.nets.densenet import DenseNet121 as MonaiDenseNet121
    from torch import nn

    module: nn.Module = MonaiDenseNet121(
        spatial_dims=axes,
        in_channels=channels,
        out_channels=1 if outputs is None else outputs,
        norm=("group", {"num_groups": spec.groups, "affine": False}),
    )
    if outputs is None:
        module.get_submodule("class_layers").register_module("out", nn.Identity())
    return module


def unet(spec: ImageSegmentation) -> "torch.nn.Module":
    """Pictures (records, channels, *size) to maps (records, 1 + structures, *size), the background first."""
    from monai.networks.nets.unet import UNet
    from torch import nn

    module: nn.Module = UNet(
        spatial_dims=len(spec.size),
        in_channels=spec.channels,
        out_channels=spec.structures + 1,
        channels=spec.widths,
        strides=(2,) * (len(spec.widths) - 1),
        num_res_units=0,
        act="RELU",
        norm=("group", {"num_groups": spec.groups, "affine": False}),
        bias=False,
    )
    return module
