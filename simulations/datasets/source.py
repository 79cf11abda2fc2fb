"""What a data set is: for each site a table or pictures, as its own system would hold them, and who tests."""

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import pyarrow as pa

from wardround.client.connectors import Cohort, cohort_from_table, make_cohort, patient_tests
from wardround.client.connectors.table import joined
from wardround.client.imaging.masks import Masks
from wardround.client.imaging.picture import Pictures
from wardround.client.imaging.records import Labels, picture_records
from wardround.client.tasks import Frozen, with_frozen_part
from wardround.protocol.contract import DataContract, ImageInput
from wardround.protocol.errors import UsageError

FOLDER: Final = "WARDROUND_DATA"
"""The environment variable that names the folder with data sets that no package carries."""


@dataclass(frozen=True, slots=True)
class SiteTable:
    """A site's table as its own system would export it, and the rows (from 0) that are its test patients.

    ``test_rows`` None: by the hash of each patient.
    """

    site: str
    table: pa.Table
    test_rows: np.ndarray | None

    def cohort(self, contract: DataContract, test_share: float, frozen: Frozen | None = None) -> Cohort:
        """The cohort under ``contract``, divided as the data set is published; nothing of a table's task is frozen."""
        return cohort_from_table(self.site, self.table, contract, test_rows=self.test_rows, test_share=test_share)


@dataclass(frozen=True, slots=True)
class SitePictures:
    """A site's pictures, read when asked for, with their labels.

    ``test``: the patients that test; None: by the hash of each patient, as for tables of one's own. ``masks`` reads
    the masks that the labels name.
    """

    site: str
    pictures: Callable[[ImageInput], Pictures]
    labels: Labels
    test: Collection[str] | None = None
    masks: Masks | None = None

    def cohort(self, contract: DataContract, test_share: float, frozen: Frozen | None = None) -> Cohort:
        """The cohort under ``contract``, held in memory; ``frozen`` is what the task does to pixels before training."""
        if contract.image is None:
            raise UsageError(
                f"site '{self.site}' holds pictures, and the contract has no 'image'", "add contract.image"
            )
        pictures = self.pictures(contract.image)
        made = picture_records(pictures, self.labels, contract, f"site '{self.site}'", self.masks)
        records = joined(with_frozen_part(made, frozen))
        names = [str(patient) for patient in records.patients]
        test = [patient_tests(name, test_share) if self.test is None else name in self.test for name in names]
        return make_cohort(
            self.site,
            records.features,
            records.targets,
            test=np.array(test, bool),
            patients=np.array(names, object),
            excluded=records.excluded,
        )


SiteData: TypeAlias = SiteTable | SitePictures


@dataclass(frozen=True, slots=True)
class Dataset:
    """A real data set, and whom to thank for it."""

    sites: tuple[SiteData, ...]
    attribution: str

    @property
    def tables(self) -> tuple[SiteTable, ...]:
        """The sites that hold tables."""
        return tuple(site for site in self.sites if isinstance(site, SiteTable))


def data_file(name: str, checksum: str) -> Path:
    """A file below the folder that the environment names, with the SHA-256 that was checked.

    Raises:
        UsageError: the variable is not set, the file is not there, or it is another one.
    """
    folder = os.environ.get(FOLDER)
    if not folder:
        raise UsageError(
            f"this data set lies in no package, and {FOLDER} does not say where it is",
            "docs/data.md says where to get it and how to check it; then set the variable",
        )
    path = Path(folder) / name
    if not path.is_file():
        raise UsageError(f"there is no '{name}' in the folder that {FOLDER} names", "docs/data.md says where to get it")
    if sha256(path.read_bytes()).hexdigest() != checksum:
        raise UsageError(f"'{name}' is not the file that was checked", "get it again: docs/data.md has its checksum")
    return path
