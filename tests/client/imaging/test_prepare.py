"""From a picture to features: windows, spacing, orientation; each by a number that can be found by hand."""

import numpy as np
import pytest

from wardround.client.imaging.picture import Picture
from wardround.client.imaging.prepare import Unfit, features_of
from wardround.protocol.contract import ImageInput


def slice_of(values: object, spacing: tuple[float, ...] = (1.0, 1.0)) -> Picture:
    return Picture("p", "k", np.asarray(values, np.float32)[None], spacing)


FLAT = ImageInput(modality="CT", size=(8, 8), window=(-160, 240))


def test_the_window_is_mapped_to_minus_one_and_one_and_the_rest_is_clipped() -> None:
    values = np.full((8, 8), 40.0)
    values[0, :4] = -160, 240, -2000, 3000
    values[1, 0] = np.nan
    found = features_of(slice_of(values), FLAT)
    assert found.shape == (1, 8, 8) and found.dtype == np.float32
    assert found[0, 0, :4].tolist() == [-1, 1, -1, 1] and found[0, 1, 0] == -1 and found[0, 2, 2] == 0


def test_a_picture_that_shrinks_is_averaged_over_the_area() -> None:
    values = np.repeat(np.repeat(np.arange(64.0).reshape(8, 8), 2, 0), 2, 1)
    values[::2] += 10
    values[1::2] -= 10
    found = features_of(slice_of(values), FLAT)
    expected = (np.arange(64.0).reshape(8, 8) + 160) / 400 * 2 - 1
    assert np.allclose(found[0], expected, atol=1e-6)


def test_a_spacing_makes_one_millimetre_one_voxel_at_every_hospital() -> None:
    """A bar 8 mm wide is 4 voxels of 2 mm, and must be 4 of the contract's 2 mm, whatever the scanner's."""
    image = FLAT.model_copy(update={"spacing": (2.0, 2.0), "window": (0.0, 1.0)})
    for spacing in (0.5, 1.0, 2.0):
        count = int(16 / spacing)
        values = np.zeros((count, count))
        values[:, int(4 / spacing) : int(12 / spacing)] = 1.0
        found = features_of(slice_of(values, (spacing, spacing)), image)
        assert found[0, 4].tolist() == [-1, -1, 1, 1, 1, 1, -1, -1]


def test_a_small_picture_is_padded_around_its_centre_with_the_lower_end() -> None:
    image = FLAT.model_copy(update={"spacing": (1.0, 1.0), "window": (0.0, 1.0)})
    found = features_of(slice_of(np.ones((4, 4))), image)
    assert found[0, 2:6, 2:6].min() == 1 and found.sum() == 16 - 48


def test_a_histogram_counts_what_is_in_view() -> None:
    image = FLAT.model_copy(update={"features": "histogram", "bins": 4, "window": (0.0, 4.0)})
    values = np.full((8, 8), np.nan)
    values[0] = 0.5, 0.5, 1.5, 1.5, 1.5, 3.5, 99, -99
    assert features_of(slice_of(values), image).tolist() == pytest.approx([1.0, 1.5**0.5, 0, 0.5**0.5])


def test_a_volume_is_turned_so_that_indices_rise_to_left_posterior_superior() -> None:
    image = ImageInput(modality="MR", size=(8, 8, 8), window=(0, 7), orientation="LPS")
    slices, rows, columns = np.meshgrid(*[np.arange(8.0)] * 3, indexing="ij")
    # In the file: columns run to the right, rows to the front, slices to the feet: every axis is reversed.
    backwards = np.diag([-1.0, -1.0, -1.0, 1.0])
    for axis, values in enumerate((slices, rows, columns)):
        picture = Picture("p", "k", values.astype(np.float32)[None], (1.0, 1.0, 1.0), {}, backwards)
        found = features_of(picture, image)
        along = np.moveaxis(found[0], axis, 0)[:, 0, 0]
        assert np.allclose(along, 1 - 2 * np.arange(8) / 7, atol=1e-6)


def test_axes_in_another_order_are_brought_into_order_with_their_spacing() -> None:
    """A sagittal series: columns run to the back, rows to the feet, slices to the left."""
    affine = np.array([[0, 0, 3.0, 0], [2.0, 0, 0, 0], [0, -1.0, 0, 0], [0, 0, 0, 1]])
    values = np.zeros((4, 16, 8), np.float32)
    values[3] = 1.0
    image = ImageInput(modality="MR", size=(16, 16, 12), spacing=(1, 1, 1), window=(0, 1), orientation="LPS")
    found = features_of(Picture("p", "k", values[None], (3.0, 1.0, 2.0), {}, affine), image)
    assert found.shape == (1, 16, 16, 12)
    assert found[0, :, :, 10:].min() > 0.9 and found[0, :, :, :6].max() == -1, "the last slice is the leftmost"


def test_colour_becomes_grey_where_the_contract_has_one_channel() -> None:
    image = FLAT.model_copy(update={"window": (0.0, 1.0)})
    red = Picture("p", "k", np.stack([np.ones((8, 8)), np.zeros((8, 8)), np.zeros((8, 8))]).astype(np.float32))
    assert np.allclose(features_of(red, image), 0.299 * 2 - 1)


@pytest.mark.parametrize(
    ("picture", "changes", "reason"),
    [
        (Picture("p", "k", np.zeros((1, 4, 8, 8), np.float32)), {}, "not 2 dimensions"),
        (Picture("p", "k", np.zeros((2, 8, 8), np.float32)), {}, r"not 1 channel\(s\)"),
        (Picture("p", "k", np.zeros((1, 8, 8), np.float32)), {"spacing": (1.0, 1.0)}, "does not say its spacing"),
        (Picture("p", "k", np.zeros((1, 8, 8), np.float32)), {"orientation": "LPS"}, "does not say its orientation"),
    ],
)
def test_a_picture_that_cannot_meet_the_contract_says_so_and_nothing_of_itself(
    picture: Picture, changes: dict[str, object], reason: str
) -> None:
    with pytest.raises(Unfit, match=reason):
        features_of(picture, FLAT.model_copy(update=changes))
