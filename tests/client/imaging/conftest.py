"""DICOM files that the tests write themselves, with invented people in them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

WriteDicom = Callable[..., Path]


@pytest.fixture
def write_dicom(tmp_path: Path) -> WriteDicom:
    """Writes one CT slice below ``tmp_path / 'archive'``; keywords replace header fields, None removes one."""

    def write(name: str, pixels: Any = None, **fields: Any) -> Path:
        stored = np.full((16, 16), 1024, np.uint16) if pixels is None else np.asarray(pixels)
        dataset = Dataset()
        dataset.SOPClassUID = CTImageStorage
        # All of one length, so that a file that is written again has its size.
        uids = [f"{generate_uid()[:50]:1<50}" for _ in range(3)]
        dataset.SOPInstanceUID, dataset.SeriesInstanceUID, dataset.StudyInstanceUID = uids
        dataset.PatientID, dataset.PatientName = "P-4711", "Fernsby^Octavia"
        dataset.Modality, dataset.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.Rows, dataset.Columns = stored.shape[-2:] if stored.ndim < 4 else stored.shape[1:3]
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated = dataset.BitsStored = stored.dtype.itemsize * 8
        dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, int(stored.dtype.kind == "i")
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
        dataset.PixelSpacing = [0.5, 0.75]
        dataset.PixelData = stored.tobytes()
        for keyword, value in fields.items():
            if value is None:
                delattr(dataset, keyword)
            else:
                setattr(dataset, keyword, value)
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        path = tmp_path / "archive" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        dataset.save_as(path, enforce_file_format=True)
        return path

    return write
