"""Where each data set comes from, with checksums: one file per set, one line here."""

from collections.abc import Callable
from typing import Final

from wardround.protocol.errors import UsageError, did_you_mean
from wardround.simulations.datasets.chest_xray import chest_xray
from wardround.simulations.datasets.heart_disease import HEART_COLUMNS, heart_disease
from wardround.simulations.datasets.lung_ct import lung_ct
from wardround.simulations.datasets.phantom_mri import phantom_mri
from wardround.simulations.datasets.source import Dataset, SitePictures, SiteTable
from wardround.simulations.datasets.synthetic import synthetic

__all__ = ["DATASETS", "HEART_COLUMNS", "Dataset", "SitePictures", "SiteTable", "heart_disease", "load_dataset"]

DATASETS: Final[dict[str, Callable[[str], Dataset]]] = {
    "chest_xray": chest_xray,
    "heart_disease": heart_disease,
    "lung_ct": lung_ct,
    "phantom_mri": phantom_mri,
    "synthetic": synthetic,
}


def load_dataset(name: str, split: str) -> Dataset:
    """The data set of that name. Raises UsageError for an unknown name."""
    if name not in DATASETS:
        raise UsageError(f"there is no data set '{name}'", did_you_mean(name, DATASETS))
    return DATASETS[name](split)
