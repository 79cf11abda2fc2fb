"""What stands in the headers of pictures beside the numbers: whose machines made them, and fields that tell the label.

A finding names makers of a public list and DICOM keywords; it shows no value of a header.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from wardround.client.imaging.described import NOT_NAMED, Described
from wardround.client.imaging.header import NUMBERS
from wardround.client.readiness.finding import Finding, Severity
from wardround.client.readiness.gathered import Gathered
from wardround.client.readiness.label import LEAK, auroc_with_bound

FEWEST_PATIENTS: Final = 10
"""Patients that share a text before it counts as a class of its own: an accession number is of one patient."""

CURE: Final = (
    "What is written of one class only, or used for one class only, tells the label and not the disease: ask how the "
    "pictures were chosen."
)

Bools = npt.NDArray[np.bool_]


def check_machines(found: Gathered) -> Iterator[Finding]:
    """How many makers and models; whether there is one only."""
    headers = [each for each in found.described if each is not None]
    if not headers:
        return
    makers = sorted({each.maker for each in headers} - {NOT_NAMED})
    models = len({each.model for each in headers} - {0})
    unnamed = sum(each.maker == NOT_NAMED for each in headers)
    said = f"{_number(len(makers), 'maker')}{f' ({_listed(makers)})' if makers else ''} and {_number(models, 'model')}"
    rest = f"; {unnamed:,} name none" if unnamed else ""
    yield Finding(
        "machines", Severity.FINE, f"The pictures' headers name machines of {said}{rest}.", count=len(headers)
    )
    if len(headers) >= 20 and len(makers) == 1 and models == 1 and not unnamed:
        yield Finding(
            "one machine", Severity.FINE,
            "Every picture comes from one model of one maker. Where other hospitals have another, a model can tell the "
            "hospital by it, and so its share of cases.", "Compare with the other hospitals before any claim.",
        )  # fmt: skip


def check_header_leaks(found: Gathered) -> Iterator[Finding]:
    """A maker, a model, the presence of a field, or the classes of a coded field that tell the label nearly alone."""
    places = [
        place for place, each in enumerate(found.described) if each is not None and np.isfinite(found.label[place])
    ]
    headers = [each for place in places if (each := found.described[place]) is not None]
    if not headers:
        return
    positive = found.label[places] > 0
    patients = [found.patients[place] for place in places] if found.patients else [str(place) for place in places]
    yield from _leak(
        "The maker of the machine tells", _by_class([h.maker for h in headers], patients, positive), positive
    )
    models = _by_class([h.model or None for h in headers], patients, positive)
    yield from _leak("The model of the machine tells", models, positive)
    yield from _told("Whether a field of the header is there tells", _presence(headers), positive)
    yield from _told("The text of a field of the header tells", _coded(headers, patients, positive), positive)


def _presence(headers: Sequence[Described]) -> Iterator[tuple[str, npt.NDArray[np.float64]]]:
    keywords = frozenset[str]().union(*(each.present for each in headers)) - NUMBERS.keys()
    for keyword in sorted(keywords):
        yield keyword, np.array([keyword in each.present for each in headers], float)


def _coded(
    headers: Sequence[Described], patients: Sequence[str], positive: Bools
) -> Iterator[tuple[str, npt.NDArray[np.float64]]]:
    texts: dict[str, list[int | None]] = defaultdict(lambda: [None] * len(headers))
    for place, each in enumerate(headers):
        for keyword, text in each.coded:
            texts[keyword][place] = text
    for keyword in sorted(texts):
        # Whether there is a text at all is asked elsewhere.
        there = np.array([text is not None for text in texts[keyword]])
        yield keyword, np.where(there, _by_class(texts[keyword], patients, positive), np.nan)


def _by_class(classes: Sequence[Hashable], patients: Sequence[str], positive: Bools) -> npt.NDArray[np.float64]:
    """For each record the share of positive ones in its class; classes of few patients are one, and so is None."""
    people = defaultdict[Hashable, set[str]](set)
    for each, patient in zip(classes, patients, strict=True):
        people[each].add(patient)
    large = {each for each, who in people.items() if each is not None and len(who) >= FEWEST_PATIENTS}
    number = {each: place for place, each in enumerate(large, 1)}
    place = np.array([number.get(each, 0) for each in classes], np.int64)
    total = np.bincount(place, minlength=len(large) + 1)
    return (np.bincount(place, positive, minlength=len(large) + 1) / np.maximum(total, 1))[place]


def _told(said: str, fields: Iterator[tuple[str, npt.NDArray[np.float64]]], positive: Bools) -> Iterator[Finding]:
    """One finding for all fields that tell the label."""
    low = {
        keyword: auroc_with_bound(values[known], positive[known])[1]
        for keyword, values in fields
        if (known := np.isfinite(values)).any()
    }
    if leaks := {keyword: bound for keyword, bound in low.items() if bound >= LEAK}:
        sentence = f"{said} the label nearly alone (AUROC at least {min(leaks.values()):.3f}): {_listed(list(leaks))}."
        yield Finding("leak", Severity.LOOK, sentence, CURE)


def _leak(said: str, values: npt.NDArray[np.float64], positive: Bools) -> Iterator[Finding]:
    auroc, low = auroc_with_bound(values, positive)
    if low >= LEAK:
        sentence = f"{said} the label nearly alone (AUROC {auroc:.3f}, at least {low:.3f})."
        yield Finding("leak", Severity.LOOK, sentence, CURE)


def _number(count: int, thing: str) -> str:
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words)
