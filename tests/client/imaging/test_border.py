"""Nothing of a patient is in any byte that the site's software writes, but for the source itself."""

import base64
import json
import logging
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

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


def shown(way: bytes, content: bytes) -> bool:
    """Whether it is there, elsewhere than among the digits of a hash."""
    at = content.find(way)
    while at >= 0 and way.isdigit():
        around = re.search(rb"[0-9a-fA-F]*\Z", content[max(0, at - 64) : at])
        behind = re.match(rb"[0-9a-fA-F]*", content[at : at + 64])
        assert around is not None and behind is not None
        digits = around[0] + behind[0]
        if len(digits) < HASH or digits.isdigit():
            break
        at = content.find(way, at + 1)
    return at >= 0


def leaks(identifiers: Iterable[str], folder: Path, said: str) -> list[tuple[str, str]]:
    """(identifier, where) of everything that is found in files, their names, or what was said."""
    wanted = {each: hidings(each) for each in set(identifiers)}
    found = []
    places = {str(path.relative_to(folder)): path for path in folder.rglob("*")}
    for name, path in places.items():
        content = name.encode() + (path.read_bytes() if path.is_file() else b"")
        found += [(each, name) for each, ways in wanted.items() if any(shown(way, content) for way in ways)]
    spoken = said.encode()
    return found + [(each, "said") for each, ways in wanted.items() if any(shown(way, spoken) for way in ways)]


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
    assert shown(b"19500101", content) is found


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
