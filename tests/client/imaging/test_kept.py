"""Pictures that are made already: never opened twice, never outliving their source, and named by hash only."""

import csv
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wardround.client.connectors import dicom
from wardround.client.connectors.table import Records, joined
from wardround.client.imaging import kept as kept_module
from wardround.client.imaging.kept import KeptPictures
from wardround.client.imaging.picture import TWICE, LeftOut, Opened, each_once
from wardround.client.imaging.pixels import NOT_DECODED, UNREADABLE
from wardround.client.imaging.records import NO_LABEL, NO_PICTURE, picture_records
from wardround.client.reading import read_records
from wardround.client.settings import SiteSettings
from wardround.client.store.members import HashedId
from wardround.protocol.contract import DataContract
from wardround.protocol.errors import Unavailable

WriteDicom = Callable[..., Path]
KEY = bytes(range(32))
CONTRACT = DataContract.model_validate(
    {
        "image": {"modality": "CT", "size": [8, 8], "window": [-1000, 3000]},
        "label": {"kind": "class", "column": "sick", "meaning": "x", "positive": ["1"], "negative": ["0"]},
        "patient_id": "patient",
    }
)
PICTURES = 6


def hashed(ids: Any) -> list[bytes]:
    return [sha256(b"test" + id_.encode()).digest() for id_ in ids]


class Hospital:
    """A site's folder over ``archive``, whose label table names pictures by their file."""

    def __init__(self, folder: Path, archive: Path, connector: str = "dicom", **options: Any) -> None:
        self.folder, self.archive, self.connector, self.options = folder, archive, connector, options
        self.now, self.contract = 1e9, CONTRACT
        folder.mkdir()

    def label(self, *names: str) -> None:
        with (self.folder / "labels.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("file", "sick"), *((name, i % 2) for i, name in enumerate(names))])

    def label_all(self) -> None:
        self.label(*sorted(each.relative_to(self.archive).as_posix() for each in self.archive.rglob("*.*")))

    def read(self, kept: bool = True) -> Records:
        labels = {"path": "labels.csv", "key": "file"}
        source = {"connector": self.connector, "path": str(self.archive), "options": self.options, "labels": labels}
        settings = SiteSettings.model_validate({"data": [source]})
        store = KeptPictures(self.cache, "c" * 64, KEY, hashed, lambda: self.now) if kept else None
        return joined(read_records(settings, self.folder, self.contract, "north", store))

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    @property
    def file(self) -> Path:
        (found,) = self.cache.glob("*.pictures")
        return found

    def rows(self, table: str = "pictures") -> int:
        store = sqlite3.connect(self.file)
        (count,) = store.execute(f"SELECT count(*) FROM {table}").fetchone()
        store.close()
        return int(count)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "archive"


@pytest.fixture
def hospital(tmp_path: Path, archive: Path, write_dicom: WriteDicom) -> Hospital:
    """Six slices of three patients; all but the last two have labels."""
    for number in range(PICTURES):
        stored = np.full((16, 16), 1024 + 100 * number, np.uint16)
        write_dicom(f"Fernsby/{number}.dcm", stored, PatientID=f"P-471{number // 2}")
    made = Hospital(tmp_path / "north", archive)
    made.label_all()
    return made


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are opened, as they are."""
    found: list[str] = []
    whole = dicom.dataset_in

    def counted(file: Path) -> Any:
        found.append(file.name)
        return whole(file)

    monkeypatch.setattr(dicom, "dataset_in", counted)
    return found


def same(one: Records, two: Records) -> None:
    assert np.array_equal(one.features, two.features) and one.features.dtype == two.features.dtype
    assert np.array_equal(one.targets, two.targets) and np.array_equal(one.rows, two.rows)
    assert list(one.patients) == list(two.patients) and one.excluded == two.excluded


def test_what_is_kept_is_what_is_read_and_nothing_is_opened_twice(hospital: Hospital, opened: list[str]) -> None:
    plain = hospital.read(kept=False)
    cold = hospital.read()
    assert len(opened) == 2 * PICTURES
    warm = hospital.read()
    assert len(opened) == 2 * PICTURES and len(warm.targets) == PICTURES
    same(cold, warm)
    assert np.array_equal(plain.features, warm.features) and np.array_equal(plain.targets, warm.targets)
    assert [str(each) for each in warm.patients] == [each.hex() for each in hashed(plain.patients)]
    assert all(isinstance(each, HashedId) for each in warm.patients)


def test_of_a_source_that_has_grown_only_what_is_new_is_opened(
    hospital: Hospital, write_dicom: WriteDicom, opened: list[str]
) -> None:
    hospital.read()
    write_dicom("Fernsby/0a.dcm", PatientID="P-9")
    hospital.label_all()
    opened.clear()
    grown = hospital.read()
    assert opened == ["0a.dcm"] and len(grown.targets) == PICTURES + 1
    plain = hospital.read(kept=False)
    assert np.array_equal(grown.features, plain.features) and np.array_equal(grown.targets, plain.targets)


def test_a_picture_that_was_changed_or_removed_does_not_survive(
    hospital: Hospital, write_dicom: WriteDicom, opened: list[str]
) -> None:
    hospital.read()
    before = hospital.archive / "Fernsby/1.dcm"
    size = before.stat().st_size
    write_dicom("Fernsby/1.dcm", np.full((16, 16), 3000, np.uint16), PatientID="P-4710")
    assert before.stat().st_size == size, "only its time shows that it was written again"
    (hospital.archive / "Fernsby/4.dcm").unlink()
    opened.clear()
    found, plain = hospital.read(), hospital.read(kept=False)
    assert opened[:-5] == ["1.dcm"] and found.excluded == {NO_PICTURE: 1}
    assert np.array_equal(found.features, plain.features)
    assert hospital.rows() == hospital.rows("objects") == PICTURES - 1, "of what is gone nothing is kept"


def test_what_is_gone_leaves_the_file_too(hospital: Hospital, write_dicom: WriteDicom) -> None:
    hospital.contract = CONTRACT.model_copy(
        update={"image": CONTRACT.image.model_copy(update={"size": (256, 256)})}  # type: ignore[union-attr]
    )
    hospital.read()
    full = hospital.file.stat().st_size
    assert full > PICTURES * 256 * 256 * 4
    for number in range(1, PICTURES):
        (hospital.archive / f"Fernsby/{number}.dcm").unlink()
    hospital.read()
    assert hospital.file.stat().st_size < full / 3


def broken(monkeypatch: pytest.MonkeyPatch, at: int) -> list[str]:
    """The archive breaks off at the picture with this number, counted from 1."""
    found: list[str] = []
    whole = dicom.dataset_in

    def breaks(file: Path) -> Any:
        found.append(file.name)
        if len(found) == at:
            raise Unavailable("the drive is gone", "plug it in")
        return whole(file)

    monkeypatch.setattr(dicom, "dataset_in", breaks)
    return found


def test_a_reading_that_broke_off_goes_on_at_the_picture_where_it_broke(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch, opened: list[str]
) -> None:
    with monkeypatch.context() as patch:
        broken(patch, 4)
        with pytest.raises(Unavailable, match="drive is gone"):
            hospital.read()
    opened.clear()
    found, again = hospital.read(), hospital.read(kept=False)
    assert opened[:-PICTURES] == ["3.dcm", "4.dcm", "5.dcm"], "what was done before it is not done again"
    assert np.array_equal(found.features, again.features)


def test_a_process_that_is_killed_loses_the_picture_it_was_at_and_no_other(
    hospital: Hospital, opened: list[str]
) -> None:
    script = f"""
        import os, signal, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from pathlib import Path
        import test_kept as t
        whole, count = t.dicom.dataset_in, 0
        def killed(file):
            global count
            count += 1
            if count == 5:
                os.kill(os.getpid(), signal.SIGKILL)
            return whole(file)
        t.dicom.dataset_in = killed
        site = object.__new__(t.Hospital)
        site.folder, site.archive, site.connector = Path({str(hospital.folder)!r}), Path({str(hospital.archive)!r}), "dicom"
        site.options, site.now, site.contract = {{}}, 1e9, t.CONTRACT
        site.read()
    """  # noqa: E501
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, timeout=120)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    found = hospital.read()
    assert opened == ["4.dcm", "5.dcm"] and len(found.targets) == PICTURES
    assert np.array_equal(found.features, hospital.read(kept=False).features)


def test_many_frames_are_known_only_when_the_last_one_is(
    hospital: Hospital, write_dicom: WriteDicom, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = np.stack([np.full((16, 16), 1000 + 200 * number, np.uint16) for number in range(5)])
    write_dicom("multi.dcm", frames, NumberOfFrames=5)
    hospital.label("multi.dcm")
    made, count = kept_module.finished, 0

    def breaks(*given: Any) -> Any:
        nonlocal count
        count += 1
        if count == 3:
            raise Unavailable("stopped", "go on")
        return made(*given)

    with monkeypatch.context() as patch:
        patch.setattr(kept_module, "finished", breaks)
        with pytest.raises(Unavailable):
            hospital.read()
    whole = hospital.read()
    assert len(whole.targets) == 5 and np.array_equal(whole.features, hospital.read(kept=False).features)
    assert len(np.unique(whole.features)) == 5
    same(whole, hospital.read())


def test_of_two_files_with_one_name_the_first_counts_also_when_the_other_was_known(
    hospital: Hospital, opened: list[str]
) -> None:
    shutil.copy(hospital.archive / "Fernsby/0.dcm", hospital.archive / "Fernsby/z.dcm")
    hospital.label_all()
    assert hospital.read().excluded[TWICE] == 1
    same(hospital.read(), hospital.read())
    (hospital.archive / "Fernsby/0.dcm").unlink()
    hospital.label_all()
    found = hospital.read()
    assert TWICE not in found.excluded and len(found.targets) == PICTURES
    shutil.copy(hospital.archive / "Fernsby/z.dcm", hospital.archive / "Fernsby/0.dcm")
    hospital.label_all()
    assert hospital.read().excluded == {TWICE: 1}


def test_a_picture_is_prepared_when_it_gets_a_label_and_not_before(hospital: Hospital, opened: list[str]) -> None:
    hospital.label(*(f"Fernsby/{number}.dcm" for number in range(4)))
    assert hospital.read().excluded == hospital.read().excluded == {NO_LABEL: 2} and len(opened) == PICTURES
    hospital.label_all()
    found = hospital.read()
    assert opened[PICTURES:] == ["4.dcm", "5.dcm"] and len(found.targets) == PICTURES
    hospital.label("Fernsby/0.dcm")
    assert hospital.read().excluded == {NO_LABEL: PICTURES - 1} and len(opened) == PICTURES + 2


def test_a_label_that_changes_is_the_one_that_counts(hospital: Hospital) -> None:
    before = hospital.read().targets
    hospital.label(*(f"Fernsby/{number}.dcm" for number in reversed(range(PICTURES))))
    assert np.array_equal(hospital.read().targets, 1 - before)


def test_what_was_left_out_stays_left_out_under_its_reason_unless_the_world_was_in_the_way(
    hospital: Hospital, write_dicom: WriteDicom, monkeypatch: pytest.MonkeyPatch, opened: list[str]
) -> None:
    write_dicom("cut.dcm", PixelData=b"\0\0")
    write_dicom("no.dcm", PatientID=None)
    hospital.label_all()
    whole = Path.read_bytes

    def refuses(file: Path) -> bytes:
        if file.name == "2.dcm":
            raise PermissionError(13, "Permission denied", str(file))
        return whole(file)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refuses)
        first = hospital.read()
    assert first.excluded == {UNREADABLE: 1, NOT_DECODED: 1, "no patient id": 1}
    opened.clear()
    assert hospital.read().excluded == {NOT_DECODED: 1, "no patient id": 1} and opened == ["2.dcm"]


def test_who_is_nobody_by_the_contract_stays_nobody(hospital: Hospital, write_dicom: WriteDicom) -> None:
    write_dicom("x.dcm", PatientID="NA")
    hospital.label_all()
    assert hospital.read().excluded == hospital.read().excluded == {"patient missing": 1}


def test_the_owner_of_a_file_is_the_one_whom_the_table_names_now(tmp_path: Path, archive: Path) -> None:
    archive.mkdir()
    for number in range(2):
        Image.fromarray(np.full((16, 16), 40 + number, np.uint8)).save(archive / f"{number}.png")
    hospital = Hospital(tmp_path / "north", archive, "png", table="../whose.csv")
    hospital.label("0.png", "1.png")
    owners = []
    for owner in ("ada", "ben"):
        (tmp_path / "whose.csv").write_text(f"file,patient\n0.png,{owner}\n1.png,cid\n")
        owners.append(list(hospital.read().patients))
    assert owners == [[each.hex() for each in hashed((owner, "cid"))] for owner in ("ada", "ben")]
    assert hospital.rows() == 2


def test_a_volumes_slices_are_kept(tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nibabel

    from wardround.client.connectors import nifti

    archive.mkdir()
    values = np.arange(16 * 16 * 3, dtype=np.float32).reshape(16, 16, 3)
    nibabel.Nifti1Image(values, np.eye(4)).to_filename(archive / "sub-1.nii.gz")
    hospital = Hospital(tmp_path / "north", archive, "nifti")
    hospital.contract = CONTRACT.model_copy(
        update={"image": CONTRACT.image.model_copy(update={"modality": "OT"})}  # type: ignore[union-attr]
    )
    hospital.label("sub-1.nii.gz")
    cold = hospital.read()
    monkeypatch.setattr(nifti, "volume_in", lambda *given: pytest.fail("it was opened again"))
    same(cold, hospital.read())
    assert len(cold.targets) == 3


def test_numbers_of_the_header_are_kept_beside_a_histogram(tmp_path: Path, write_dicom: WriteDicom) -> None:
    for number in range(3):
        write_dicom(f"{number}.dcm", KVP=100 + number)
    hospital = Hospital(tmp_path / "north", tmp_path / "archive")
    hospital.contract = DataContract.model_validate(
        CONTRACT.model_dump()
        | {
            "image": {"modality": "CT", "size": [8, 8], "window": [-1000, 3000], "features": "histogram", "bins": 4},
            "columns": [{"type": "number", "name": "KVP", "meaning": "x", "unit": "kV", "minimum": 1, "maximum": 200}],
        }
    )
    hospital.label_all()
    cold = hospital.read()
    assert cold.features.shape == (3, 5) and cold.features[:, 4].tolist() == [100, 101, 102]
    same(cold, hospital.read())


def test_a_running_system_is_asked_anew_after_its_time_and_by_no_clock_that_was_turned_back(
    hospital: Hospital, opened: list[str]
) -> None:
    def read(at: float) -> int:
        store = KeptPictures(hospital.cache, "c" * 64, KEY, hashed, lambda: at)
        opened.clear()
        with store.of("archive", CONTRACT, 3600.0) as source:
            listed = dicom.read_dicom(hospital.archive, CONTRACT.image)  # type: ignore[arg-type]
            assert len(list(each_once(source.opened(each, ()) for each in listed))) == PICTURES
        return len(opened)

    assert [read(at) for at in (1000.0, 4599.0, 4600.0, 4000.0)] == [PICTURES, 0, PICTURES, PICTURES]


def test_what_was_made_otherwise_is_not_found_and_goes_when_the_reading_is_complete(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch, opened: list[str]
) -> None:
    hospital.read()
    first = hospital.file
    hospital.options = {"keep_text": True}
    opened.clear()
    with monkeypatch.context() as patch:
        broken(patch, 3)
        with pytest.raises(Unavailable):
            hospital.read()
    assert first.exists(), "a reading that broke off drops nothing"
    hospital.read()
    second = hospital.file
    assert len(opened) == PICTURES and second != first and not first.exists()
    monkeypatch.setattr(kept_module, "FORMAT", "another")
    hospital.read()
    assert len(opened) == 2 * PICTURES and hospital.file != second
    assert {each.suffix for each in hospital.cache.iterdir()} == {".pictures"}


@pytest.mark.parametrize("how", ["flipped", "of another kind", "cut", "emptied", "not a database", "moved"])
def test_what_is_damaged_is_never_used_and_the_next_reading_is_whole(hospital: Hospital, how: str) -> None:
    plain = hospital.read(kept=False)
    hospital.read()
    content = hospital.file.read_bytes()
    if how in ("flipped", "of another kind", "moved"):
        store = sqlite3.connect(hospital.file)
        if how == "of another kind":
            store.execute("UPDATE pictures SET body = x'ff' || 'Fernsby' WHERE rowid = 3")
        elif how == "flipped":
            store.execute(
                "UPDATE pictures SET body = CAST(substr(body, 1, length(body) - 1) || x'07' AS BLOB) WHERE rowid = 3"
            )
        else:
            (one, two) = (row[0] for row in store.execute("SELECT name FROM pictures LIMIT 2").fetchall())
            for old, new in ((one, b"x"), (two, one), (b"x", two)):
                store.execute("UPDATE pictures SET name = ? WHERE name = ?", (new, old))
        store.commit()
        store.close()
    else:
        end = {"cut": len(content) // 2, "emptied": 0}.get(how, len(content))
        hospital.file.write_bytes(content[:end] if how != "not a database" else b"Fernsby" * 999)
    if how == "emptied":
        found = hospital.read()
    else:
        with pytest.raises(Unavailable, match="damaged, and was thrown away") as error:
            hospital.read()
        assert "Fernsby" not in error.value.lines()
        found = hospital.read()
    assert np.array_equal(found.features, plain.features) and np.array_equal(found.targets, plain.targets)


def test_a_cache_that_cannot_be_written_is_said(hospital: Hospital) -> None:
    hospital.cache.write_text("a file, not a folder")
    with pytest.raises(Unavailable, match="cannot be written"):
        hospital.read()


def test_it_is_for_its_owner_only_and_names_nobody_and_nothing(hospital: Hospital, write_dicom: WriteDicom) -> None:
    uid = "1.2.826.0.1.3680043.8.498.99"
    write_dicom("Octavia/Quillfeather.dcm", PatientID="Quillfeather", SOPInstanceUID=uid, AccessionNumber="A-998877")
    hospital.label_all()
    former = os.umask(0)
    try:
        connection = KeptPictures(hospital.cache, "c" * 64, KEY, hashed)
        hospital.read()
        with connection.of("other", CONTRACT, None) as source:
            source.store.execute("INSERT INTO objects VALUES (x'00', 0, 'planted Quillfeather', 0, '')")
            assert all(each.stat().st_mode & 0o777 == 0o600 for each in hospital.cache.iterdir())
            assert {each.suffix for each in hospital.cache.iterdir()} >= {".pictures", ".pictures-wal"}
    finally:
        os.umask(former)
    assert hospital.cache.stat().st_mode & 0o777 == 0o700
    files = {each: each.read_bytes() for each in hospital.cache.iterdir()}
    wanted = [word.encode() for word in ("Quillfeather", "Octavia", "Fernsby", "P-4711", uid, "A-998877", ".dcm")]
    (control,) = [each for each, content in files.items() if b"planted" in content]
    assert wanted[0] in files.pop(control), "the search finds what is there"
    assert len(files) == 1 and not [word for content in files.values() for word in wanted if word in content]


def test_another_sites_key_finds_nothing(hospital: Hospital, opened: list[str]) -> None:
    hospital.read()
    other = KeptPictures(hospital.cache, "c" * 64, bytes(32), hashed)
    with other.of("\n".join(("dicom", str(hospital.archive), "{}")), CONTRACT, None) as source:
        assert source.store.execute("SELECT count(*) FROM objects").fetchone() == (PICTURES,)
        opened.clear()
        listed = dicom.read_dicom(hospital.archive, CONTRACT.image)  # type: ignore[arg-type]
        assert len(list(each_once(source.opened(each, ()) for each in listed))) == len(opened) == PICTURES


def test_memory_holds_one_picture_whatever_is_kept(tmp_path: Path, archive: Path) -> None:
    import tracemalloc

    archive.mkdir()
    rows = [("file", "patient")]
    for number in range(60):
        Image.fromarray(np.full((8, 8), number, np.uint8)).save(archive / f"{number}.png")
        rows.append((f"{number}.png", f"p{number}"))
    with (tmp_path / "whose.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    hospital = Hospital(tmp_path / "north", archive, "png", table="../whose.csv")
    hospital.contract = CONTRACT.model_copy(
        update={"image": CONTRACT.image.model_copy(update={"size": (512, 512)})}  # type: ignore[union-attr]
    )
    hospital.label(*(f"{number}.png" for number in range(60)))
    hospital.read()
    store = KeptPictures(hospital.cache, "c" * 64, KEY, hashed)
    about = "\n".join(("png", str(archive), '{"table": "../whose.csv"}'))
    from wardround.client.connectors import list_pictures

    tracemalloc.start()
    with store.of(about, hospital.contract, None) as source:
        labels = {source.hidden(f"{number}.png") for number in range(60)}
        listed = list_pictures("png", archive, hospital.contract.image, hospital.options)  # type: ignore[arg-type]
        sizes = [found.features.nbytes for found in each_once(source.opened(each, labels) for each in listed)]  # type: ignore[union-attr]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sizes == [1 << 20] * 60 and peak < 12 << 20, peak


def test_a_label_without_a_picture_is_counted_beside_a_picture_that_was_left_out_elsewhere() -> None:
    found: Iterator[LeftOut] = iter((LeftOut("empty file", "x.dcm"),))
    (records,) = picture_records(found, {"a.dcm": {"sick": "1"}}, CONTRACT, "north")
    assert Counter(records.excluded) == {"empty file": 1, NO_PICTURE: 1}


def test_of_two_with_one_name_the_second_is_not_opened() -> None:
    def never() -> Iterator[str]:
        pytest.fail("it was opened")
        yield ""

    found = each_once(
        [Opened("a", iter("1"), "n"), Opened("b", never(), "n"), Opened("c", iter("2")), Opened("d", iter("3"))]
    )
    assert list(found) == ["1", LeftOut(TWICE, "b"), "2", "3"]
