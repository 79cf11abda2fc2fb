"""From a DICOM data set to pictures in modality units: decoding, rescaling, padding, geometry.

Decoding is pydicom's with its plug-ins. What comes out holds no header but the numbers of the allow-list, the patient's
id and the key for the label, and both of these stay in this process; and, for the check of a site's data alone, what
``described`` makes of the machine and the use.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from wardround.client.imaging.burned_in import shows_text, text_is_likely
from wardround.client.imaging.described import described
from wardround.client.imaging.header import field, image_type, numbers_of, text
from wardround.client.imaging.picture import LeftOut, Picture
from wardround.protocol.contract import ImageInput

NO_PATIENT: Final = "no patient id"
NO_PIXELS: Final = "no pixels"
NOT_DECODED: Final = "pixels cannot be decoded"
OTHER_MODALITY: Final = "another modality than the contract's"
TEXT: Final = "text may be burned into the picture"
MANY_FRAMES: Final = "too many frames"
UNREADABLE: Final = "file that the disk does not give"

TOO_LARGE: Final = "too many pixels"

MOST_FRAMES: Final = 2_000
MOST_PIXELS: Final = 1 << 29
"""Of a file, 2 GiB as float32: 2,000 frames of 512 x 512. A header can claim any number, and decoders believe it."""


def refused(error: Exception) -> bool:
    """Whether the disk or its rights are at fault, not the file: only the operating system's errors have a number."""
    return isinstance(error, OSError) and error.errno is not None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a source asks of a data set: what the plan's ``image`` needs, and nothing more is decoded.

    The modality 'OT' takes any; ``keep_text`` turns the search for text off; ``key`` names the label. ``describe``: the
    check of a site's data asks for ``described`` as well; nothing that makes features does.
    """

    image: ImageInput
    key: str
    keep_text: bool = False
    describe: bool = False

    @property
    def numbers(self) -> bool:
        """Header numbers stand beside a histogram only."""
        return self.image.features == "histogram"

    @property
    def affine(self) -> bool:
        return self.image.orientation == "LPS"


def pictures_of(dataset: Any, wanted: Wanted, place: str) -> Iterator[Picture | LeftOut]:
    """The pictures of one data set: one for each frame, or why there is none.

    ``wanted.key`` names the label of all of them. Colour comes as (3, rows, columns), grey as (1, rows, columns).
    """
    patient = text(dataset, "PatientID")
    if not patient:
        yield LeftOut(NO_PATIENT, place)
        return
    if "PixelData" not in dataset:
        yield LeftOut(NO_PIXELS, place)
        return
    modality = text(dataset, "Modality")
    if wanted.image.modality not in ("OT", modality):
        yield LeftOut(OTHER_MODALITY, place)
        return
    likely = text_is_likely(modality, image_type(dataset), text(dataset, "BurnedInAnnotation"))
    if likely and not wanted.keep_text:
        yield LeftOut(TEXT, place)
        return
    if count_of(dataset) > MOST_FRAMES:
        yield LeftOut(MANY_FRAMES, place)
        return
    if claimed(dataset) > MOST_PIXELS:
        yield LeftOut(TOO_LARGE, place)
        return
    try:
        frames = frames_of(dataset)
        spacing, affine = spacing_of(dataset), _affine(dataset) if wanted.affine else None
    # pydicom and its plug-ins raise whatever their codecs raise, and their messages quote the file.
    except Exception as error:
        yield LeftOut(NOT_DECODED, place, passing=isinstance(error, MemoryError))
        return
    numbers = numbers_of(dataset) if wanted.numbers else {}
    said = described(dataset) if wanted.describe else None
    for frame in frames:
        if not wanted.keep_text and shows_text(frame[0]):
            yield LeftOut(TEXT, place)
        else:
            yield Picture(patient, wanted.key, frame, spacing, numbers, affine, said)


def frames_of(dataset: Any, frame: int | None = None, scale: Any = None) -> list[npt.NDArray[np.float32]]:
    """Every frame in modality units: (channels, rows, columns), brighter is larger, padding is NaN.

    Args:
        frame: only this one, counted from 0.
        scale: what holds the frame's rescaling, where that is not the data set itself.

    Raises:
        Exception: whatever a codec raises; its message may quote the file.
    """
    from pydicom.pixels import convert_color_space

    stored = _decoded(dataset, frame)
    scale = dataset if scale is None else scale
    kind = text(dataset, "PhotometricInterpretation")
    if int(field(dataset, "SamplesPerPixel") or 1) == 3:
        if kind.startswith("YBR"):
            stored = convert_color_space(stored, kind, "RGB")
        colour = stored.reshape(-1, *stored.shape[-3:])
        return [np.moveaxis(frame, -1, 0).astype(np.float32) for frame in colour]
    values = _rescaled(stored, scale)
    if kind == "MONOCHROME1":
        # Larger is darker; mirrored within the range that the bits can hold (PS3.3 C.7.6.3.1.2).
        low, high = _reach(dataset, scale)
        values = low + high - values
    padding = field(dataset, "PixelPaddingValue")
    if padding is not None:
        last = field(dataset, "PixelPaddingRangeLimit")
        outside = stored == padding if last is None else (stored >= min(padding, last)) & (stored <= max(padding, last))
        values[outside] = np.nan
    return [frame[None] for frame in values.reshape(-1, *values.shape[-2:])]


def _decoded(dataset: Any, frame: int | None) -> npt.NDArray[Any]:
    """The stored values. Raises what pydicom and its codecs raise, as an Exception."""
    from pydicom.pixels import get_decoder

    try:
        # Not the data set's own property, which asks for every field of the pixels' format three times.
        decoder = get_decoder(dataset.file_meta.TransferSyntaxUID)
        stored: npt.NDArray[Any] = decoder.as_array(dataset, raw=True, index=frame)[0]
        return stored
    except BaseException as error:
        # A codec in Rust that panics at a broken file raises what is no Exception, and would end the daemon.
        if isinstance(error, Exception) or type(error).__name__ != "PanicException":
            raise
        raise ValueError("a codec gave up") from None


def _rescaled(stored: npt.NDArray[Any], scale: Any) -> npt.NDArray[np.float32]:
    """Stored values in modality units (PS3.3 C.11.1), as an array of their own."""
    from pydicom.pixels import apply_modality_lut

    slope, intercept = field(scale, "RescaleSlope"), field(scale, "RescaleIntercept")
    exact = stored.dtype.itemsize <= 2 and slope == 1 and intercept is not None and float(intercept).is_integer()
    if exact and "ModalityLUTSequence" not in scale:
        # As CT is stored: whole numbers, which single precision holds exactly.
        values = stored.astype(np.float32)
        values += np.float32(intercept)
        return values
    return np.array(apply_modality_lut(stored, scale), np.float32)


def _reach(dataset: Any, scale: Any) -> tuple[float, float]:
    """The smallest and the largest value that a pixel can hold, in modality units."""
    bits = int(dataset.BitsStored)
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if int(dataset.PixelRepresentation) else (0, (1 << bits) - 1)
    slope, intercept = float(field(scale, "RescaleSlope") or 1), float(field(scale, "RescaleIntercept") or 0)
    return low * slope + intercept, high * slope + intercept


def spacing_of(dataset: Any) -> tuple[float, ...]:
    """(row, column) spacing in mm; that of the detector for a projection; empty where it is unknown or not positive."""
    given = field(dataset, "PixelSpacing") or field(dataset, "ImagerPixelSpacing")
    steps = () if given is None else tuple(float(step) for step in given)
    return steps if len(steps) == 2 and min(steps) > 0 else ()


def _affine(dataset: Any) -> npt.NDArray[np.float64] | None:
    """From (column, row, slice) to mm in LPS (PS3.3 C.7.6.2.1.1); None where the header does not say."""
    position, turned, steps = (
        field(dataset, "ImagePositionPatient"),
        field(dataset, "ImageOrientationPatient"),
        spacing_of(dataset),
    )
    if position is None or turned is None or not steps or len(turned) != 6 or len(position) != 3:
        return None
    along_row, along_column = np.array(turned[:3], float), np.array(turned[3:], float)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = along_row * steps[1], along_column * steps[0]
    affine[:3, 2] = across(along_row, along_column) * float(field(dataset, "SliceThickness") or 1)
    affine[:3, 3] = np.array(position, float)
    return affine


def across(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The vector product; numpy's takes longer than the rest of the geometry."""
    return np.array((a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]))


def count_of(dataset: Any) -> int:
    """The number of frames, as the header has it."""
    try:
        return int(field(dataset, "NumberOfFrames") or 1)
    except (TypeError, ValueError):
        return 1


def claimed(dataset: Any) -> int:
    """Pixels of all frames that the header claims; 0 where it does not say, so that decoding says why not."""
    try:
        rows, columns = int(field(dataset, "Rows")), int(field(dataset, "Columns"))
        return rows * columns * int(field(dataset, "SamplesPerPixel") or 1) * count_of(dataset)
    except (TypeError, ValueError):
        return 0
