"""X-ray phantoms as 8-bit PNG, every third as JPEG, beside a table that says whose picture is which."""

import csv
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from wardround.client.settings import DataSource, LabelTable
from wardround.simulations.synthetic.as_dicom import XRAY_WHITE, pictures
from wardround.simulations.synthetic.hospitals import Hospital
from wardround.simulations.synthetic.subjects import LABELS

JPEG_EVERY: Final = 3


def write_png(folder: Path, hospital: Hospital, count: int) -> DataSource:
    """``data/images`` and ``data/labels.csv`` of a site's folder; ``count`` patients."""
    target = folder / "data" / "images"
    target.mkdir()
    with (folder / "data" / "labels.csv").open("w", encoding="utf-8", newline="") as table:
        rows = csv.writer(table, lineterminator="\n")
        rows.writerow(["file", "patient", LABELS["xray"], "age", "sex"])
        for made in pictures(hospital, "xray", count):
            subject = made.subject
            jpeg = made.number % JPEG_EVERY == JPEG_EVERY - 1
            name = f"{made.number:05d}.{'jpg' if jpeg else 'png'}"
            grey = np.rint(made.pixels * (255.0 / XRAY_WHITE)).astype(np.uint8)
            # PNG has no quality and ignores it.
            Image.fromarray(grey).save(target / name, quality=95)
            rows.writerow([name, subject.id, int(subject.positive), subject.age, subject.person.sex])
    return DataSource(
        connector="png",
        path="data/images",
        options={"table": "../labels.csv", "file": "file", "patient": "patient"},
        labels=LabelTable(path="data/labels.csv", key="file"),
    )
