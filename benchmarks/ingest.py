"""Reading a hospital's data: patients and pictures a second, memory, a cold and a warm cache; beside plain loops.

Synthetic hospitals are written in every format, and read twice: by the site's own way from source to checked features
(reader, mapping, contract; of pictures, preparation too) and by the loop of ``_plain_readers`` that a researcher would
write with the same library, without any check. For DICOM the decoding alone is compared with pydicom's own loop. Each
reading is a process of its own, in turn, because peak memory is a process's; the time is that of the reading alone.

The full run also loads an OMOP database of 100,000 persons into a PostgreSQL of its own and reads a cohort from it.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import yaml
from _plain_readers import PLAIN

from wardround.client.reading import read_records
from wardround.client.settings import read_settings
from wardround.client.tasks import task_from
from wardround.client.training import train_plain
from wardround.conf.compose import compose_configuration
from wardround.conf.planning import make_plan
from wardround.conf.schema import parse_configuration
from wardround.protocol.contract import DataContract, ImageInput
from wardround.protocol.messages import LocalRule
from wardround.protocol.parameters import initial_weights
from wardround.simulations.cohorts import gather

TABLES = ("csv", "parquet", "excel", "sqlite", "omop", "fhir", "hl7v2")
PICTURES = ("dicom", "nifti", "png")
TURNS = 3
PERSONS = 100_000


def hospital(place: Path, kind: str, patients: int) -> Path:
    """The folder of one synthetic hospital, written by ``wardround data make-cohort``'s code."""
    from wardround.simulations.synthetic.cohort import make_cohort

    make_cohort(place / kind, format=kind, sites=1, patients=patients)
    (found,) = (folder for folder in (place / kind).iterdir() if folder.is_dir())
    return found


def contract_of(folder: Path) -> DataContract:
    return DataContract.model_validate_json((folder.parent / "contract.json").read_bytes())


def ours(folder: Path) -> int:
    """Records that the contract kept, through the reader, the mapping and the contract."""
    return sum(len(found.rows) for found in read_records(read_settings(folder), folder, contract_of(folder), "site"))


def decoded(folder: Path) -> int:
    """Pictures that the DICOM reader gives, before they are prepared."""
    from wardround.client.connectors import read_pictures
    from wardround.client.imaging.picture import Picture

    image = ImageInput(modality="OT", size=(8, 8), window=(0.0, 1.0))
    found = read_pictures("dicom", folder / read_settings(folder).data[0].path, image, {})
    return sum(isinstance(each, Picture) for each in found)


def cached(folder: Path, state: str = "state") -> int:
    """Through the site's cache of features: made where there is none of that state, else read."""
    from wardround.client.cache import CACHE, FeatureCache
    from wardround.client.imaging.kept import KeptPictures
    from wardround.client.store.members import Part

    class Half:
        """Every second patient tests; a keyed hash costs what it costs elsewhere."""

        def parts(self, ids: Any) -> Any:
            return [Part.TEST if number % 2 else Part.TRAIN for number, _ in enumerate(ids)]

        def hashed(self, ids: Any) -> Any:
            from hashlib import sha256

            return [sha256(id_.encode()).digest() for id_ in ids]

    contract, half = contract_of(folder), Half()
    kept = KeptPictures(folder / CACHE, "0" * 32, bytes(32), half.hashed)
    cohort = FeatureCache(folder, "site").cohort(
        "0" * 32, state, lambda: read_records(read_settings(folder), folder, contract, "site", kept), half
    )
    return len(cohort.train.targets) + len(cohort.test.targets)


def grown(folder: Path) -> int:
    """As ``cached`` after one picture was written again: what a new patient makes of a source that was read before."""
    next(folder.rglob("*.dcm")).touch()
    return cached(folder, "another")


def child(work: str, folder: Path, small: Path) -> None:
    """One reading, in this process: records, seconds, and peak memory in MiB, imports included."""
    works: dict[str, Callable[[Path], int]] = {
        "ours": ours, "plain": PLAIN[folder.parent.name], "decoded": decoded, "cold": cached, "warm": cached,
        "grown": grown,
    }  # fmt: skip
    # A small hospital first, so that imports and tables that are made once are not in the time.
    works[work](small)
    began = perf_counter()
    count = works[work](folder)
    seconds = perf_counter() - began
    # Not ru_maxrss: it starts from the peak of the process that called.
    (peak,) = (line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
    print(json.dumps({"count": count, "seconds": seconds, "peak": int(peak) / 1024}))


def measured(work: str, folder: Path, small: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, __file__, "--child", work, "--folders", str(folder), str(small)],
        check=True, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def beside(first: str, second: str, folder: Path, small: Path, turns: int) -> tuple[dict[str, float], dict[str, float]]:
    """The turn of median time of each of two ways to read, taken in turn."""
    found: tuple[list[dict[str, float]], list[dict[str, float]]] = ([], [])
    for _ in range(turns):
        for work, into in zip((first, second), found, strict=True):
            into.append(measured(work, folder, small))
    one, two = (sorted(each, key=lambda row: row["seconds"])[len(each) // 2] for each in found)
    return one, two


def enlarged(folder: Path, out: Path) -> Path:
    """The hospital's slices at the size and in the coding of a scanner's own."""
    import numpy as np
    from pydicom import dcmread
    from pydicom.uid import RLELossless

    shutil.copytree(folder, out)
    for file in out.rglob("*.dcm"):
        dataset = dcmread(file)
        if "PixelData" in dataset:
            if dataset.file_meta.TransferSyntaxUID.is_compressed:
                dataset.decompress()
            values, times = dataset.pixel_array, 512 // dataset.Rows
            dataset.PixelData = np.kron(values, np.ones((times, times), values.dtype)).tobytes()
            dataset.Rows, dataset.Columns = dataset.Rows * times, dataset.Columns * times
            dataset.PixelSpacing = [float(step) / times for step in dataset.PixelSpacing]
            dataset.compress(RLELossless)
            dataset.save_as(file)
    return out


def row(case: str, metric: str, value: float, unit: str, against: str, ratio: float) -> dict[str, Any]:
    print(f"{case:34} {metric:22} {value:12,.1f} {unit:12} {ratio:7.2f}x  {against}", flush=True)
    return {"case": case, "metric": metric, "value": value, "unit": unit, "against": against, "ratio": ratio}


def readers(place: Path, patients: int, subjects: int, turns: int) -> list[dict[str, Any]]:
    from wardround.client.connectors import IMAGE_CONNECTORS

    rows = []
    for kind in (*TABLES, *(kind for kind in PICTURES if kind in IMAGE_CONNECTORS)):
        what = "patients" if kind in TABLES else "images"
        folder = hospital(place, kind, patients if kind in TABLES else subjects)
        # So many pictures that one has text, for the search for it imports what it needs when it first looks closely.
        small = hospital(place / "small", kind, 3 if kind in TABLES else 12)
        mine, plain = beside("ours", "plain", folder, small, turns)
        rate, other = mine["count"] / mine["seconds"], plain["count"] / plain["seconds"]
        rows.append(row(kind, "speed", rate, f"{what}/s", f"plain loop {other:,.0f}: time", other / rate))
        more = f"plain loop {plain['peak']:,.0f}: memory"
        rows.append(row(kind, "peak memory", mine["peak"], "MiB", more, mine["peak"] / plain["peak"]))
        if kind == "dicom":
            large = enlarged(folder, place / "large" / "dicom" / folder.name)
            for size, at in (("128 x 128", folder), ("512 x 512, RLE", large)):
                mine, plain = beside("decoded", "plain", at, small, turns)
                case, time = f"dicom, decoding {size}", mine["seconds"] / plain["seconds"]
                rate, given = mine["count"] / mine["seconds"], time * plain["count"] / mine["count"]
                rows.append(row(case, "speed", rate, "images/s", "pydicom's loop: time for the same files", time))
                # Pictures with text are decoded and left out, so that fewer come than were read.
                rows.append(row(case, "time a picture given", 1e3 / rate, "ms", "pydicom's loop a file", given))
        if kind in ("csv", "fhir", "dicom"):
            cold = measured("cold", folder, small)
            warm = [measured("warm", folder, small) for _ in range(turns)]
            seconds = median(each["seconds"] for each in warm)
            against = f"cold {cold['seconds']:.2f} s: time"
            rows.append(row(f"{kind}, warm cache", "time", seconds * 1e3, "ms", against, seconds / cold["seconds"]))
            if kind == "dicom":
                again = measured("grown", folder, small)
                case = f"{kind}, one of {again['count']:,.0f} is new"
                rows.append(
                    row(case, "time", again["seconds"] * 1e3, "ms", against, again["seconds"] / cold["seconds"])
                )
    return rows


class Timed:
    """An engine that counts its own time; the rest of an epoch is the loading of its batches."""

    def __init__(self, engine: Any) -> None:
        self.engine, self.seconds, self.steps = engine, 0.0, 0

    def gradient_sum(self, *arguments: Any) -> Any:
        began = perf_counter()
        found = self.engine.gradient_sum(*arguments)
        self.seconds += perf_counter() - began
        self.steps += 1
        return found


def epochs() -> list[dict[str, Any]]:
    """What taking batches costs beside the steps on them, in a warm epoch of each imaging study."""
    if "WARDROUND_DATA" not in os.environ:
        print("skipped because WARDROUND_DATA is not set: lung_ct, chest_xray")
        return []
    rows = []
    for study in ("lung_ct", "chest_xray"):
        words = [f"study={study}", "privacy=none", "secagg=off", "local.batch_size=32", "local.epochs=1"]
        configuration = parse_configuration(compose_configuration(words))
        cohorts = gather(configuration).cohorts
        plan = make_plan(configuration, {c.site: c.declared_patients for c in cohorts}, datetime.now(UTC).date())
        largest = max(cohorts, key=lambda cohort: cohort.train.patients).train
        model, rule = initial_weights(plan.layout, "uniform", 1), LocalRule(learning_rate=0.1)
        engine = Timed(task_from(plan).engine)
        train_plain(engine, model, largest, rule, plan.local, b"\0" * 32)
        engine.seconds, engine.steps = 0.0, 0
        began = perf_counter()
        train_plain(engine, model, largest, rule, plan.local, b"\0" * 32)
        loading = (perf_counter() - began - engine.seconds) / engine.steps
        step = engine.seconds / engine.steps
        against = f"a step of {step * 1e3:.1f} ms: time"
        rows.append(row(f"{study}, warm epoch", "loading a batch", loading * 1e3, "ms", against, loading / step))
    return rows


def omop(place: Path) -> list[dict[str, Any]]:
    """A cohort of 100,000 persons from PostgreSQL: limits 30 s and 1 GB."""
    from _postgres import programs, running

    if programs() is None:
        print("skipped because postgres is not installed: omop, PostgreSQL")
        return []
    folder, small = hospital(place / "large", "omop", PERSONS), hospital(place / "tiny", "omop", 3)
    with running() as server:
        began = perf_counter()
        server.script(folder / "data" / "omop" / "load.sql")
        print(f"loaded into PostgreSQL in {perf_counter() - began:.0f} s")
        settings = yaml.safe_load((folder / "site.yaml").read_text())
        settings["data"][0]["path"] = f"data/{server.source(folder / 'data').name}"
        (folder / "site.yaml").write_text(yaml.safe_dump(settings))
        found = measured("ours", folder, small)
    case = f"omop, {PERSONS:,} in PostgreSQL"
    return [
        row(case, "time", found["seconds"], "s", "limit 30 s", found["seconds"] / 30),
        row(case, "peak memory", found["peak"], "MiB", "limit 1,000 MB", found["peak"] * 1.048576 / 1000),
        row(case, "patients", found["count"], "", "persons", found["count"] / PERSONS),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few patients, one turn, no database: under 60 s")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folders", type=Path, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child, *arguments.folders)
        return
    with tempfile.TemporaryDirectory(prefix="wardround-ingest-") as name:
        place = Path(name)
        small = arguments.quick
        rows = readers(place, 200 if small else 5_000, 8 if small else 100, 1 if small else TURNS) + epochs()
        if not small:
            rows += omop(place)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
