"""Words by which hospitals call the same thing: English, German, French, without accents and signs."""

import unicodedata
from difflib import SequenceMatcher
from typing import Final

CONCEPTS: Final[dict[str, tuple[str, ...]]] = {
    "age": ("age", "alter", "agejahre"),
    "sex": ("sex", "gender", "geschlecht", "sexe"),
    "blood pressure": ("bloodpressure", "blutdruck", "systolic", "systolisch", "trestbps", "sbp", "rrsys", "tension"),
    "cholesterol": ("cholesterol", "cholesterin", "chol"),
    "heart rate": ("heartrate", "herzfrequenz", "puls", "pulse", "frequencecardiaque", "thalach"),
    "creatinine": ("creatinine", "kreatinin", "krea", "creat"),
    "hemoglobin": ("hemoglobin", "haemoglobin", "hamoglobin", "hemoglobine", "hgb"),
    "potassium": ("potassium", "kalium"),
    "sodium": ("sodium", "natrium"),
    "glucose": ("glucose", "glukose", "blutzucker", "glycemie", "bloodsugar"),
    "weight": ("weight", "gewicht", "poids"),
    "height": ("height", "grosse", "korpergrosse", "taille"),
    "temperature": ("temperature", "temperatur"),
    "st depression": ("stdepression", "stsenkung", "oldpeak"),
    "diabetes": ("diabetes", "diabete"),
    "atrial fibrillation": ("atrialfibrillation", "vorhofflimmern", "fibrillationauriculaire"),
    "patient": ("patient", "patnr", "patid", "pid", "mrn", "subject"),
    "outcome": ("outcome", "label", "diagnosis", "diagnose", "befund", "ergebnis", "diagnostic"),
}
"""A thing and its names; each is looked for at the beginning or end of a column's name, or in a meaning."""

ANSWERS: Final[dict[str, tuple[str, ...]]] = {
    "female": ("female", "f", "w", "weiblich", "frau", "woman", "femme", "feminin"),
    "male": ("male", "m", "mannlich", "mann", "man", "homme", "masculin", "h"),
    "yes": ("yes", "y", "ja", "j", "oui", "o", "true", "t", "wahr", "positive", "positiv", "pos", "krank", "case"),
    "no": ("no", "n", "nein", "non", "false", "falsch", "negative", "negativ", "neg", "gesund", "healthy", "control"),
    "normal": ("normal", "unauffallig", "ohnebefund", "ob"),
}
"""An answer and how it is written."""

ABSENT: Final = frozenset(
    {"na", "nan", "n/a", "null", "none", "k. a.", "k.a.", "k a", "-", ".", "unbekannt", "unknown", "inconnu", "missing"}
)
"""Words, in small letters, that stand for a value that is not known."""


def plain(text: str) -> str:
    """Small letters and digits only, without accents: 'Blutdruck (kPa)' is blutdruckkpa."""
    parts = unicodedata.normalize("NFKD", text.casefold())
    return "".join(sign for sign in parts if sign.isalnum())


def concepts_of(name: str, meaning: str = "") -> set[str]:
    """The things that a column's name or meaning names."""
    short, long = plain(name), plain(meaning)
    found = set()
    for thing, words in CONCEPTS.items():
        named = any(short.startswith(word) or short.endswith(word) for word in words)
        # A short word is part of many longer ones: only a whole meaning of it counts.
        if named or any(word == long or (len(word) > 4 and word in long) for word in words):
            found.add(thing)
    return found


def likeness(local: str, name: str, meaning: str) -> float:
    """0 to 1: how much a local column's name is like a contract's column."""
    one, two = plain(local), plain(name)
    if one == two:
        return 1.0
    if concepts_of(local) & concepts_of(name, meaning):
        return 0.95
    return max(SequenceMatcher(None, one, other).ratio() for other in (two, plain(meaning))) * 0.9


def answer_of(text: str) -> set[str]:
    """The answers that a value may be; one letter can be several."""
    return {answer for answer, words in ANSWERS.items() if plain(text) in words}
