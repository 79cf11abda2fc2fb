"""A sentence that remembers how it was made, so that it can be said again in another language.

It is a text like any other: commands print it, e-mails carry it. A console takes its template to the catalogue of the
reader's language, and fills the same values in.
"""


class Said(str):
    """The English sentence. ``template`` is what a catalogue knows; ``values`` may be said sentences themselves."""

    __slots__ = ("template", "values")

    template: str
    values: dict[str, str]

    def __new__(cls, template: str, values: dict[str, str]) -> "Said":
        made = super().__new__(cls, template % values if values else template)
        made.template, made.values = template, values
        return made


def said(template: str, /, **values: object) -> Said:
    """``template`` with its places, ``%(name)s``, filled in. ``scripts/words.py`` finds it by this function's name."""
    return Said(template, {name: value if isinstance(value, str) else str(value) for name, value in values.items()})
