"""Words that every paper needs: an epsilon with its conditions, a time, a kind of entry, a text that others wrote.

``Words`` holds the language. A sentence with an epsilon is made here and nowhere else, so none can lose its conditions.
"""

import math
import re
from dataclasses import dataclass, field
from decimal import ROUND_FLOOR, Decimal
from gettext import NullTranslations
from typing import Final

from wardround.console.i18n import SOURCE, marked
from wardround.console.paper.blocks import Cell
from wardround.console.paper.kinds import kind_words
from wardround.console.paper.model import Epsilon
from wardround.console.plan_words import plain
from wardround.privacy.budget import UNITS

MOST_LETTERS: Final = 1_500
"""Of one text that others wrote, on a page; the signed content has all of it."""

_NO_BREAK: Final = re.compile("[\u00a0\u202f]+")
"""Spaces that French writes inside numbers and before signs: one of them stays, none is spelt out as its code."""


@dataclass(frozen=True, slots=True)
class Words:
    """A language: ``translation`` is what gettext found, or nothing for English; ``language`` is its code."""

    translation: NullTranslations = field(default_factory=NullTranslations)
    language: str = SOURCE

    def _(self, text: str) -> str:
        return self.translation.gettext(text)

    def number(self, count: int) -> str:
        """A whole number, with the language's mark between thousands."""
        return self.marked(f"{count:,}")

    def numbers(self, first: int, last: int) -> str:
        """From ``first`` to ``last``."""
        return self.number(first) if first == last else f"{self.number(first)} \N{EN DASH} {self.number(last)}"

    def marked(self, number: str) -> str:
        """``1,234.5`` with the language's marks."""
        return marked(number, self.language)

    def day(self, day: str) -> str:
        """``2026-11-23`` as it is, and 23/11/2026 in French; a month or a year alone in the same way.

        Made here and by no library: a page must come out the same, byte for byte, whichever locale data is installed.
        """
        return "/".join(reversed(day.split("-"))) if self.language == "fr" else day

    def moment(self, at: str) -> str:
        """``2026-11-23 09:30 UTC``."""
        return f"{self.day(at[:10])} {at[11:16]} UTC"

    def ngettext(self, one: str, several: str, count: int) -> str:
        """``one`` or ``several`` for ``count``, with {count} filled in."""
        return self.translation.ngettext(one, several, count).format(count=self.number(count))

    def conditions(self, epsilon: Epsilon) -> str:
        """Delta, unit, adjacency, and who may collude."""
        _ = self._
        return _(
            "at δ {delta}; unit: one patient of one site; adjacency: add or remove one patient; against {against}"
        ).format(delta=self.marked(delta_text(epsilon.delta)), against=self.against(epsilon))

    def against(self, epsilon: Epsilon) -> str:
        """Against whom it holds."""
        _ = self._
        if epsilon.against == "everyone":
            return _("everyone, whoever colludes")
        if epsilon.colluding is None:
            return _("the coordinator and as many sites as a plan counts as colluding; other sites keep their noise")
        if epsilon.colluding == 0:
            return _("the coordinator, or one other hospital, by itself")
        return self.ngettext(
            "the coordinator together with at most {count} other hospital",
            "the coordinator together with at most {count} other hospitals",
            epsilon.colluding,
        )

    def sentence(self, epsilon: Epsilon) -> str:
        """``ε 2.99 (at δ 0.0001; unit ...; rounded up)``."""
        _ = self._
        return _("ε {value} ({conditions}; rounded up)").format(
            value=self.marked(epsilon.value), conditions=self.conditions(epsilon)
        )

    def cell(self, epsilon: Epsilon | None) -> Cell:
        """For a table: the value, and its conditions below."""
        _ = self._
        if epsilon is None:
            return Cell(_("no epsilon"), self.unbounded())
        below = _("{conditions}; rounded up").format(conditions=self.conditions(epsilon))
        return Cell(f"ε {self.marked(epsilon.value)}", below, strong=True)

    def unbounded(self) -> str:
        _ = self._
        return _("no privacy guarantee, sums only")

    def kind(self, kind: str) -> str:
        """A kind of ledger entry."""
        return kind_words(kind, self._)

    def kinds(self, counts: dict[str, int]) -> str:
        """``1,000 round charged, 12 refusal``."""
        _ = self._
        return ", ".join(
            _("{kind}: {count}").format(kind=self.kind(kind), count=self.number(count))
            for kind, count in counts.items()
        )


def clean(text: str) -> str:
    """A text that others wrote: one line, nothing in it acts, and it is cut where it would fill pages."""
    shown = "\u00a0".join(plain(part) for part in _NO_BREAK.split(text))
    return shown if len(shown) <= MOST_LETTERS else f"{shown[:MOST_LETTERS]} […]"


def delta_text(delta: float) -> str:
    """A delta in full: ``0.0001``."""
    return f"{Decimal(repr(delta)):f}"


def percent_up(part: int, whole: int) -> str:
    """A share as a percentage with one decimal, never less than it is."""
    return f"{math.ceil(1000 * part / whole) / 10:.1f} %"


def units_down(units: int) -> str:
    """Units of 1e-12 as a divergence with four decimals, never more than there is."""
    return str((Decimal(units) / UNITS).quantize(Decimal("0.0001"), ROUND_FLOOR))


def digest_short(digest: str) -> str:
    """The beginning of a digest, as people name a plan."""
    return clean(digest)[:12]
