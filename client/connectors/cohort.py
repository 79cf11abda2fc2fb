"""A cohort: the patients of one site and their records, divided into training and test patients once.

A cohort never leaves the process that read it; it has no serialised form and its ``repr`` shows no value.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from wardround.privacy.gradients import Examples, Indices
from wardround.protocol.canonical import LABEL_DATA, LABEL_SPLIT, digest
from wardround.protocol.errors import UsageError


@dataclass(frozen=True, slots=True)
class Cohort:
    """Training and test patients of ``site``.

    ``split_hash`` is the SHA-256 of which record tests; ``excluded`` counts what the contract left out, by reason.
    ``train_ids`` and ``test_ids`` name the patients in the order of their numbers; None: each record is a patient
    without a name.
    """

    site: str
    train: Examples = field(repr=False)
    test: Examples = field(repr=False)
    split_hash: str = field(repr=False)
    excluded: Mapping[str, int] = field(default_factory=dict, repr=False)
    train_ids: tuple[str, ...] | None = field(default=None, repr=False)
    test_ids: tuple[str, ...] | None = field(default=None, repr=False)

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a Cohort never leaves its process")

    @property
    def declared_patients(self) -> int:
        """The training patients, rounded up to the next 50: the only count that is ever public."""
        return max(50, -(-self.train.patients // 50) * 50)

    @property
    def data_hash(self) -> str:
        """SHA-256 over features and targets, so that a researcher can tell two versions of the data apart."""
        arrays = [a for e in (self.train, self.test) for a in (e.features, e.targets, e.patient)]
        return digest(LABEL_DATA, *(np.ascontiguousarray(array) for array in arrays))


def group_by_patient(features: np.ndarray, targets: np.ndarray, patients: np.ndarray) -> Examples:
    """Examples from records in any order; ``patients`` (records,) names each record's patient."""
    order = np.argsort(patients, kind="stable")
    names, numbered = np.unique(patients[order], return_inverse=True)
    return Examples(
        np.ascontiguousarray(features[order]),
        np.ascontiguousarray(targets[order]),
        numbered.astype(np.int64),
        len(names),
    )


def make_cohort(
    site: str,
    features: np.ndarray,
    targets: np.ndarray,
    *,
    test: np.ndarray,
    patients: np.ndarray | None = None,
    excluded: Mapping[str, int] | None = None,
) -> Cohort:
    """A cohort from records: features (records, ...), targets (records, T), test (records,) bool.

    ``patients`` names each record's patient; None: each record is a patient of its own. A patient whose records lie
    in both parts is refused: the test would not be one.

    Raises:
        UsageError: when lengths differ, a value is not finite, or a patient is in both parts.
    """
    records = len(features)
    names: Indices | np.ndarray = np.arange(records) if patients is None else np.asarray(patients)
    targets = np.asarray(targets, np.float64).reshape(records, -1) if records else np.zeros((0, 1))
    if not (len(targets) == len(names) == len(test) == records):
        raise UsageError(f"site '{site}': features, targets, patients and split differ in length", "check the arrays")
    if not (np.isfinite(targets).all() and np.isfinite(features).all()):
        raise UsageError(f"site '{site}': a feature or target is not a finite number", "check the arrays for NaN")
    both = np.intersect1d(names[test], names[~test])
    if len(both):
        raise UsageError(
            f"site '{site}': {len(both)} patient(s) have records in both training and test",
            "a patient belongs to one part only: split by patient, not by record",
        )
    return Cohort(
        site,
        group_by_patient(features[~test], targets[~test], names[~test]),
        group_by_patient(features[test], targets[test], names[test]),
        digest(LABEL_SPLIT, np.asarray(test, np.uint8)),
        dict(excluded or {}),
        None if patients is None else _ids(names[~test]),
        None if patients is None else _ids(names[test]),
    )


def _ids(names: np.ndarray) -> tuple[str, ...]:
    """The distinct names in the order in which ``group_by_patient`` numbers them."""
    return tuple(str(name) for name in np.unique(names))
