"""What else a column's name says: a word that makes another quantity of it, and words that nobody here knows.

LDL cholesterol is measured in the same unit as all cholesterol and in nearly the same range, so its values do not speak
against it; only its name does.
"""

import re
import unicodedata
from collections.abc import Iterable
from typing import Final

from wardround.client.mapping.likely_units import UNITS
from wardround.client.mapping.vocabulary import CONCEPTS, concepts_of, plain

PIECES: Final[dict[str, str]] = {
    "LDL": "v?ldl",
    "HDL": "(?<!non)hdl",
    "non-HDL": "nonhdl|nichthdl",
    "glycated": "hba1c?|a1c|glykiert|glycated|gly[ck]osyl|glyquee",
    "another hemoglobin": "met(?:h|ha|hae|he)moglobin|carboxy|fetal|fotal",
    "diastolic": "diastol",
    "in urine": "urin(?!saure)|harn(?!stoff|saure)",
    "in cerebrospinal fluid": "liquor|cerebrospinal",
    "clearance": "clearance|e?gfr",
    "quotient": "quotient|verhaltnis",
    "ionised": "ioni[sz]",
    "indirect": "indire[ck]t",
    "conjugated": "konjug|conjug",
    "fasting": "nuchtern|fasting|jeun",
}
"""A quantity and how a name says it, anywhere in its letters and digits."""

WORDS: Final[dict[str, frozenset[str]]] = {
    "LDL": frozenset({"ldlc"}),
    "HDL": frozenset({"hdlc"}),
    "diastolic": frozenset({"dia", "diast", "dbp", "rrdia"}),
    "in urine": frozenset({"u"}),
    "in cerebrospinal fluid": frozenset({"csf"}),
    "quotient": frozenset({"ratio", "rapport"}),
    "free": frozenset({"free", "frei", "freies", "libre"}),
    "conjugated": frozenset({"direct", "direkt", "direktes"}),
    "per cell": frozenset({"mch", "mchc", "mcv"}),
    "largest": frozenset({"max", "maximum", "maximal", "maximale"}),
    "least": frozenset({"min", "minimum", "minimal", "minimale"}),
    "average": frozenset({"mean", "average", "mittel", "mittelwert", "mittlere", "mittlerer", "moyenne", "map"}),
    "change": frozenset({"delta", "change", "anderung", "differenz", "diff"}),
    "goal": frozenset({"target", "goal", "ziel", "zielwert", "soll"}),
}
"""A quantity and whole words that say it."""

_SAY_NOTHING: Final = (
    "in im am an at of on de du la le der die das des bei zu zum und and the a "
    "serum plasma blut blood sang vollblut total gesamt value wert valeur result messwert labor lab "
    "jahre jahren jahr years year yrs ans monate months tage days rest resting ruhe repos systolic systolisch sys "
    "systolique measured gemessen level spiegel konzentration concentration code kode patient patienten"
)
FILLER: Final = frozenset(_SAY_NOTHING.split())
"""Words that say nothing else."""

_UNITS: Final = frozenset(plain(unit) for unit in UNITS) | frozenset({"mmhg", "c", "bpm"})


def words_of(name: str) -> list[str]:
    """The words of a name in small letters without accents: 'LDLCholesterin (mg/dL)' is ldl, cholesterin, mg, dl."""
    parted = re.sub(r"(?<=[a-zß-öø-ÿ])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    letters = unicodedata.normalize("NFKD", parted.casefold())
    kept = "".join(sign if sign.isalnum() else " " for sign in letters if not unicodedata.combining(sign))
    return kept.split()


def said_otherwise(local: str, name: str, meaning: str) -> tuple[str, str] | None:
    """(quantity, the word for it) that one of the two names says and the other does not; None: they say the same."""
    one, two = _said(local), _said(f"{name} {meaning}")
    for quantity in (*PIECES, *WORDS):
        if (quantity in one) != (quantity in two):
            return quantity, one.get(quantity) or two[quantity]
    return None


def _said(text: str) -> dict[str, str]:
    words, letters, found = words_of(text), plain(text), {}
    for quantity, pattern in PIECES.items():
        if seen := re.search(pattern, letters):
            found[quantity] = seen.group()
    for quantity, known in WORDS.items():
        if seen_words := [word for word in words if word in known]:
            found.setdefault(quantity, seen_words[0])
    return found


def unknown_words(local: str, name: str, meaning: str) -> list[str]:
    """Words of a local name that the contract's name and meaning, words for the same, and units do not explain."""
    rest = " ".join(words_of(local))
    same = concepts_of(local) & concepts_of(name, meaning)
    known = {word for thing in same for word in CONCEPTS[thing]} | {plain(name), plain(meaning)}
    for word in sorted(known, key=len, reverse=True):
        rest = _without(rest, word)
    explained = FILLER | _UNITS | {*words_of(name), *words_of(meaning)}
    units = {part for unit in UNITS for part in words_of(unit)}
    return [word for word in rest.split() if word not in explained | units and not word.isdigit()]


def _without(text: str, word: str) -> str:
    """``text`` without ``word``, whose letters may stand in several words."""
    return re.sub(r" ?".join(map(re.escape, word)), " ", text, count=1) if word else text


def quoted(words: Iterable[str]) -> str:
    """'one', 'two'."""
    return ", ".join(f"'{word}'" for word in words)
