"""What is learned from pictures: torch-free descriptions, so that a plan can be checked on any machine."""

from typing import Annotated, Any, Final, Literal

from pydantic import Field, model_validator

from wardround.protocol.labels import FindingsLabel, Label, MaskLabel
from wardround.protocol.networks import DenseNet121, Network, SmallNetwork, Width, unet_tensors
from wardround.protocol.parameters import Layout, Tensor
from wardround.protocol.part import Part, later
from wardround.protocol.weights import PublicSeed, WeightsFile

LARGEST_HEAD: Final = 128
"""Findings that one model tells at most."""

Weight = Annotated[float, Field(gt=0, le=1000)]


class Outputs(Part):
    """What binary outcomes a model tells: one, or several findings at once; and how much a positive one counts."""

    label_kind: Literal["class", "findings"] = "class"
    outputs: int = later(1, ge=1, le=LARGEST_HEAD, description="findings of the contract's label; 1: a class")
    positive_weights: tuple[Weight, ...] = later(
        (), description="how many negatives a positive counts for, for each output: public, never from local counts"
    )

    @model_validator(mode="before")
    @classmethod
    def _kind(cls, data: Any) -> Any:
        several = isinstance(data, dict) and isinstance(data.get("outputs"), int) and data["outputs"] > 1
        return {"label_kind": "findings", **data} if several else data

    @model_validator(mode="after")
    def _each(self) -> "Outputs":
        if (self.outputs > 1) is not (self.label_kind == "findings"):
            raise ValueError("several findings need as many outputs, two or more; a class needs one")
        if self.positive_weights and len(self.positive_weights) != self.outputs:
            raise ValueError(f"positive_weights needs one number for each output ({self.outputs})")
        return self

    def check_label(self, label: Label) -> None:
        """Raise ValueError unless ``label`` has as many findings as the model has outputs."""
        if isinstance(label, FindingsLabel) and len(label.findings) != self.outputs:
            raise ValueError(f"the label has {len(label.findings)} findings, and the task {self.outputs} outputs")


class _ImageTask(Part):
    channels: Literal[1, 3] = 1
    size: tuple[Annotated[int, Field(ge=8, le=512)], ...] = Field(
        min_length=2,
        max_length=3,
        description="(rows, columns) or (depth, rows, columns) of a picture; as in the contract",
    )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one picture: (channels, *size)."""
        return (self.channels, *self.size)

    @property
    def couples_patients(self) -> bool:
        return False

    @property
    def needs_random_start(self) -> bool:
        return True


class ImageClassification(_ImageTask, Outputs):
    """Binary outcomes from a picture, 2D or 3D: a small convolutional network, log loss."""

    name: Literal["image_classification"] = "image_classification"
    widths: tuple[Width, ...] = Field(
        default=(16, 32, 64), min_length=1, max_length=6, description="channels of each convolution"
    )
    groups: int = Field(default=4, ge=1, le=64, description="groups of the normalisation; divides every width")

    @model_validator(mode="after")
    def _fits(self) -> "ImageClassification":
        self.network.check_size(self.size)
        return self

    @property
    def network(self) -> SmallNetwork:
        return SmallNetwork(widths=self.widths, groups=self.groups)

    def layout(self, features: int) -> Layout:
        """The same for any number of feature columns: pictures have a shape of their own."""
        return _whole(self.network, self)


class ImageDenseNet(_ImageTask, Outputs):
    """Binary outcomes from a picture, 2D or 3D: DenseNet-121 with group normalisation, log loss."""

    name: Literal["image_densenet121"] = "image_densenet121"
    groups: Literal[1, 2, 4, 8, 16, 32] = Field(default=32, description="groups of the normalisation")

    @model_validator(mode="after")
    def _fits(self) -> "ImageDenseNet":
        self.network.check_size(self.size)
        return self

    @property
    def network(self) -> DenseNet121:
        return DenseNet121(groups=self.groups)

    def layout(self, features: int) -> Layout:
        """As of ``ImageClassification``."""
        return _whole(self.network, self)


class LinearProbe(_ImageTask, Outputs):
    """Binary outcomes by a linear model on what a frozen network makes of a picture (Alain, Bengio 2016).

    The network's weights are not trained and do not travel: they are a public seed's or an installed file's. So d is
    small: one sum a step fits, and mode 'dist' with it. Each picture's features are brought to mean square 1 by
    themselves, so nothing is fitted to patients.
    """

    name: Literal["linear_probe"] = "linear_probe"
    network: Network = SmallNetwork()
    weights: Annotated[PublicSeed | WeightsFile, Field(discriminator="source")] = PublicSeed()

    @model_validator(mode="after")
    def _fits(self) -> "LinearProbe":
        self.network.check_size(self.size)
        return self

    @property
    def needs_random_start(self) -> bool:
        return False

    @property
    def frozen(self) -> tuple[Tensor, ...]:
        """The tensors of the network that is not trained."""
        return self.network.tensors(self.channels, len(self.size))

    def layout(self, features: int) -> Layout:
        """The linear model alone."""
        inputs = self.network.features
        weight = Tensor("dense0.weight", (self.outputs, inputs), inputs)
        return Layout((weight, Tensor("dense0.bias", (self.outputs,), inputs)))


class ImageSegmentation(_ImageTask):
    """Structures in a picture, 2D or 3D: a U-Net with group normalisation; cross-entropy and Dice loss.

    A picture's loss is its own: the mean over its voxels plus one minus its Dice (Milletari et al. 2016).
    """

    name: Literal["image_segmentation"] = "image_segmentation"
    label_kind: Literal["mask"] = "mask"
    structures: int = Field(default=1, ge=1, le=32, description="structures of the contract's label")
    widths: tuple[Width, ...] = Field(
        default=(8, 16, 32), min_length=2, max_length=6, description="channels of each level"
    )
    groups: int = Field(default=4, ge=1, le=64, description="groups of the normalisation; divides every width")

    @model_validator(mode="after")
    def _fits(self) -> "ImageSegmentation":
        if any(width % self.groups for width in self.widths):
            raise ValueError(f"every width must be a multiple of groups ({self.groups})")
        step = 2 ** (len(self.widths) - 1)
        if any(length % step for length in self.size):
            raise ValueError(f"with {len(self.widths)} levels every length of size must be a multiple of {step}")
        return self

    def check_label(self, label: Label) -> None:
        """Raise ValueError unless ``label`` has as many structures as the model."""
        if isinstance(label, MaskLabel) and len(label.structures) != self.structures:
            raise ValueError(f"the label has {len(label.structures)} structures, and the task {self.structures}")

    def layout(self, features: int) -> Layout:
        """As of ``ImageClassification``; the first map that comes out is the background's."""
        return Layout(unet_tensors(self.channels, self.structures + 1, self.widths, len(self.size)))


PIXEL_TASKS: Final = (ImageClassification, ImageDenseNet, LinearProbe, ImageSegmentation)
"""Every task on pixels; any other works on columns."""


def _whole(network: SmallNetwork | DenseNet121, task: "ImageClassification | ImageDenseNet") -> Layout:
    return Layout((*network.tensors(task.channels, len(task.size)), *network.head(task.outputs)))
