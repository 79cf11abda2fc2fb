"""DICOMweb: a real Orthanc gives what the folder gives, and an archive that fails loses nothing and tells nothing."""

import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _orthanc import PASSWORD, Orthanc, running

from wardround.client.connectors import picture_patients, read_pictures
from wardround.client.connectors.dicomweb import NOT_GIVEN
from wardround.client.connectors.table import Records, joined
from wardround.client.imaging.kept import KeptPictures
from wardround.client.imaging.picture import LeftOut, Picture
from wardround.client.imaging.pixels import OTHER_MODALITY, TEXT
from wardround.client.imaging.prepare import features_of
from wardround.client.reading import read_records
from wardround.client.settings import SiteSettings
from wardround.protocol.contract import DataContract, ImageInput
from wardround.protocol.errors import Unavailable, UsageError, WardroundError
from wardround.simulations.synthetic.cohort import make_cohort

IMAGE = ImageInput(modality="CT", size=(8, 8), window=(-160, 240))

archive_server = pytest.mark.server("orthanc")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic hospital's DICOM tree, with planted identifiers."""
    place = tmp_path_factory.mktemp("dicom") / "made"
    make_cohort(place, format="dicom", sites=1, patients=12)
    return place / "north"


@pytest.fixture(scope="module")
def orthanc(folder: Path) -> Iterator[Orthanc]:
    with running() as server:
        files = sorted((folder / "data" / "dicom").rglob("*.dcm"))
        assert server.store(files) == len(files)
        yield server


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    return waited


def read(source: Path, image: ImageInput = IMAGE, **options: Any) -> list[Picture | LeftOut]:
    return list(read_pictures("dicomweb", source, image, options))


def by_key(found: list[Picture | LeftOut]) -> dict[str, Picture]:
    return {one.key: one for one in found if isinstance(one, Picture)}


@archive_server
def test_the_archive_gives_the_pictures_that_the_folder_gives(orthanc: Orthanc, folder: Path, tmp_path: Path) -> None:
    ours = read(orthanc.source(tmp_path))
    theirs = list(read_pictures("dicom", folder / "data" / "dicom", IMAGE, {"labels_by": "sop"}))
    one, two = by_key(ours), by_key(theirs)
    assert one.keys() == two.keys() and len(one) > 10
    for key, picture in one.items():
        assert picture.patient == two[key].patient and picture.numbers == two[key].numbers
        assert picture.spacing == two[key].spacing
        assert np.array_equal(picture.pixels, two[key].pixels, equal_nan=True)
    assert Counter(one.reason for one in ours if isinstance(one, LeftOut)) == Counter(
        one.reason for one in theirs if isinstance(one, LeftOut)
    )


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same heads in MRI as DICOM series and as NIfTI files, of a hospital that takes sagittal slices."""
    place = tmp_path_factory.mktemp("heads")
    for format in ("dicom", "nifti"):
        make_cohort(place / format, format=format, kind="mri", sites=2, patients=9)
    return {format: place / format / "south" / "data" / format for format in ("dicom", "nifti")}


@archive_server
def test_volumes_of_the_archive_are_those_of_the_folder_and_of_nifti_files(
    heads: dict[str, Path], tmp_path: Path
) -> None:
    image = ImageInput(modality="MR", size=(24, 64, 64), window=(0, 800), orientation="LPS")
    with running() as server:
        files = sorted(heads["dicom"].rglob("*.dcm"))
        assert server.store(files) == len(files)
        ours = read(server.source(tmp_path), image, labels_by="series")
    theirs = list(read_pictures("dicom", heads["dicom"], image, {"labels_by": "series"}))
    one, two = by_key(ours), by_key(theirs)
    assert one.keys() == two.keys() and len(one) == 8
    stored = list(read_pictures("nifti", heads["nifti"] / "images", image, {}))
    whole = {picture.patient: features_of(picture, image) for picture in stored if isinstance(picture, Picture)}
    for key, picture in one.items():
        features = features_of(picture, image)
        assert np.array_equal(features, features_of(two[key], image))
        # DICOM holds whole numbers, and 800 units become 2.
        assert np.abs(features - whole[picture.patient]).max() < 2 * 1.01 / 800
    for found in (ours, theirs):
        assert Counter(each.reason for each in found if isinstance(each, LeftOut)) == {TEXT: 1}


@archive_server
def test_a_slice_that_is_not_given_leaves_the_whole_series_out(heads: dict[str, Path], tmp_path: Path) -> None:
    image = ImageInput(modality="MR", size=(24, 64, 64), window=(0, 800), orientation="LPS")
    with running() as server:
        # The ninth patient's series has letters in it and is out in any case.
        clean = {file.parent for file in heads["dicom"].rglob("*.dcm") if not file.parent.name.endswith("0000009")}
        for folder in sorted(clean)[:2]:
            server.store(sorted(folder.iterdir()))
        relay = Relay(server)
        relay.fails, relay.status = {20}, 404
        with fake(relay) as url:
            found = read(server.source(tmp_path, url=url), image, labels_by="patient")
    assert len(by_key(found)) == 1
    assert [each.reason for each in found if isinstance(each, LeftOut)] == [NOT_GIVEN]


def test_a_slice_names_no_volume(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="names slices"):
        read(tmp_path / "archive.yaml", ImageInput(modality="MR", size=(8, 8, 8), window=(0, 1)))


@archive_server
def test_a_search_chooses_studies_and_a_label_can_be_any_field(orthanc: Orthanc, tmp_path: Path) -> None:
    source = orthanc.source(tmp_path)
    whole = read(source, labels_by="patient")
    assert {one.key for one in whole if isinstance(one, Picture)} == {
        one.patient for one in whole if isinstance(one, Picture)
    }
    patient = next(one.patient for one in whole if isinstance(one, Picture))
    chosen = read(source, search={"PatientID": patient})
    assert {one.patient for one in chosen if isinstance(one, Picture)} == {patient}
    assert read(source, search={"StudyDate": "19000101-19000102"}) == []
    other = read(source, ImageInput(modality="MR", size=(8, 8), window=(0, 1)))
    assert {one.reason for one in other if isinstance(one, LeftOut)} >= {OTHER_MODALITY}
    assert not by_key(other)


@archive_server
def test_patients_are_listed_without_fetching_an_instance(orthanc: Orthanc, folder: Path, tmp_path: Path) -> None:
    relay = Relay(orthanc)
    with fake(relay) as url:
        found = set(picture_patients("dicomweb", orthanc.source(tmp_path, url=url), {}))
    assert found == set(picture_patients("dicom", folder / "data" / "dicom", {})) and len(found) == 12
    assert relay.asked == 0


@archive_server
def test_pages_are_read_to_their_end(orthanc: Orthanc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wardround.client.connectors import archive

    whole = by_key(read(orthanc.source(tmp_path))).keys()
    monkeypatch.setattr(archive, "PAGE", 3)
    assert by_key(read(orthanc.source(tmp_path))).keys() == whole


@archive_server
def test_an_archive_that_gives_less_than_it_is_asked_for_is_read_to_its_end(orthanc: Orthanc, tmp_path: Path) -> None:
    whole, relay = by_key(read(orthanc.source(tmp_path))).keys(), Relay(orthanc)
    with fake(lambda path: relay(path.replace("limit=200", "limit=2"))) as url:
        assert by_key(read(orthanc.source(tmp_path, url=url))).keys() == whole


@archive_server
def test_a_wrong_password_is_refused_in_words(orthanc: Orthanc, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="refuses the user") as error:
        read(orthanc.source(tmp_path, password="wrong"))
    assert PASSWORD not in error.value.lines() and "wrong" not in error.value.lines()


@archive_server
def test_no_planted_identifier_reaches_a_log_or_a_repr(
    orthanc: Orthanc, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = json.loads((folder / "phi_manifest.json").read_text())
    values = {str(value) for one in manifest.values() for value in one["planted"].values()}
    planted = {value for value in values if len(value) >= 6}
    assert len(planted) > 50
    with caplog.at_level(logging.DEBUG):
        found = read(orthanc.source(tmp_path))
        with pytest.raises(Unavailable), fake(lambda path: (503, b"", "text/plain")) as url:
            read(orthanc.source(tmp_path, url=url))
    text = caplog.text + repr(found)
    assert not [value for value in planted if value in text]
    assert not [one.place for one in found if isinstance(one, LeftOut) and one.place and one.place in text]


Answer = Callable[[str], tuple[int, bytes, str]]


@contextmanager
def fake(answer: Answer, redirect: str = "") -> Iterator[str]:
    """A server that answers as it is told: status, body and type for each path with its query."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body, kind = answer(self.path)
            self.send_response(status)
            if redirect:
                self.send_header("Location", redirect)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/dicom-web"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Relay:
    """Passes everything on to the archive, until it is told otherwise."""

    def __init__(self, orthanc: Orthanc) -> None:
        self.orthanc, self.instances, self.status, self.fails = orthanc, Counter[str](), 500, set[int]()
        self.asked = 0

    def __call__(self, path: str) -> tuple[int, bytes, str]:
        import requests

        if "/instances/" in path:
            self.asked += 1
            self.instances[path] += 1
            if self.asked in self.fails:
                return self.status, b"Quillfeather 1.2.3.4", "text/plain"
        answer = requests.get(
            f"http://127.0.0.1:{self.orthanc.port}{path}", auth=("reader", PASSWORD.encode()), timeout=30,
            headers={"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}
            if "/instances/" in path else {"Accept": "application/dicom+json"},
        )  # fmt: skip
        return answer.status_code, answer.content, answer.headers.get("Content-Type", "")


@archive_server
def test_an_archive_that_fails_half_way_is_asked_again_for_the_same_instance(
    orthanc: Orthanc, tmp_path: Path, no_waiting: list[float]
) -> None:
    whole, relay = by_key(read(orthanc.source(tmp_path))), Relay(orthanc)
    relay.fails = {5, 6, 9}
    with fake(relay) as url:
        found = by_key(read(orthanc.source(tmp_path, url=url)))
    assert found.keys() == whole.keys(), "nothing is lost"
    assert sorted(relay.instances.values())[-2:] == [2, 3] and no_waiting == [1.0, 2.0, 1.0]


@archive_server
def test_an_archive_that_stays_broken_ends_the_reading_with_an_error(
    orthanc: Orthanc, tmp_path: Path, no_waiting: list[float]
) -> None:
    relay = Relay(orthanc)
    relay.fails = set(range(5, 1000))
    with fake(relay) as url, pytest.raises(Unavailable, match="status 500") as error:
        read(orthanc.source(tmp_path, url=url))
    assert no_waiting == [1.0, 2.0, 4.0, 8.0] and "nothing of this one is used" in error.value.hint
    assert "Quillfeather" not in error.value.lines() and "1.2." not in error.value.lines()


@archive_server
def test_what_is_listed_and_not_given_is_counted(orthanc: Orthanc, tmp_path: Path) -> None:
    relay = Relay(orthanc)
    relay.fails, relay.status = {2, 7}, 404
    with fake(relay) as url:
        found = read(orthanc.source(tmp_path, url=url))
    assert Counter(one.reason for one in found if isinstance(one, LeftOut))[NOT_GIVEN] == 2


@pytest.mark.parametrize(
    ("status", "body", "kind", "fault", "words"),
    [
        (200, b"<html>login</html>", "text/html", UsageError, "not DICOMweb"),
        (200, b"[1, 2]", "application/dicom+json", UsageError, "not DICOMweb"),
        (200, b'[{"0020000D": {"Value": 7}}]', "application/dicom+json", UsageError, "not DICOMweb"),
        (200, b'{"a": 1}', "application/dicom+json", UsageError, "not DICOMweb"),
        (400, b"Quillfeather", "text/plain", UsageError, "status 400"),
        (403, b"", "text/plain", UsageError, "refuses the user"),
        (429, b"", "text/plain", Unavailable, "status 429"),
    ],
)
def test_what_is_no_dicomweb_is_said_in_words(
    status: int, body: bytes, kind: str, fault: type[WardroundError], words: str, tmp_path: Path
) -> None:
    with fake(lambda path: (status, body, kind)) as url:
        source = Orthanc(1).source(tmp_path, url=url)
        with pytest.raises(fault, match=words) as error:
            read(source)
        assert "Quillfeather" not in error.value.lines()


def test_credentials_follow_no_redirect_and_cross_no_network_in_the_clear(tmp_path: Path) -> None:
    reached: list[str] = []

    def other(path: str) -> tuple[int, bytes, str]:
        reached.append(path)
        return 200, b"[]", "application/dicom+json"

    with (
        fake(other) as elsewhere,
        fake(lambda path: (302, b"", "text/plain"), redirect=elsewhere) as url,
        pytest.raises(UsageError, match="sends to another address"),
    ):
        read(Orthanc(1).source(tmp_path, url=url))
    assert not reached
    with pytest.raises(UsageError, match="in the clear"):
        read(Orthanc(1).source(tmp_path, url="http://pacs.example.org/dicom-web"))


def test_an_archive_that_is_not_there_is_the_worlds_fault(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="cannot be reached"):
        read(Orthanc(1).source(tmp_path))


def test_a_file_that_describes_no_archive_is_refused(tmp_path: Path) -> None:
    for text in ("url: ftp://x", "user: a\nurl: http://127.0.0.1:1", "url: http://127.0.0.1:1\nmore: 1", "]["):
        (tmp_path / "a.yaml").write_text(text)
        with pytest.raises(UsageError, match="does not describe an archive"):
            read(tmp_path / "a.yaml")
    with pytest.raises(UsageError, match=r"no file 'none\.yaml'"):
        read(tmp_path / "none.yaml")
    open_to_all = Orthanc(1).source(tmp_path)
    (tmp_path / "pacs.password").chmod(0o644)
    with pytest.raises(UsageError, match="others may read the password file"):
        read(open_to_all)
    with pytest.raises(UsageError, match="not a way to name a picture"):
        read(open_to_all, labels_by="file")
    with pytest.raises(UsageError, match="cannot be chosen by"):
        read(open_to_all, search={"PatientName": "x"})


CONTRACT = DataContract.model_validate(
    {
        "image": {"modality": "CT", "size": [8, 8], "window": [-160, 240]},
        "label": {"kind": "class", "column": "sick", "meaning": "x", "positive": ["1"], "negative": ["0"]},
        "patient_id": "patient",
    }
)


def study_through(orthanc: Orthanc, folder: Path) -> Callable[..., Records]:
    """Reads a study's records through an archive's address, keeping what is made; every picture of CT has a label."""

    def reading(url: str, keep: bool = True, at: float = 1e9) -> Records:
        uids = sorted(by_key(read(orthanc.source(folder))))
        (folder / "labels.csv").write_text("file,sick\n" + "".join(f"{uid},{n % 2}\n" for n, uid in enumerate(uids)))
        source = {"connector": "dicomweb", "path": orthanc.source(folder, url=url).name}
        settings = SiteSettings.model_validate({"data": [source | {"labels": {"path": "labels.csv", "key": "file"}}]})
        kept = KeptPictures(folder / "cache", "c" * 64, bytes(32), _hashed, lambda: at)
        return joined(read_records(settings, folder, CONTRACT, "north", kept if keep else None))

    return reading


def _hashed(ids: Iterable[str]) -> list[bytes]:
    return [sha256(id_.encode()).digest() for id_ in ids]


@pytest.fixture
def study(orthanc: Orthanc, tmp_path: Path) -> Callable[..., Records]:
    return study_through(orthanc, tmp_path)


@archive_server
def test_a_reading_that_broke_off_half_way_asks_for_no_instance_again_that_it_had(
    orthanc: Orthanc, study: Callable[..., Records]
) -> None:
    with fake(whole := Relay(orthanc)) as url:
        plain = study(url, keep=False)
    half, relay = whole.asked // 2, Relay(orthanc)
    assert half > 5
    relay.fails = set(range(half, 10_000))
    with fake(relay) as url:
        with pytest.raises(Unavailable, match="status 500"):
            study(url)
        assert relay.asked == half + 4, "the instance at which it broke was asked for five times"
        relay.fails = set()
        found = study(url)
        assert Counter(relay.instances.values()) == {1: whole.asked - 1, 6: 1}
        assert np.array_equal(found.features, plain.features) and np.array_equal(found.targets, plain.targets)
        assert found.excluded == plain.excluded
        study(url)
        assert relay.asked == whole.asked + 5, "and nothing at all when it is read once more"
        study(url, at=1e9 + 24 * 3600)
        assert relay.asked == 2 * whole.asked + 5, "but for an archive whose keep_hours are over"


@archive_server
def test_what_an_archive_lists_and_does_not_give_is_asked_for_next_time(
    orthanc: Orthanc, study: Callable[..., Records]
) -> None:
    relay = Relay(orthanc)
    relay.fails, relay.status = {3}, 404
    with fake(relay) as url:
        assert study(url).excluded[NOT_GIVEN] == 1
        asked = relay.asked
        assert NOT_GIVEN not in study(url).excluded and relay.asked == asked + 1


@archive_server
def test_a_study_that_the_archive_gives_to_another_patient_is_fetched_again(
    orthanc: Orthanc, study: Callable[..., Records]
) -> None:
    relay, owner = Relay(orthanc), ""

    def answer(path: str) -> tuple[int, bytes, str]:
        status, body, kind = relay(path)
        if owner and path.split("?")[0].endswith("/studies"):
            rows = json.loads(body)
            if rows:
                rows[0]["00100020"]["Value"] = [owner]
            body = json.dumps(rows).encode()
        return status, body, kind

    with fake(answer) as url:
        study(url)
        before, owner = relay.instances.copy(), "somebody else"
        study(url)
    again = relay.instances - before
    assert 0 < len(again) < len(before)
    assert len({path.split("/studies/")[1].split("/")[0] for path in again}) == 1


@archive_server
def test_an_archive_that_grows_and_loses_a_study_is_read_as_it_is_now(folder: Path, tmp_path: Path) -> None:
    import requests

    files = sorted((folder / "data" / "dicom").rglob("*.dcm"))
    with running() as server:
        assert server.store(files[:-1]) == len(files) - 1
        read_study = study_through(server, tmp_path)
        relay = Relay(server)
        with fake(relay) as url:
            first = read_study(url)
            asked = relay.asked
            server.store(files[-1:])
            second = read_study(url)
            assert relay.asked == asked + 1 and len(second.targets) == len(first.targets) + 1
            auth = ("reader", PASSWORD.encode())
            base = f"http://127.0.0.1:{server.port}/studies"
            gone = requests.get(base, auth=auth, timeout=30).json()[0]
            requests.delete(f"{base}/{gone}", auth=auth, timeout=30)
            third = read_study(url)
            assert relay.asked == asked + 1 and len(third.targets) < len(second.targets)
            plain = read_study(url, keep=False)
        assert np.array_equal(third.features, plain.features)
