"""Who may be drawn now: the sources of opt-outs are read before every round, and a source that fails stops the round.

A source is a list of ids, a column of the hospital's own table, FHIR R4 ``Consent`` resources, or a function. Whoever
one of them names is opted out. What is not understood is an error: nobody is drawn because of a broken export.
"""

import csv
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from io import StringIO
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from wardround.client.fhir_consent import RESEARCH, NotUnderstood, opted_out_in
from wardround.client.store.ledger import utc_now
from wardround.client.store.members import Members, Part
from wardround.client.store.opt_outs import OptOuts
from wardround.protocol.errors import Unavailable, UsageError


class Source(Protocol):
    """Where opt-outs are found."""

    def opted_out(self, now: datetime) -> Iterable[str]:
        """The ids that are opted out at ``now``. Raises Unavailable, without any id, when that cannot be said."""


@dataclass(frozen=True, slots=True)
class IdList:
    """A text or CSV file: an id at the beginning of each line, up to ``delimiter``; lines with # are comments.

    A header line does no harm: it is an id that no patient has. An empty file is refused, since a failed export leaves
    one; a list of nobody is a comment.
    """

    path: Path
    delimiter: str = ","

    def opted_out(self, now: datetime) -> Iterable[str]:
        lines = [line.strip() for line in _text(self.path).split("\n")]
        lines = [line for line in lines if line and not line.startswith("#")]
        with _explained(self.path):
            ids = {row[0].strip() for row in csv.reader(lines, delimiter=self.delimiter, strict=True)}
            if any(mark in id_ for id_ in ids for mark in ",;\t|"):
                raise NotUnderstood(f"its columns seem to be separated by something else than {self.delimiter!r}")
            return ids - {""}


@dataclass(frozen=True, slots=True)
class FlagColumn:
    """A column of a CSV table of the electronic record: ``opted_out_values`` there say no, ``taking_part_values`` yes.

    Any other value is an error. Of several rows of a patient one no is enough.
    """

    path: Path
    id_column: str
    flag_column: str
    opted_out_values: frozenset[str] = frozenset({"1"})
    taking_part_values: frozenset[str] = frozenset({"0", ""})
    delimiter: str = ","

    def opted_out(self, now: datetime) -> Iterable[str]:
        text = _text(self.path)
        with _explained(self.path):
            table = csv.reader(StringIO(text, newline=""), delimiter=self.delimiter, strict=True)
            header = [cell.strip() for cell in next(table, [])]
            if header.count(self.id_column) != 1 or header.count(self.flag_column) != 1:
                raise NotUnderstood(f"it needs one column '{self.id_column}' and one column '{self.flag_column}'")
            at, flag = header.index(self.id_column), header.index(self.flag_column)
            found = set()
            for number, row in enumerate((row for row in table if row), 1):
                if len(row) != len(header):
                    raise NotUnderstood(f"row {number} has another number of cells than the header")
                id_, value = row[at].strip(), row[flag].strip()
                if value not in self.opted_out_values | self.taking_part_values:
                    raise NotUnderstood(f"row {number} has a value in column '{self.flag_column}' that is not known")
                if value in self.opted_out_values:
                    if not id_:
                        raise NotUnderstood(f"row {number} does not say who is opted out")
                    found.add(id_)
            return found


@dataclass(frozen=True, slots=True)
class FhirConsents:
    """A file of FHIR R4 ``Consent`` resources: one, a Bundle, or NDJSON; see ``fhir_consent``."""

    path: Path
    research: frozenset[str] = RESEARCH

    def opted_out(self, now: datetime) -> Iterable[str]:
        text = _text(self.path)
        with _explained(self.path):
            return opted_out_in(text, now, self.research)


@dataclass(frozen=True, slots=True)
class Asked:
    """A function of the hospital's own that returns the ids, for example from a database."""

    function: Callable[[], Iterable[str]] = field(repr=False)

    def opted_out(self, now: datetime) -> Iterable[str]:
        try:
            return [str(id_) for id_ in self.function()]
        except Exception as error:
            # What a driver says may hold a patient's id.
            raise Unavailable(f"the source of opt-outs failed ({type(error).__name__})", _HINT) from None


class Consent:
    """What ``Site(consent=...)`` asks before every round: a mask over the patients that the plan reads.

    Besides who has opted out, it leaves out who may not be drawn for another reason: in no domain or in one that the
    site does not charge (after a merge: start the site anew), or under a second id.

    Args:
        ids: of the patients that the plan reads, ``population.ids_of``.
        domains: what the site charges, ``Members.domains(ids)``.
        parts: of the site's patients that the plan reads.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        members: Members,
        opt_outs: OptOuts,
        ids: Sequence[str] | None,
        domains: Sequence[str],
        clock: Callable[[], datetime] = utc_now,
        parts: Collection[Part] = (Part.TRAIN,),
    ) -> None:
        if ids is None:
            raise UsageError(
                "the table does not say which patient a record belongs to, so nobody can opt out",
                "name the column of the patient's id in the plan's contract",
            )
        self._sources = tuple(sources)
        self._members = members
        self._opt_outs = opt_outs
        self._ids = tuple(ids)
        self._domains = tuple(domains)
        self._clock = clock
        self._parts = tuple(parts)

    def __call__(self) -> npt.NDArray[np.bool_]:
        """Shape (patients,), bool. Changes are in the database when it returns.

        Raises:
            Unavailable: a source cannot be read, or is not understood; the opt-outs stay as they were.
        """
        now = self._clock()
        self._opt_outs.update({id_ for source in self._sources for id_ in source.opted_out(now)})
        away = set(self._members.same_person(self._opt_outs.now()))
        people = self._members.same_person(self._members.hashed(self._ids))
        allowed = self._members.may_be_drawn(self._ids, self._domains, self._parts)
        return np.array([may and person not in away for may, person in zip(allowed, people, strict=True)], np.bool_)


_HINT = "no round is answered until it can be read: mend the file or the export, and try again"


def _text(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise Unavailable(f"the opt-outs in '{path}' cannot be read: {error.strerror}", _HINT) from None
    except UnicodeDecodeError:
        raise Unavailable(f"the opt-outs in '{path}' cannot be read: it is no text in UTF-8", _HINT) from None
    if not text.strip():
        raise Unavailable(f"the opt-outs in '{path}' cannot be read: the file is empty", _HINT)
    return text


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except NotUnderstood as error:
        raise Unavailable(f"the opt-outs in '{path}' are not understood: {error}", _HINT) from None
    except RecursionError:
        raise Unavailable(f"the opt-outs in '{path}' are not understood: they are nested too deep", _HINT) from None
    except TypeError:
        raise Unavailable(f"the opt-outs in '{path}' are not understood: no such 'delimiter' can be", _HINT) from None
    except csv.Error:
        raise Unavailable(f"the opt-outs in '{path}' are not understood: it is no CSV", _HINT) from None
