"""What is learned from pictures: torch-free descriptions, so that a plan can be checked on any machine.

The network normalises by groups of channels (Wu, He 2018) and never by batch, so that no picture's output depends on
another's; its normalisation has no weights, so there is nothing to start at one and nothing to clip in vain.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from wardround.protocol.parameters import Layout, Tensor


class ImageClassification(BaseModel):
    """A binary outcome from a 2D picture: a small convolutional network, log loss.

    For each of ``widths``: a 3 x 3 convolution without bias, group normalisation, ReLU, and the mean over 2 x 2 fields;
    then the mean over what is left of the picture, and one dense unit, the logit of the positive class.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["image_classification"] = "image_classification"
    label_kind: Literal["class"] = "class"
    channels: Literal[1, 3] = 1
    size: tuple[Annotated[int, Field(ge=8, le=512)], Annotated[int, Field(ge=8, le=512)]] = Field(
        description="(rows, columns) of a picture; the same as in the contract"
    )
    widths: tuple[Annotated[int, Field(ge=4, le=512)], ...] = Field(
        default=(16, 32, 64), min_length=1, max_length=6, description="channels of each convolution"
    )
    groups: int = Field(default=4, ge=1, le=64, description="groups of the normalisation; divides every width")

    @model_validator(mode="after")
    def _fits(self) -> "ImageClassification":
        if any(width % self.groups for width in self.widths):
            raise ValueError(f"every width must be a multiple of groups ({self.groups})")
        if min(self.size) >> len(self.widths) < 1:
            raise ValueError(f"a picture of {self.size} cannot be halved {len(self.widths)} times")
        return self

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one picture: (channels, rows, columns)."""
        return (self.channels, *self.size)

    @property
    def couples_patients(self) -> bool:
        return False

    @property
    def needs_random_start(self) -> bool:
        return True

    def layout(self, features: int) -> Layout:
        """The same for any number of feature columns: pictures have a shape of their own."""
        inputs = (self.channels, *self.widths)
        tensors = [
            Tensor(f"convolution{number}.weight", (width, inputs[number], 3, 3), inputs[number] * 9)
            for number, width in enumerate(self.widths)
        ]
        last = self.widths[-1]
        return Layout((*tensors, Tensor("dense.weight", (1, last), last), Tensor("dense.bias", (1,), last)))
