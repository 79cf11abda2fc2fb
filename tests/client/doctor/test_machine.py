"""This machine: a folder in order gives no complaint, and each fault is found by its own check and by no other."""

import itertools
import os
import shutil
import socket
import sqlite3
import stat
import subprocess
import sys
import tempfile
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from openpyxl import Workbook
from pyarrow import parquet

from wardround.client.connectors import CONNECTORS, IMAGE_CONNECTORS
from wardround.client.doctor import LOCAL, Examined, Finding, State, TableAt, examined_from, local, rights, sources

OK, WARNING, FAILED = State.OK, State.WARNING, State.FAILED
Folders = tuple[Path, Path]


def looked(examined: Examined) -> dict[str, State]:
    """The worst state of each check of this machine and of what reading found; without torch, which takes seconds."""
    found = list(examined.found)
    for check in (
        local.check_user,
        local.check_umask,
        rights.check_site_folder,
        rights.check_link_folder,
        rights.check_separation,
        local.check_ledger,
        local.check_witnesses,
        sources.check_data,
        rights.check_data_rights,
        sources.check_opt_outs,
        local.check_port,
        local.check_disk,
        local.check_memory,
    ):
        found += check(examined)
    order = list(State).index
    return {
        name: max((f.state for f in found if f.check == name), key=order)
        for name in {finding.check for finding in found}
    }


def complaints(site: Path | None, link: Path | None = None) -> dict[str, State]:
    """What is not in order."""
    return {name: state for name, state in looked(examined_from(link, site)).items() if state is not OK}


def one(found: Iterator[Finding]) -> Finding:
    """The only finding."""
    (only,) = found
    return only


@pytest.fixture
def settings(folders: Folders) -> Callable[[str], None]:
    """Write another site.yaml; the link stays."""

    def write(text: str) -> None:
        (folders[0] / "site.yaml").write_text(f"link: ../north-link\n{text}", encoding="utf-8")

    return write


def test_folders_in_order_give_no_complaint_and_every_check_speaks(folders: Folders) -> None:
    site, _ = folders
    found = looked(examined_from(None, site))
    assert found == dict.fromkeys(set(LOCAL) - {"feeds", "torch", "doctor"}, OK), "it has no feed"


def test_the_supernodes_user_may_examine_its_own_folder_alone(folders: Folders) -> None:
    found = looked(examined_from(folders[1], None))
    wanted = {"link", "user", "umask", "link-folder", "separation", "runtime-port", "disk", "memory"}
    assert found == dict.fromkeys(wanted, OK)


def test_examining_changes_nothing(folders: Folders) -> None:
    def state() -> dict[str, tuple[int, int, bytes]]:
        files = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
        return {str(p): (p.stat().st_mode, p.stat().st_uid, p.read_bytes()) for p in files if "-shm" not in p.name}

    before = state()
    looked(examined_from(None, folders[0]))
    assert state() == before


@pytest.mark.parametrize(
    ("name", "mode", "check"),
    [
        ("north", 0o750, "site-folder"),
        ("north/keys/site.pem", 0o640, "site-folder"),
        ("north/keys/patients.key", 0o604, "site-folder"),
        ("north-link", 0o701, "link-folder"),
        ("north-link/node_key", 0o604, "link-folder"),
        ("north-link/superexec.secret", 0o604, "link-folder"),
    ],
)
def test_a_right_too_many_is_found(name: str, mode: int, check: str, folders: Folders) -> None:
    (folders[0].parent / name).chmod(mode)
    assert complaints(folders[0]) == {check: FAILED}


def test_the_daemons_group_may_read_the_link_folder(folders: Folders) -> None:
    folders[1].chmod(0o750)
    (folders[1] / "superexec.secret").chmod(0o640)
    assert complaints(folders[0]) == {}


@pytest.mark.parametrize("name", ["site.pem", "replies.key", "patients.key"])
def test_a_missing_key_is_found(name: str, folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    (folders[0] / "keys" / name).unlink()
    assert complaints(folders[0]) == {"site-folder": FAILED}
    monkeypatch.setenv("WARDROUND_REPLIES_KEY", "00" * 32)
    assert complaints(folders[0]) == ({} if name == "replies.key" else {"site-folder": FAILED})


@pytest.mark.parametrize("name", ["node_key", "superexec.secret"])
def test_a_missing_file_of_the_link_folder_is_found(name: str, folders: Folders) -> None:
    (folders[1] / name).unlink()
    assert complaints(folders[0]) == {"link-folder": FAILED}


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("keys/site.pem", "site.pem"),
        ("keys/site.pem", "notes"),
        ("keys/replies.key", "notes"),
        ("keys/patients.key", "notes"),
        ("ledger.sqlite", "ledger.sqlite"),
    ],
)
def test_a_key_of_the_site_in_the_link_folder_is_found_under_any_name(key: str, name: str, folders: Folders) -> None:
    shutil.copy(folders[0] / key, folders[1] / "logs" / name)
    assert complaints(folders[0]) == {"separation": FAILED}


def test_a_link_into_the_sites_folder_is_followed(folders: Folders) -> None:
    (folders[1] / "shortcut").symlink_to(folders[0] / "keys" / "replies.key")
    assert complaints(folders[0]) == {"separation": FAILED}


def test_a_link_folder_inside_the_sites_folder_is_found(folders: Folders) -> None:
    inside = folders[0] / "link"
    folders[1].rename(inside)
    assert complaints(folders[0], inside) == {"separation": FAILED}


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A folder that everybody may enter; pytest's own are closed."""
    place = Path(tempfile.mkdtemp(prefix="wardround-rights-"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


@pytest.mark.parametrize(("folder", "file", "state"), [(0o755, 0o644, WARNING), (0o755, 0o640, OK), (0o750, 0o644, OK)])
def test_data_that_everybody_may_read_is_a_warning(folder: int, file: int, state: State, open_place: Path) -> None:
    table = open_place / "table.csv"
    table.write_text("a,b\n1,2\n")
    table.chmod(file)
    open_place.chmod(folder)
    examined = Examined(site_folder=open_place, data=(TableAt("csv", table),))
    assert one(rights.check_data_rights(examined)).state is state


@pytest.mark.parametrize(
    ("mode", "own", "grouped", "expected"),
    [
        (0o400, True, False, True),
        (0o044, True, False, False),  # the owner's bits count for the owner, even where others have more
        (0o040, False, True, True),
        (0o404, False, True, False),
        (0o004, False, False, True),
        (0o440, False, False, False),
    ],
)
def test_who_may_read_a_file_is_decided_as_the_kernel_does(
    mode: int, own: bool, grouped: bool, expected: bool, open_place: Path
) -> None:
    file = open_place / "file"
    file.write_text("x")
    file.chmod(mode)
    about = file.stat()
    user = about.st_uid if own else about.st_uid + 1
    groups = frozenset({about.st_gid} if grouped else {about.st_gid + 1})
    assert rights.readable_by(file, user, groups) is expected
    open_place.chmod(0o700)
    assert rights.readable_by(file, about.st_uid + 1, groups) is False


@pytest.mark.parametrize(("mode", "state"), [(0o640, OK), (0o644, FAILED)])
def test_a_supernode_of_its_own_user_must_not_reach_the_data(
    mode: int, state: State, open_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, link, table = open_place / "site", open_place / "link", open_place / "table.csv"
    site.mkdir(0o700)
    link.mkdir(0o700)
    table.write_text("a,b\n")
    table.chmod(mode)
    examined = Examined(site_folder=site, link_folder=link, data=(TableAt("csv", table),))
    assert one(rights.check_separation(examined)).state is OK  # one user for both: nothing to keep apart
    real = Path.stat

    def given_away(path: Path, **more: bool) -> os.stat_result:
        about = list(real(path, **more))
        if path == link:
            about[stat.ST_UID] = about[stat.ST_GID] = 65_533
        return os.stat_result(about)

    monkeypatch.setattr(Path, "stat", given_away)
    found = one(rights.check_separation(examined))
    assert found.state is state and (state is OK or "data source 1" in found.sentence)


def test_a_ledger_that_another_program_holds_is_found(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "LEDGER_SECONDS", 0.2)
    with closing(sqlite3.connect(folders[0] / "ledger.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        found = one(local.check_ledger(examined_from(None, folders[0])))
        assert found.state is FAILED and "locked" in found.sentence
        other.execute("ROLLBACK")
    assert one(local.check_ledger(examined_from(None, folders[0]))).state is OK


def test_a_ledger_that_is_missing_damaged_or_of_a_later_version_is_found(folders: Folders) -> None:
    ledger = folders[0] / "ledger.sqlite"
    whole = ledger.read_bytes()

    def found() -> str:
        finding = one(local.check_ledger(examined_from(None, folders[0])))
        assert finding.state is FAILED
        return finding.sentence

    with closing(sqlite3.connect(ledger, isolation_level=None)) as store:
        store.execute("UPDATE alembic_version SET version_num = '9999'")
    assert "another version" in found()
    ledger.write_bytes(b"not a database at all, but long enough to be read as one" * 100)
    assert "damaged" in found()
    ledger.write_bytes(whole[:4096] + os.urandom(4096) + whole[8192:])
    assert "damaged" in found()
    ledger.unlink()
    assert "no ledger" in found()
    assert not ledger.exists()


CSV = "data:\n- {connector: csv, path: table.csv}\nopt_outs:\n- {kind: list, path: no.txt}\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "is not there"),
        (b"", "is empty"),
        (b"\n1,2\n", "is empty"),
        (b"a;b;c\n1;2;3\n", "another character"),
        ("größe,alter\n".encode("latin-1"), "no text in UTF-8"),
        (b"a,b\n", None),
        ("﻿a,b\n1,2\n".encode(), None),
    ],
)
def test_a_table_that_cannot_be_read_is_found(
    content: bytes | None, words: str | None, folders: Folders, settings: Callable[[str], None]
) -> None:
    settings(CSV)
    if content is not None:
        (folders[0] / "table.csv").write_bytes(content)
    found = one(sources.check_data(examined_from(None, folders[0])))
    assert found.state is (OK if words is None else FAILED)
    assert words is None or words in found.sentence


def test_every_connector_has_its_head_read_and_refuses_another_kind_of_file(tmp_path: Path) -> None:
    assert set(sources.HEADS) == {*CONNECTORS, *IMAGE_CONNECTORS}
    good = {name: tmp_path / name for name in sources.HEADS} | {"excel": tmp_path / "excel.xlsx"}
    parquet.write_table(pa.table({"a": [1]}), good["parquet"])
    good["csv"].write_text("a,b\n1,2\n")
    book = Workbook()
    book.active.append(["a", "b"])
    book.save(good["excel"])
    sqlite3.connect(tmp_path / "emr.sqlite").execute("CREATE TABLE t (a)").connection.close()
    good["sql"].write_text("url: sqlite:///emr.sqlite")
    good["fhir"].write_text('{"resourceType": "Patient", "id": "1"}\n')
    good["hl7v2"].write_text("MSH|^~\\&|LAB\r")
    for name, file in (("omop", "person.csv"), ("dicom", "1.dcm"), ("nifti", "1.nii.gz"), ("png", "1.jpg")):
        good[name].mkdir()
        (good[name] / file).write_text("person_id\n")
    # No archive is here: that it would be asked is what can be seen.
    good["dicomweb"].write_text("url: http://127.0.0.1:1/dicom-web")
    options: dict[str, dict[str, Any]] = {"sql": {"table": "t"}}
    # Bytes that several readers could begin with are told apart by the study's own reading.
    alike = {("csv", "fhir"), ("csv", "hl7v2"), ("csv", "sql"), ("omop", "csv"), ("omop", "fhir"), ("omop", "hl7v2")}
    alike |= {("omop", "parquet"), ("omop", "excel"), ("omop", "sql"), ("omop", "dicom"), ("dicom", "omop")}
    alike |= {("dicom", "nifti"), ("dicom", "png"), ("omop", "dicomweb"), ("csv", "dicomweb"), ("dicomweb", "dicomweb")}
    for name, other in itertools.product(sources.HEADS, repeat=2):
        source = TableAt(name, good[other], options.get(name, {}))
        state = one(sources.check_data(Examined(site_folder=tmp_path, data=(source,)))).state
        if (name, other) not in alike:
            assert state is (OK if name == other else FAILED), (name, other)


def test_an_archive_that_does_not_answer_is_found(tmp_path: Path) -> None:
    (tmp_path / "pacs.yaml").write_text("url: http://127.0.0.1:1/dicom-web")
    source = TableAt("dicomweb", tmp_path / "pacs.yaml", {})
    found = one(sources.check_data(Examined(site_folder=tmp_path, data=(source,))))
    assert found.state is FAILED and "does not answer" in found.sentence


def test_a_database_that_does_not_answer_is_found(tmp_path: Path) -> None:
    (tmp_path / "emr.yaml").write_text("url: postgresql+psycopg://reader@127.0.0.1:1/emr")
    for connector, options in (("sql", {"table": "t"}), ("omop", {})):
        source = TableAt(connector, tmp_path / "emr.yaml", options)
        found = one(sources.check_data(Examined(site_folder=tmp_path, data=(source,))))
        assert found.state is FAILED and "does not answer" in found.sentence


def test_a_connector_that_does_not_exist_and_a_folder_in_place_of_a_file_are_found(tmp_path: Path) -> None:
    for source in (TableAt("sqll", tmp_path / "x"), TableAt("csv", tmp_path), TableAt("parquet", tmp_path)):
        assert one(sources.check_data(Examined(site_folder=tmp_path, data=(source,)))).state is FAILED


def test_a_site_without_data_or_without_opt_outs_is_warned(folders: Folders, settings: Callable[[str], None]) -> None:
    settings("")
    assert complaints(folders[0]) == {"data": WARNING, "opt-outs": WARNING}


@pytest.mark.parametrize("content", [None, b"", b"p-1;p-2\n"])
def test_opt_outs_that_stop_every_round_are_found_before(
    content: bytes | None, folders: Folders, settings: Callable[[str], None]
) -> None:
    path = folders[0] / "no.txt"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert complaints(folders[0]) == {"opt-outs": FAILED}


def test_a_site_yaml_that_is_not_understood_is_found(folders: Folders) -> None:
    (folders[0] / "site.yaml").write_text("data: [{connectr: csv}]\n")
    # Which sources there are cannot be said then, so nothing is said about them.
    assert complaints(folders[0], folders[1]) == {"settings": FAILED}


def test_a_site_that_has_not_joined_is_told_how(folders: Folders) -> None:
    (folders[0] / "site.yaml").write_text("data: []\n")
    assert complaints(folders[0])["link"] is WARNING


def test_the_link_folder_that_joining_noted_is_found(folders: Folders) -> None:
    (folders[0] / "site.yaml").unlink()
    (folders[0] / "link.json").write_text(f'{{"link": "{folders[1]}"}}')
    assert examined_from(None, folders[0]).link_folder == folders[1]


@pytest.mark.parametrize(
    ("old", "new"), [('"site": "north"', '"site": "south"'), ('"runtime_port"', '"port"'), ("127.0.0.1:9", "no port")]
)
def test_a_link_folder_of_another_site_or_damaged_is_found(old: str, new: str, folders: Folders) -> None:
    path = folders[1] / "link.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    assert complaints(folders[0]) == {"link": FAILED}


def test_a_password_of_the_proxy_that_is_not_there_is_found(folders: Folders) -> None:
    path = folders[1] / "link.json"
    path.write_text(path.read_text().replace('"proxy_password_file": null', '"proxy_password_file": "proxy.password"'))
    assert complaints(folders[0]) == {"link": FAILED}
    (folders[1] / "proxy.password").write_text("secret\n")
    (folders[1] / "proxy.password").chmod(0o600)
    assert complaints(folders[0]) == {}
    assert examined_from(None, folders[0]).proxy_password == "secret"


def test_a_port_that_another_program_holds_is_found_and_the_sites_own_supernode_is_not(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        examined = Examined(link_folder=tmp_path, runtime_port=holder.getsockname()[1])
        assert one(local.check_port(examined)).state is FAILED
        for line, state in (("supernode", OK), ("other", FAILED)):
            child = subprocess.Popen([sys.executable, "-c", "input()", line], stdin=subprocess.PIPE)
            (tmp_path / "supernode.pid").write_text(str(child.pid))
            # A process has no words for a moment after it was started.
            while not Path(f"/proc/{child.pid}/cmdline").read_bytes():
                time.sleep(0.01)
            assert one(local.check_port(examined)).state is state
            child.communicate(b"\n")
        assert one(local.check_port(examined)).state is FAILED
    assert one(local.check_port(examined)).state is OK


Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize(("free", "state"), [(100 * 2**20, FAILED), (2**30, WARNING), (2**34, OK)])
def test_a_disk_that_is_nearly_full_is_found(
    free: int, state: State, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(2**40, 2**40 - free, free))
    assert one(local.check_disk(examined_from(None, folders[0]))).state is state


@pytest.mark.parametrize(("pages", "state"), [(2**18, WARNING), (2**21, OK)])
def test_a_small_machine_is_warned(pages: int, state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": pages}.__getitem__)
    assert one(local.check_memory(Examined())).state is state


@pytest.mark.parametrize(("mask", "state"), [(0o022, OK), (0o077, OK), (0o002, WARNING), (0o000, WARNING)])
def test_a_umask_that_lets_others_write_is_warned(mask: int, state: State) -> None:
    before = os.umask(mask)
    try:
        assert one(local.check_umask(Examined())).state is state
        assert os.umask(mask) == mask
    finally:
        os.umask(before)


def test_whoever_is_not_the_owner_is_told_so(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: folders[0].stat().st_uid + 1)
    assert one(local.check_user(examined_from(None, folders[0]))).state is WARNING


@pytest.mark.parametrize(
    ("body", "state", "words"),
    [
        ("__version__ = '2.9.1+cpu'", OK, "2.9.1+cpu"),
        ("raise ImportError('secret')", FAILED, "cannot be imported"),
        ("import os; os.kill(os.getpid(), 4)", FAILED, "another processor"),
        ("__version__ = '\\x1b[2J'", FAILED, "cannot be imported"),
    ],
)
def test_torch_is_tried_in_a_process_of_its_own(
    body: str, state: State, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stand_in.py").write_text(body)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = one(local.check_torch(Examined(site_folder=tmp_path), "stand_in"))
    assert found.state is state and words in found.sentence and "secret" not in found.sentence


def test_a_finding_has_a_cure_exactly_where_something_is_wrong() -> None:
    for arguments in (("dns", OK, "x", "y"), ("dns", FAILED, "x", ""), ("dsn", OK, "x", "")):
        with pytest.raises(ValueError):
            Finding(*arguments)
