"""Chest X-rays of children, 28 x 28, pneumonia or not: all 5,856 of PneumoniaMNIST, which come from one hospital.

The division into hospitals is simulated: four of unequal size, with unequal shares of pneumonia. The set names no
patients, so each picture counts as a patient of its own, and a claim about patients is one about pictures here.

Data: CC BY 4.0. Yang J et al. (2023). MedMNIST v2. Scientific Data 10:41. Kermany D et al. (2018). Cell 172:1122.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from wardround.client.imaging.picture import LeftOut, Picture, Pictures
from wardround.protocol.contract import ImageInput
from wardround.protocol.errors import UsageError, did_you_mean
from wardround.simulations.datasets.source import Dataset, SitePictures, data_file

FILE: Final = "pneumonia_cxr28/pneumonia28.npz"
SHA256: Final = "ce8250bf5debc3c389b89affcc1d9feac579b26e875a848301e9f937bb0c2eee"
ATTRIBUTION: Final = (
    "Chest X-rays: PneumoniaMNIST of MedMNIST v2 (Yang et al., Scientific Data 2023;10:41), after Kermany et al., Cell "
    "2018;172:1122, Guangzhou Women and Children's Medical Center; CC BY 4.0. The division into hospitals is simulated."
)

SHARES: Final = {"east": (0.40, 0.40), "north": (0.35, 0.25), "south": (0.15, 0.25), "west": (0.10, 0.10)}
"""For each simulated hospital its share of the pictures without and with pneumonia."""

DUPLICATE: Final = "the same picture twice"


def chest_xray(split: str) -> Dataset:
    """The four simulated hospitals; the published training pictures train and the published test pictures test.

    Raises:
        UsageError: the file is not there, is not the one that was checked, or the split is unknown.
    """
    if split != "complete":
        raise UsageError(f"the chest X-rays have no split '{split}'", did_you_mean(split, ("complete",)))
    with np.load(data_file(FILE, SHA256)) as arrays:
        parts = {part: (arrays[f"{part}_images"], arrays[f"{part}_labels"][:, 0]) for part in ("train", "test")}
    rows = {part: _dealt(labels) for part, (_, labels) in parts.items()}
    return Dataset(
        tuple(_site(site, parts, {part: rows[part][site] for part in parts}) for site in SHARES), ATTRIBUTION
    )


def _dealt(labels: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.int64]]:
    """The rows of each hospital, by a public seed: each class is shuffled and cut by the hospitals' shares."""
    generator = np.random.Generator(np.random.PCG64(2018))
    found: dict[str, list[npt.NDArray[np.int64]]] = {site: [] for site in SHARES}
    for value in (0, 1):
        order = generator.permutation(np.flatnonzero(labels == value))
        cuts = np.round(np.cumsum([share[value] for share in SHARES.values()])[:-1] * len(order)).astype(int)
        for site, part in zip(SHARES, np.split(order, cuts), strict=True):
            found[site].append(part)
    return {site: np.sort(np.concatenate(rows)) for site, rows in found.items()}


def _site(
    site: str,
    parts: dict[str, tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]],
    rows: dict[str, npt.NDArray[np.int64]],
) -> SitePictures:
    names = {part: [f"{part}-{row}" for row in rows[part]] for part in parts}
    labels = {
        name: {"pneumonia": str(parts[part][1][row])}
        for part in parts
        for name, row in zip(names[part], rows[part], strict=True)
    }

    def pictures(image: ImageInput) -> Pictures:
        return _pictures({part: parts[part][0][rows[part]] for part in parts}, names)

    return SitePictures(site, pictures, labels, frozenset(names["test"]))


def _pictures(images: dict[str, npt.NDArray[np.uint8]], names: dict[str, list[str]]) -> Iterator[Picture | LeftOut]:
    seen: set[bytes] = set()
    for part, values in images.items():
        for name, picture in zip(names[part], values, strict=True):
            content = picture.tobytes()
            if content in seen:
                yield LeftOut(DUPLICATE, name)
            else:
                seen.add(content)
                yield Picture(name, name, picture.astype(np.float32)[None])
