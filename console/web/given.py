"""Texts that strangers wrote, made fit to stand in a page: they change nothing of what stands around them."""

import unicodedata
from typing import Final

from wardround.console.plan_words import plain, shown_line

LONGEST: Final = 300
"""Characters of a text from outside in a line; the rest is one click away or in the record."""

MOST_MARKS: Final = 4
"""Combining marks on one letter; no language of ours or of a patient's name needs more."""

_RIGHT_TO_LEFT: Final = ("R", "AL", "AN")


def given(text: object, most: int = LONGEST) -> str:
    """A text from outside on one line, cut to ``most`` characters, that changes nothing of what stands around it.

    Control and bidi characters are spelt out, a letter keeps ``MOST_MARKS`` marks, so that none reaches into other
    lines; and what is written from right to left is isolated, so that no number beside it changes places with it.
    """
    whole = _with_few_marks(plain(str(text)))
    cut = whole if len(whole) <= most else f"{whole[: most - 1]}…"
    return f"\u2068{cut}\u2069" if any(unicodedata.bidirectional(letter) in _RIGHT_TO_LEFT for letter in cut) else cut


def code(text: object) -> str:
    """A line of others' code, whole and with its spaces; otherwise as ``given``."""
    line = _with_few_marks(shown_line(str(text)))
    return (
        f"\u2068{line}\u2069" if any(unicodedata.bidirectional(letter) in _RIGHT_TO_LEFT for letter in line) else line
    )


def _with_few_marks(text: str) -> str:
    kept, marks = [], 0
    for letter in text:
        marks = marks + 1 if unicodedata.category(letter) in ("Mn", "Me") else 0
        if marks <= MOST_MARKS:
            kept.append(letter)
    return "".join(kept)
