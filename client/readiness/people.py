"""Patients: how many, twice, under two spellings, and on which side of the division."""

from collections.abc import Iterator
from typing import Final

import numpy as np

from wardround.client.readiness.finding import Finding, Severity
from wardround.client.readiness.gathered import Gathered
from wardround.client.store.members import Part

FEW: Final = 30
"""Training patients below which a site's own model is not estimable."""


def check_patients(found: Gathered) -> Iterator[Finding]:
    """How many patients there are, beside what the plan declares."""
    if found.contract.patient_id is None:
        return
    ids = set(found.patients) - {""}
    if found.patients and (nobody := found.patients.count("")):
        yield Finding(
            "no patient", Severity.LOOK, f"{nobody:,} records have no patient's id and are left out.",
            "Correct the export; a record is never given to a patient by guess.", found.contract.patient_id, nobody,
        )  # fmt: skip
    if not ids:
        return
    yield Finding("patients", Severity.FINE, f"{len(ids):,} patients, {found.rows:,} records.", count=len(ids))
    if len(ids) < FEW:
        yield Finding(
            "few patients", Severity.LOOK, f"There are fewer than {FEW} patients.",
            "The site can take part; a model of its own cannot be estimated, and its metrics get no verdict.",
            count=len(ids),
        )  # fmt: skip
    if found.declared is not None and not found.declared / 2 <= len(ids) <= found.declared * 2:
        yield Finding(
            "declared", Severity.LOOK, f"The plan declares {found.declared:,} training patients here.",
            "Batches and noise are sized by the declared number: ask for a plan that fits.", count=len(ids),
        )  # fmt: skip


def check_duplicates(found: Gathered) -> Iterator[Finding]:
    """The same record twice; one record under two patients; one patient under two spellings."""
    if found.contract.patient_id is None or not found.rows:
        return
    names = {id_: number for number, id_ in enumerate(dict.fromkeys(found.patients))}
    patient = np.array([names[id_] for id_ in found.patients], np.int64)
    order = np.lexsort((patient, found.content))
    content, who = found.content[order], patient[order]
    alike = content[1:] == content[:-1]
    same, other = int((alike & (who[1:] == who[:-1])).sum()), int((alike & (who[1:] != who[:-1])).sum())
    if same:
        yield Finding(
            "repeated", Severity.LOOK, f"{same:,} records repeat another one of their patient.",
            "A patient counts once however many records there are, but check whether the export ran twice.", count=same,
        )  # fmt: skip
    # Few columns of few codes are often alike by chance; pictures and wide rows are not.
    if other and (found.contract.image is not None or len(found.contract.columns) >= 5):
        yield Finding(
            "two patients", Severity.LOOK, f"{other:,} records are equal in everything to one of another patient.",
            "One person may have two ids; merge them ('wardround site merge'), or privacy is promised to each half.",
            count=other,
        )  # fmt: skip
    spelled: dict[str, str] = {}
    close = sum(spelled.setdefault(_plain(id_), id_) != id_ for id_ in names if id_)
    if close:
        yield Finding(
            "spelling", Severity.LOOK, f"{close:,} ids differ from another one only in case, spaces, dashes or zeros.",
            "If these are the same people, write ids in one way: a person under two ids can stand on both sides.",
            count=close,
        )  # fmt: skip


def _plain(id_: str) -> str:
    kept = "".join(sign for sign in id_.casefold() if sign.isalnum())
    return kept.lstrip("0") or kept


def check_split(found: Gathered) -> Iterator[Finding]:
    """Every patient is on one side, by the site's own division."""
    if found.contract.patient_id is None:
        return
    ids = sorted(set(found.patients) - {""})
    part = dict(zip(ids, found.division.parts(ids), strict=True))
    count = {each: sum(found is each for found in part.values()) for each in (Part.TRAIN, Part.TEST, None)}
    if count[None]:
        severity = Severity.STOPS if count[None] == len(ids) else Severity.LOOK
        yield Finding(
            "not admitted", severity, f"{count[None]:,} of {len(ids):,} patients are in no data domain.",
            "Run 'wardround site admit FOLDER'; patients who are not admitted take part in nothing.", count=count[None],
        )  # fmt: skip
    if not count[Part.TRAIN] and not count[Part.TEST]:
        return
    yield Finding(
        "split", Severity.FINE,
        f"{count[Part.TRAIN]:,} patients train and {count[Part.TEST]:,} test; nobody does both.",
        count=count[Part.TEST],
    )  # fmt: skip
    if not count[Part.TEST]:
        yield Finding("no test", Severity.LOOK, "Nobody tests at this site, so it has no metric.", "See 'test_share'.")
        return
    testing = np.array([part.get(id_) is Part.TEST for id_ in found.patients], bool)
    seen = found.label[testing & np.isfinite(found.label)]
    classes = found.contract.label.kind in ("class", "survival", "findings")
    if classes and len(seen) and (seen == seen[0]).all() and len(np.unique(found.label[np.isfinite(found.label)])) > 1:
        yield Finding(
            "one test class", Severity.LOOK, "The test patients are of one class: there is no AUROC at this site.", ""
        )
