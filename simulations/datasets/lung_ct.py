"""Lung CT: 100 axial slices of 54 patients at four hospitals, with and without contrast agent, as DICOM files.

The slices are of TCGA-LUAD and TCGA-LUSC; the scanners' headers are real, and the identifiers in them are invented. Two
of the hospitals are very small, the scanners differ by hospital, and so does the share of contrast agent.

Data: CC BY 3.0. The Cancer Imaging Archive, doi 10.7937/K9/TCIA.2016.JGNIHEP5 and 10.7937/K9/TCIA.2016.TYGKKFMQ.
Changed: reduced to 128 x 128, identifiers planted, tags that name the contrast agent removed.
"""

from functools import partial
from pathlib import Path
from typing import Final

from wardround.client.connectors import read_pictures, read_table
from wardround.client.imaging.picture import Pictures
from wardround.protocol.contract import ImageInput
from wardround.protocol.errors import UsageError, did_you_mean
from wardround.simulations.datasets.source import Dataset, SitePictures, data_file

LABELS: Final = "lung_ct_dicom/labels.csv"
SHA256: Final = "94d594e6c31abfcf260c8a88e98da1d5992bcaa9df91d3325b69d4a2a4a3ca4d"
SITES: Final = ("pitt", "roswell", "unc", "washu")
ATTRIBUTION: Final = (
    "Lung CT: TCGA-LUAD (doi 10.7937/K9/TCIA.2016.JGNIHEP5) and TCGA-LUSC (doi 10.7937/K9/TCIA.2016.TYGKKFMQ), The "
    "Cancer Imaging Archive, CC BY 3.0; reduced to 128 x 128 and given invented identifiers."
)


def lung_ct(split: str) -> Dataset:
    """The four hospitals' DICOM folders, read as a hospital's own are; patients test by the hash of their id.

    Raises:
        UsageError: the table of labels is not there, is not the one that was checked, or the split is unknown.
    """
    if split != "complete":
        raise UsageError(f"the lung CT slices have no split '{split}'", did_you_mean(split, ("complete",)))
    table = data_file(LABELS, SHA256)
    rows = read_table("csv", table, {}, ["file", "contrast"]).to_pylist()
    sites = []
    for site in SITES:
        folder = f"dicom/{site}/"
        here = (row for row in rows if row["file"].startswith(folder))
        labels = {row["file"].removeprefix(folder): {"contrast": row["contrast"]} for row in here}
        pictures = partial(_pictures, table.parent / "dicom" / site)
        sites.append(SitePictures(site, pictures, labels))
    return Dataset(tuple(sites), ATTRIBUTION)


def _pictures(folder: Path, image: ImageInput) -> Pictures:
    return read_pictures("dicom", folder, image, {})
