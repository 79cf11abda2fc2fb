"""Networks on pictures, by their tensors alone: torch-free, so that a plan's size and digest are known anywhere.

``client/tasks/networks`` builds each in torch; a contract test holds names, shapes and order equal. All normalise by
groups of channels (Wu, He 2018) and never by batch, so that no picture's output depends on another's. The normalisation
has no weights of its own, so there is nothing to start at one and nothing to clip in vain.
"""

from typing import Annotated, Final, Literal, TypeAlias

from pydantic import Field, model_validator

from wardround.protocol.parameters import Tensor
from wardround.protocol.part import Part

Width: TypeAlias = Annotated[int, Field(ge=4, le=512)]


class SmallNetwork(Part):
    """For each of ``widths``: a 3 x 3 convolution without bias, group normalisation, ReLU, the mean over 2 x 2 fields.

    Then the mean over what is left of the picture: as many features as the last width. In 3D a field has three axes.
    """

    kind: Literal["small"] = "small"
    widths: tuple[Width, ...] = Field(
        default=(16, 32, 64), min_length=1, max_length=6, description="channels of each convolution"
    )
    groups: int = Field(default=4, ge=1, le=64, description="groups of the normalisation; divides every width")

    @model_validator(mode="after")
    def _divides(self) -> "SmallNetwork":
        if any(width % self.groups for width in self.widths):
            raise ValueError(f"every width must be a multiple of groups ({self.groups})")
        return self

    @property
    def features(self) -> int:
        return self.widths[-1]

    def check_size(self, size: tuple[int, ...]) -> None:
        """Raise ValueError for pictures that are too small."""
        if min(size) >> len(self.widths) < 1:
            raise ValueError(f"a picture of {size} cannot be halved {len(self.widths)} times")

    def tensors(self, channels: int, axes: int) -> tuple[Tensor, ...]:
        """The convolutions' weights (width, inputs, 3, 3(, 3)), for pictures of ``axes`` dimensions."""
        inputs = (channels, *self.widths)
        return tuple(
            Tensor(f"convolution{number}.weight", (width, inputs[number], *[3] * axes), inputs[number] * 3**axes)
            for number, width in enumerate(self.widths)
        )

    def head(self, outputs: int) -> tuple[Tensor, ...]:
        return _dense("dense", self.features, outputs)


_BLOCKS: Final = (6, 12, 24, 16)
_GROWTH: Final = 32


class DenseNet121(Part):
    """DenseNet-121 (Huang et al. 2017), as MONAI builds it, with group normalisation: 1,024 features."""

    kind: Literal["densenet121"] = "densenet121"
    groups: Literal[1, 2, 4, 8, 16, 32] = Field(default=32, description="groups of the normalisation")

    @property
    def features(self) -> int:
        return 1024

    def check_size(self, size: tuple[int, ...]) -> None:
        """Raise ValueError for pictures that are too small."""
        if min(size) < 32:
            raise ValueError(f"DenseNet-121 halves a picture five times: {size} is too small, 32 is the least")

    def tensors(self, channels: int, axes: int) -> tuple[Tensor, ...]:
        """Every convolution's weights, named as MONAI names them."""
        found = [_convolution("features.conv0.weight", channels, 64, 7, axes)]
        width = 64
        for block, layers in enumerate(_BLOCKS, 1):
            for layer in range(1, layers + 1):
                name = f"features.denseblock{block}.denselayer{layer}.layers"
                found.append(_convolution(f"{name}.conv1.weight", width, 4 * _GROWTH, 1, axes))
                found.append(_convolution(f"{name}.conv2.weight", 4 * _GROWTH, _GROWTH, 3, axes))
                width += _GROWTH
            if block < len(_BLOCKS):
                found.append(_convolution(f"features.transition{block}.conv.weight", width, width // 2, 1, axes))
                width //= 2
        return tuple(found)

    def head(self, outputs: int) -> tuple[Tensor, ...]:
        return _dense("class_layers.out", self.features, outputs)


Network = Annotated[SmallNetwork | DenseNet121, Field(discriminator="kind")]


def unet_tensors(channels: int, outputs: int, widths: tuple[int, ...], axes: int) -> tuple[Tensor, ...]:
    """The weights of a U-Net (Ronneberger et al. 2015) as MONAI builds it: halving at each width but the last.

    Args:
        channels: of a picture.
        outputs: maps that come out, one for the background and one for each structure.
        widths: channels of each level, two at least.
    """
    return tuple(_unet("model", channels, outputs, widths, axes))


def _unet(name: str, inputs: int, outputs: int, widths: tuple[int, ...], axes: int) -> list[Tensor]:
    width, below = widths[0], widths[1]
    inner = f"{name}.1.submodule"
    if len(widths) > 2:
        middle, up = _unet(inner, width, width, widths[1:], axes), 2 * width
    else:
        middle, up = [_convolution(f"{inner}.conv.weight", width, below, 3, axes)], width + below
    # A transposed convolution holds its inputs first.
    last = Tensor(f"{name}.2.conv.weight", (up, outputs, *[3] * axes), up * 3**axes)
    return [_convolution(f"{name}.0.conv.weight", inputs, width, 3, axes), *middle, last]


def _convolution(name: str, inputs: int, outputs: int, reach: int, axes: int) -> Tensor:
    return Tensor(name, (outputs, inputs, *[reach] * axes), inputs * reach**axes)


def _dense(name: str, inputs: int, outputs: int) -> tuple[Tensor, ...]:
    return Tensor(f"{name}.weight", (outputs, inputs), inputs), Tensor(f"{name}.bias", (outputs,), inputs)
