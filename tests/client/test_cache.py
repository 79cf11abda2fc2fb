"""The cache of features: the same cohort as from the records themselves, made once, and anew when something changed."""

import os
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from wardround.client import cache as cache_module
from wardround.client.cache import CACHE, NOT_ADMITTED, FeatureCache, source_state
from wardround.client.connectors import make_cohort
from wardround.client.connectors.table import Records
from wardround.client.store.members import HashedId, Part
from wardround.protocol.errors import UsageError

PATIENTS = 40


def parts(ids: Sequence[str]) -> list[Part | None]:
    """By the last digit: 0 is not admitted, 1 to 3 test, the others train."""
    return [None if id_[-1] == "0" else Part.TEST if id_[-1] in "123" else Part.TRAIN for id_ in ids]


class Division:
    """Ids that are hashed, so that none can be found in a file."""

    parts = staticmethod(parts)

    def hashed(self, ids: Iterable[str]) -> list[bytes]:
        return [sha256(id_.encode()).digest() for id_ in ids]


DIVISION = Division()


def records(batches: int = 7, dtype: type = np.float32) -> Iterator[Records]:
    """Two to four records of each patient, in no order, in unequal batches."""
    generator = np.random.Generator(np.random.PCG64(3))
    patient = generator.permutation(np.repeat(np.arange(PATIENTS), generator.integers(2, 5, PATIENTS)))
    x = generator.normal(size=(len(patient), 2, 3)).astype(dtype)
    for rows in np.array_split(np.arange(len(patient)), batches):
        ids = np.array([f"p{number}" for number in patient[rows]], object)
        yield Records(x[rows], patient[rows, None] % 2 * 1.0, ids, rows, {"age missing": 1})


def direct(dtype: type = np.float32) -> object:
    found = next(records(1, dtype))
    of = np.array([None if part is None else part.value for part in parts(list(found.patients))], object)
    known = of != None  # noqa: E711 - elementwise
    return make_cohort(
        "north", found.features[known], found.targets[known], test=of[known] == "test", patients=found.patients[known]
    )


@pytest.mark.parametrize("mapped", [False, True])
def test_the_cohort_is_the_one_that_the_records_make(
    tmp_path: Path, mapped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if mapped:
        monkeypatch.setattr(cache_module, "IN_MEMORY", 0)
        monkeypatch.setattr(cache_module, "ROWS_AT_ONCE", 5)
    found, expected = FeatureCache(tmp_path, "north").cohort("a", "1", records, DIVISION), direct()
    for ours, theirs in ((found.train, expected.train), (found.test, expected.test)):  # type: ignore[attr-defined]
        assert isinstance(ours.features, np.memmap) == mapped
        assert np.array_equal(ours.features, theirs.features) and ours.features.dtype == np.float32
        assert np.array_equal(ours.targets, theirs.targets) and np.array_equal(ours.patient, theirs.patient)
        assert ours.patients == theirs.patients
    for ids, named in ((found.train_ids, expected.train_ids), (found.test_ids, expected.test_ids)):  # type: ignore[attr-defined]
        assert ids is not None and all(isinstance(id_, HashedId) for id_ in ids)
        assert [bytes.fromhex(id_) for id_ in ids] == DIVISION.hashed(named)
    written = b"".join(path.read_bytes() for path in (tmp_path / CACHE).rglob("*") if path.is_file())
    assert b'"p1' not in written and b"p11" not in written, "an id of a patient is in the cache"
    assert found.split_hash == expected.split_hash  # type: ignore[attr-defined]
    outside = sum(part is None for part in parts(list(next(records(1)).patients)))
    assert outside > 5 and found.excluded == {"age missing": 7, NOT_ADMITTED: outside}
    some = found.train.only(np.array([0, 1, 4, 6]))
    assert isinstance(some.features, np.ndarray) != mapped, "what is mapped stays on the disk"
    again, wanted = some.take(np.array([1, 2])), expected.train.take(np.array([1, 4]))  # type: ignore[attr-defined]
    assert np.array_equal(again.features, wanted.features) and np.array_equal(again.patient, wanted.patient)
    assert np.array_equal(np.asarray(some.features), expected.train.take(np.array([0, 1, 4, 6])).features)  # type: ignore[attr-defined]
    batch = found.train.take(np.array([1, 4]))
    assert np.array_equal(batch.features, expected.train.take(np.array([1, 4])).features)  # type: ignore[attr-defined]


def test_the_sources_are_read_once_and_again_only_when_something_changed(tmp_path: Path) -> None:
    read: list[str] = []

    def counted() -> Iterable[Records]:
        read.append("read")
        return records()

    cache = FeatureCache(tmp_path, "north")
    for state in ("1", "1", "2", "2", "1"):
        cache.cohort("a", state, counted, DIVISION)
    assert len(read) == 3
    cache.cohort("another contract", "1", counted, DIVISION)
    cache.cohort("a", "1", counted, DIVISION)
    assert len(read) == 4


def test_it_lies_in_the_sites_own_folder_where_nobody_else_looks_and_leaves_no_rest(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, "north")
    for state in "123":
        cache.cohort("a", state, records, DIVISION)
    assert (tmp_path / CACHE).stat().st_mode & 0o777 == 0o700
    assert [path.name for path in (tmp_path / CACHE).iterdir()] == ["a"]
    assert (tmp_path / CACHE / "a").stat().st_mode & 0o777 == 0o700
    assert not (tmp_path / CACHE / "a" / "features.raw").exists()


def test_a_source_that_breaks_off_leaves_the_former_cache_as_it_was(tmp_path: Path) -> None:
    def breaks() -> Iterator[Records]:
        yield from records(2)
        raise UsageError("row 3 is bad", "mend it")

    cache = FeatureCache(tmp_path, "north")
    before = cache.cohort("a", "1", records, DIVISION)
    with pytest.raises(UsageError, match="row 3"):
        cache.cohort("a", "2", breaks, DIVISION)
    assert [path.name for path in (tmp_path / CACHE).iterdir()] == ["a"]
    after = cache.cohort("a", "1", lambda: pytest.fail("it was read again"), DIVISION)
    assert np.array_equal(before.train.features, after.train.features)


@pytest.mark.parametrize("name", ["about.json", "features.npy", "targets.npy", "patients.json"])
def test_a_damaged_cache_is_made_anew(tmp_path: Path, name: str) -> None:
    cache = FeatureCache(tmp_path, "north")
    whole = cache.cohort("a", "1", records, DIVISION)
    (tmp_path / CACHE / "a" / name).write_bytes(b"\x93")
    again = cache.cohort("a", "1", records, DIVISION)
    assert np.array_equal(whole.train.features, again.train.features)


def test_sources_of_which_nothing_is_left_make_an_empty_cohort(tmp_path: Path) -> None:
    def none() -> Iterator[Records]:
        yield Records(np.zeros((0, 4)), np.zeros((0, 1)), np.array([], object), np.arange(0), {})

    found = FeatureCache(tmp_path, "north").cohort("a", "1", none, DIVISION)
    assert found.train.patients == found.test.patients == 0 and found.train.features.shape == (0, 4)


def test_the_state_of_a_source_shows_new_changed_and_renamed_files(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "a").write_text("1")
    seen = {source_state(folder, "")}
    (folder / "b").write_text("1")
    seen.add(source_state(folder, ""))
    (folder / "b").rename(folder / "c")
    seen.add(source_state(folder, ""))
    os.utime(folder / "c", ns=(1, 1))
    seen.add(source_state(folder, ""))
    assert len(seen) == 4 and source_state(folder, "now") in seen


def test_a_running_system_counts_as_changed_after_its_time(tmp_path: Path) -> None:
    (tmp_path / "database.yaml").write_text("url: ...")
    (tmp_path / "table.csv").write_text("a")
    states = {source_state(tmp_path / "database.yaml", hour) for hour in "112"}
    assert len(states) == 2
    assert len({source_state(tmp_path / "table.csv", hour) for hour in "112"}) == 1
    assert source_state(tmp_path / "none", "") == "not there"


def test_what_a_killed_process_left_half_made_is_removed_after_a_day(tmp_path: Path) -> None:
    old, fresh = tmp_path / "cache" / ".new-old", tmp_path / "cache" / ".new-fresh"
    for half in (old, fresh):
        half.mkdir(parents=True)
        (half / "features.raw").write_bytes(b"x")
    os.utime(old, (0, 0))
    FeatureCache(tmp_path, "a")._sweep()
    assert fresh.exists() and not old.exists()
