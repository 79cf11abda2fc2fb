"""A new file of a command takes no other's place, and is whole or not there."""

import errno
import os
from pathlib import Path

import pytest

from wardround.console.new_files import write_new
from wardround.protocol.errors import Unavailable, UsageError


def test_a_file_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    write_new(tmp_path / "one.yaml", b"first")
    with pytest.raises(UsageError, match="exists already"):
        write_new(tmp_path / "one.yaml", b"second")
    assert (tmp_path / "one.yaml").read_bytes() == b"first"


def test_a_full_disk_leaves_no_half_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Unavailable, match="No space left on device"):
        write_new(tmp_path / "one.yaml", b"first")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_an_error_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="cannot be written") as refused:
        write_new(tmp_path / "nowhere" / "one.yaml", b"first")
    assert refused.value.hint and not (tmp_path / "nowhere").exists()
