"""The data contract of a study: what every column means, and what happens where a value is missing.

The contract is part of the plan that a hospital approves. Everything that turns a cell into a number is fixed here,
in public, before any data is read: allowed range, codes, scaling constants, the value that stands for a missing one.
Nothing is fitted on patients' data (a mean fitted on data would be a release, see docs/privacy.md).

Two policies for missing values are offered. ``complete_cases`` excludes the patient's row and counts it;
``fixed_value`` writes a public constant and can add an indicator feature. Multiple imputation is not offered: its
model is fitted on patients' data, so its parameters would have to be charged, and one patient would appear in
several completed copies, which breaks the patient as the unit of privacy.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from wardround.protocol.labels import Label, MaskLabel, NumberLabel
from wardround.protocol.part import Part, later


class CompleteCases(Part):
    """A row with this value missing is left out, and the exclusion is counted and named."""

    kind: Literal["complete_cases"] = "complete_cases"


class FixedValue(Part):
    """A missing value becomes ``value`` (in the column's unit), marked by an extra 0/1 feature if ``indicator``."""

    kind: Literal["fixed_value"] = "fixed_value"
    value: float = Field(allow_inf_nan=False)
    indicator: bool = True


MissingPolicy = Annotated[CompleteCases | FixedValue, Field(discriminator="kind")]


class NumberColumn(Part):
    """A measured quantity; its feature is (value - center) / scale with public constants."""

    type: Literal["number"] = "number"
    name: str
    meaning: str
    unit: str = Field(description="UCUM code, '1' when there is none")
    minimum: float
    maximum: float
    center: float = 0.0
    scale: float = Field(default=1.0, gt=0)
    missing: MissingPolicy = CompleteCases()
    missing_codes: tuple[float, ...] = Field(default=(), description="numbers that the source writes for 'missing'")
    also_allowed: tuple[float, ...] = Field(default=(), description="values outside the range, kept as they are")

    @model_validator(mode="after")
    def _range(self) -> "NumberColumn":
        if not self.minimum < self.maximum:
            raise ValueError(f"column '{self.name}': minimum must lie below maximum")
        return self

    @property
    def feature_names(self) -> tuple[str, ...]:
        return (self.name, *_indicator(self.name, self.missing))


class CodeColumn(Part):
    """A coded category; one 0/1 feature for each code but the ``reference`` (all codes, if that is null)."""

    type: Literal["code"] = "code"
    name: str
    meaning: str
    unit: Literal["1"] = "1"
    codes: dict[str, str] = Field(min_length=2, description="code -> meaning")
    reference: str | None = None
    missing: MissingPolicy = CompleteCases()

    @model_validator(mode="after")
    def _reference(self) -> "CodeColumn":
        if self.reference is not None and self.reference not in self.codes:
            raise ValueError(f"column '{self.name}': the reference '{self.reference}' is not one of its codes")
        if isinstance(self.missing, FixedValue) and _as_code(self.missing.value) not in self.codes:
            raise ValueError(f"column '{self.name}': the fixed value for a missing one is not one of its codes")
        return self

    @property
    def feature_names(self) -> tuple[str, ...]:
        features = tuple(f"{self.name}={code}" for code in self.codes if code != self.reference)
        return (*features, *_indicator(self.name, self.missing))


Column = Annotated[NumberColumn | CodeColumn, Field(discriminator="type")]


class ImageInput(Part):
    """How a picture becomes features: fixed here, in public, and the same at every hospital.

    A picture is resampled to ``spacing``, cropped or padded around its centre to ``size`` (without a spacing: scaled to
    ``size``), and ``window`` is mapped to -1 .. 1; what lies outside the window is clipped, what lies outside the field
    of view is the lower end. ``histogram`` gives the square roots of the shares of voxels in ``bins`` parts of the
    window instead, and ``columns`` of the contract may then name numeric header fields of the allow-list beside it.
    """

    modality: str = Field(pattern="^[A-Z]{2,4}$", description="DICOM modality: CT, MR, CR, DX, ...")
    size: tuple[Annotated[int, Field(ge=8, le=1024)], ...] = Field(
        min_length=2, max_length=3, description="(rows, columns) or (depth, rows, columns) of the features"
    )
    channels: Literal[1, 3] = 1
    spacing: tuple[Annotated[float, Field(gt=0)], ...] | None = Field(
        default=None, description="mm between voxels along each axis of size; null: the whole picture is scaled to size"
    )
    window: tuple[float, float] = Field(description="lower and upper end, in modality units (Hounsfield for CT)")
    orientation: Literal["as_stored", "LPS"] = Field(
        default="as_stored",
        description="LPS: axes are flipped and permuted so that indices rise to left, posterior, superior",
    )
    features: Literal["pixels", "histogram"] = "pixels"
    bins: int = Field(default=64, ge=2, le=1024)
    intensity: Literal["units", "percentiles"] = later(
        "units",
        description="percentiles: the window is in per cent of the picture's own voxels in view, for kinds of pictures "
        "whose values have no unit (MR)",
    )

    @model_validator(mode="after")
    def _fits(self) -> "ImageInput":
        if not self.window[0] < self.window[1]:
            raise ValueError("image: the lower end of the window must lie below the upper end")
        if self.spacing is not None and len(self.spacing) != len(self.size):
            raise ValueError("image: spacing needs one number for each axis of size")
        if self.intensity == "percentiles" and not 0.0 <= self.window[0] < self.window[1] <= 100.0:
            raise ValueError("image: with intensity 'percentiles' the window lies within 0 to 100")
        return self

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one picture's pixels as features: (channels, *size)."""
        return (self.channels, *self.size)

    @property
    def feature_names(self) -> tuple[str, ...]:
        if self.features == "histogram":
            return tuple(f"bin {number + 1} of {self.bins}" for number in range(self.bins))
        return ("pixels",)


class DataContract(Part):
    """Every column that a study reads, and nothing else."""

    columns: tuple[Column, ...] = ()
    image: ImageInput | None = None
    label: Label
    patient_id: str | None = Field(default=None, description="column with the patient; null: each row is a patient")
    missing_tokens: tuple[str, ...] = ("", "?", "NA")

    @model_validator(mode="after")
    def _names(self) -> "DataContract":
        if self.image is None and not self.columns:
            raise ValueError("a contract needs columns or an image")
        if self.image is not None and self.image.features == "pixels" and self.columns:
            raise ValueError("beside pixels there are no columns; a histogram may have numeric header fields beside it")
        if isinstance(self.label, MaskLabel) and (self.image is None or self.image.features != "pixels"):
            raise ValueError("a mask marks a region of a picture: the contract needs an image with features 'pixels'")
        names = self.column_names
        doubled = {name for name in names if names.count(name) > 1}
        if doubled:
            raise ValueError(f"columns named twice: {', '.join(sorted(doubled))}")
        return self

    @property
    def column_names(self) -> tuple[str, ...]:
        """Every column that is read, in order: features, label, patient."""
        patient = () if self.patient_id is None else (self.patient_id,)
        return (*(column.name for column in self.columns), *self.label.columns, *patient)

    @property
    def quantity(self) -> NumberColumn | None:
        """The label as a column, where it is a quantity; its centre is only a guess of where values lie."""
        label = self.label
        if not isinstance(label, NumberLabel):
            return None
        return NumberColumn(
            name=label.column,
            meaning=label.meaning,
            unit=label.unit,
            minimum=label.minimum,
            maximum=label.maximum,
            center=(label.minimum + label.maximum) / 2,
            scale=(label.maximum - label.minimum) / 4,
            missing_codes=label.missing_codes,
        )

    @property
    def picture_shape(self) -> tuple[int, ...] | None:
        """Shape of one record's pixels as features, None without; a mask lies behind the channels as one more."""
        if self.image is None or self.image.features != "pixels":
            return None
        channels, *size = self.image.shape
        return (channels + isinstance(self.label, MaskLabel), *size)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The columns of the feature matrix, in order."""
        image = () if self.image is None else self.image.feature_names
        return (*image, *(name for column in self.columns for name in column.feature_names))


def _indicator(name: str, missing: CompleteCases | FixedValue) -> tuple[str, ...]:
    return (f"{name} missing",) if isinstance(missing, FixedValue) and missing.indicator else ()


def _as_code(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)
