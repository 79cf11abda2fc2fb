"""Nothing of a patient is in any byte that the site's software writes, but for the source itself."""

import base64
import json
import logging
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from wardround.client.admission import admit, cohort_of
from wardround.client.cache import CACHE, FeatureCache
from wardround.client.connectors.dicom import NOT_DICOM
from wardround.client.imaging.pixels import TEXT
from wardround.client.reading import patients_in, read_records
from wardround.client.settings import read_settings
from wardround.client.store.database import open_store
from wardround.client.store.folder import SiteFolder
from wardround.client.store.members import Members
from wardround.conf.compose import compose_configuration
from wardround.conf.planning import make_plan
from wardround.conf.schema import parse_configuration
from wardround.protocol.contract import DataContract
from wardround.protocol.identity import Identity
from wardround.simulations.synthetic.cohort import make_cohort

SHORTEST, FEWEST_DIGITS = 6, 8
"""Shorter identifiers occur by chance, among the bytes of pixels."""

HASH = 16
"""Hexadecimal digits of a hash, a key or a signature at least: eight of them are a date of birth now and then."""


def hidings(identifier: str) -> list[bytes]:
    """The ways in which an identifier may lie in a file."""
    words = {identifier, identifier.upper(), identifier.lower(), *identifier.replace("^", " ").split()}
    plain = [word for word in words if len(word) >= (FEWEST_DIGITS if word.isdigit() else SHORTEST)]
    found = [word.encode(code) for word in plain for code in ("utf-8", "utf-16-le", "utf-16-be")]
    return found + [base64.b64encode(word.encode())[:-3] for word in plain if len(word) > 8]


def of_a_hash(content: bytes, at: int, number: bytes) -> bool:
    """Whether the number at this place is a part of a long run of hexadecimal digits, some of which are letters."""
    before = re.search(rb"[0-9a-fA-F]*\Z", content[max(0, at - 64) : at])
    behind = re.match(rb"[0-9a-fA-F]*", content[at : at + 64])
    assert before is not None and behind is not None
    digits = before[0] + behind[0]
    return number.isdigit() and len(digits) >= HASH and not digits.isdigit()


class Search:
    """For many identifiers in one pass over a content: by their first three bytes, and where these are, by all."""

    def __init__(self, identifiers: Iterable[str]) -> None:
        self._begins = np.zeros(1 << 24, np.bool_)
        self._ways: dict[bytes, list[tuple[str, bytes]]] = defaultdict(list)
        for each in set(identifiers):
            for way in hidings(each):
                self._ways[way[:3]].append((each, way))
                self._begins[int.from_bytes(way[:3], "little")] = True

    def __call__(self, content: bytes) -> set[str]:
        """The identifiers that are there, elsewhere than among the digits of a hash."""
        codes = np.frombuffer(content, np.uint8).astype(np.uint32)
        places = np.flatnonzero(self._begins[codes[:-2] | codes[1:-1] << 8 | codes[2:] << 16]) if len(codes) > 2 else []
        return {
            each
            for at in map(int, places)
            for each, way in self._ways[content[at : at + 3]]
            if content.startswith(way, at) and not of_a_hash(content, at, way)
        }


def leaks(identifiers: Iterable[str], folder: Path, said: str) -> list[tuple[str, str]]:
    """(identifier, where) of everything that is found in files, their names, or what was said."""
    search, found = Search(identifiers), [("said", said.encode())]
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        found.append((name, name.encode() + (path.read_bytes() if path.is_file() else b"")))
    return [(each, where) for where, content in found for each in search(content)]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"born 19500101.", True),
        (b"a19500101", True),
        (b"1950010119991231", True),
        (b"19500101" * 4, True),
        (b"key 3fe819500101aa07c1 and", False),
        (b"3fe819500101aa07c1 and 19500101", True),
        (b"ab" * 40 + b"19500101", False),
        (b"1950010", False),
    ],
)
def test_a_number_is_found_unless_it_is_of_a_hash(content: bytes, found: bool) -> None:
    assert Search(["19500101", "Quillfeather"])(content) == ({"19500101"} if found else set())


def test_the_search_finds_what_looking_for_each_in_turn_finds() -> None:
    random = np.random.Generator(np.random.PCG64(9))
    identifiers = {bytes(random.integers(97, 123, 6 + n % 7).astype(np.uint8)).decode() for n in range(300)}
    hidden = [way for each in sorted(identifiers)[::5] for way in hidings(each)[:: 1 + len(each) % 3]]
    content = b"".join(random.bytes(50) + way for way in hidden)
    expected = {each for each in identifiers if any(way in content for way in hidings(each))}
    assert Search(identifiers)(content) == expected and len(expected) == 60


@pytest.fixture
def hospital(tmp_path: Path) -> Callable[[Path, Path, str], tuple[SiteFolder, str]]:
    """Makes a hospital's folder over an archive, admits its patients and opens the study; returns what was said too."""

    def make(archive: Path, labels: Path, key: str) -> tuple[SiteFolder, str]:
        folder = SiteFolder.create(tmp_path / "pitt", "pitt", [Identity.generate("anna").public])
        source = {"connector": "dicom", "path": str(archive), "labels": {"path": str(labels), "key": key}}
        (folder.path / "site.yaml").write_text(json.dumps({"data": [source]}))
        settings, store = read_settings(folder.path), open_store(folder.database)
        members = Members(store, folder.patients_key())
        admit(folder, settings, members, "patient")
        configuration = parse_configuration(compose_configuration(["study=lung_ct", "privacy.delta=auto"]))
        plan = make_plan(configuration, dict.fromkeys(("pitt", "unc", "washu"), 50), datetime.now(UTC).date())
        cohort = cohort_of(plan, folder, settings, members)
        assert cohort.train.patients + cohort.test.patients > 3
        store.close()
        return folder, repr(cohort) + str(cohort.excluded) + cohort.split_hash

    return make


def test_no_planted_identifier_is_found_outside_the_archive(
    wardround_data: Path,
    hospital: Callable[[Path, Path, str], tuple[SiteFolder, str]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    recwarn: pytest.WarningsRecorder,
) -> None:
    caplog.set_level(logging.DEBUG)
    real = wardround_data / "lung_ct_dicom"
    labels = tmp_path / "labels.csv"
    rows = [line.split(",") for line in (real / "labels.csv").read_text().splitlines()]
    # The label table is a source too, and lies outside the site's folder like the archive.
    labels.write_text("file,contrast\n" + "".join(f"{r[0].removeprefix('dicom/')},{r[3]}\n" for r in rows[1:]))
    folder, said = hospital(real / "dicom", labels, "file")
    manifest = json.loads((real / "phi_manifest.json").read_text())
    identifiers = {
        each for found in manifest.values() for each in (*found["planted"].values(), *found["path_parts"])
    }  # fmt: skip
    assert len(identifiers) > 500
    warned = "".join(str(warning.message) for warning in recwarn)
    assert (folder.path / CACHE).is_dir()
    assert leaks(identifiers, folder.path, said + caplog.text + warned) == []
    # The search finds what is there: a cache that kept ids, a name in a log, a folder that is called like a patient.
    some = sorted(found["planted"]["PatientID"] for found in manifest.values())[0]
    (folder.path / CACHE / "ids.json").write_text(json.dumps([some]))
    (folder.path / "Quillfeather").mkdir()
    found = leaks(identifiers, folder.path, f"slice of {some} left out")
    assert {where for _, where in found} >= {f"{CACHE}/ids.json", "Quillfeather", "said"}


def test_invented_patients_are_not_found_either(
    write_dicom: Callable[..., Path],
    hospital: Callable[[Path, Path, str], tuple[SiteFolder, str]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    lines = ["file,contrast"]
    for number in range(20):
        write_dicom(
            f"Fernsby_{number}/{number}.dcm",
            PatientID=f"MRN-{number:07}",
            PatientName="Fernsby^Octavia",
            PatientBirthDate="19610531",
            AdditionalPatientHistory="lives at 12 Elm Road, smoker",
        )
        lines.append(f"Fernsby_{number}/{number}.dcm,{number % 2}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    folder, said = hospital(tmp_path / "archive", tmp_path / "labels.csv", "file")
    identifiers = [f"MRN-{number:07}" for number in range(20)] + ["Fernsby^Octavia", "19610531", "12 Elm Road, smoker"]
    assert leaks(identifiers, folder.path, said + caplog.text) == []


@pytest.mark.parametrize("kind", ["ct-series", "mri"])
def test_no_planted_identifier_of_a_series_is_found_outside_the_archive(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    """Volumes of a synthetic hospital: from the archive through the cache to a cohort, and what is left out."""
    caplog.set_level(logging.DEBUG)
    make_cohort(tmp_path / "made", format="dicom", kind=kind, sites=1, patients=12)
    # The source lies outside the site's folder, which is searched to the last byte.
    archive = (tmp_path / "made" / "north").rename(tmp_path / "archive")
    (archive / "data" / "dicom" / "broken.dcm").write_bytes(b"Quillfeather" * 40)
    manifest = json.loads((archive / "phi_manifest.json").read_text())
    identifiers = {each for found in manifest.values() for each in (*found["planted"].values(), *found["path_parts"])}
    assert len(identifiers) > 200
    folder = tmp_path / "site"
    folder.mkdir()
    source = {
        "connector": "dicom",
        "path": str(archive / "data" / "dicom"),
        "labels": {"path": str(archive / "data" / "labels.csv"), "key": "file"},
    }
    (folder / "site.yaml").write_text(json.dumps({"data": [source]}))
    contract = DataContract.model_validate_json((tmp_path / "made" / "contract.json").read_bytes())
    store, settings = open_store(folder / "site.db"), read_settings(folder)
    members = Members(store, b"\1" * 32)
    assert members.admit(patients_in(settings, folder, "patient"), test_share=0.25) == 12
    cohort = FeatureCache(folder, "north").cohort(
        "0" * 32, "state", lambda: read_records(settings, folder, contract, "north"), members
    )
    store.close()
    assert cohort.train.patients + cohort.test.patients == 11 and (folder / CACHE).is_dir()
    assert cohort.excluded == {TEXT: 1, NOT_DICOM: 1}
    said = repr(cohort) + str(cohort.excluded) + caplog.text + "".join(str(each.message) for each in recwarn)
    assert leaks(identifiers | {"Quillfeather"}, folder, said) == []
    # The search finds what is there.
    some = next(iter(manifest.values()))["planted"]["PatientName"]
    (folder / CACHE / "names.json").write_text(json.dumps([some]))
    assert leaks(identifiers, folder, said) != []


def test_the_archive_is_only_read(
    write_dicom: Callable[..., Path], hospital: Callable[[Path, Path, str], tuple[SiteFolder, str]], tmp_path: Path
) -> None:
    for number in range(12):
        write_dicom(f"{number}.dcm", PatientID=f"MRN-{number:07}")
    (tmp_path / "labels.csv").write_text("file,contrast\n" + "".join(f"{n}.dcm,{n % 2}\n" for n in range(12)))
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in (tmp_path / "archive").rglob("*.dcm")}
    hospital(tmp_path / "archive", tmp_path / "labels.csv", "file")
    assert before == {
        p: (p.stat().st_mtime_ns, p.read_bytes()) for p in (tmp_path / "archive").rglob("*") if p.is_file()
    }
