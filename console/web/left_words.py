"""What is left of a data domain in words: what the filter would still admit, and never an epsilon below the cap."""

from typing import Protocol

from wardround.console.web.i18n import _, ngettext, number


class Left(Protocol):
    """A data domain's budget, as far as words of what is left need it; None: no approved study to compare with."""

    @property
    def closed(self) -> bool: ...
    @property
    def rounds_left(self) -> int | None: ...
    @property
    def studies_left(self) -> int | None: ...


def left_words(budget: Left) -> str:
    """What the filter would still admit, in rounds and studies."""
    if budget.closed:
        return _("This data domain is closed: nothing is charged to it again.")
    if budget.rounds_left is None or budget.studies_left is None:
        return _("No study with a privacy guarantee was approved on it yet, so there is none to compare with.")
    return _("%(studies)s like the last one would fit, or %(rounds)s of it.") % fits_words(
        budget.studies_left, budget.rounds_left
    )


def fits_words(studies: int, rounds: int) -> dict[str, str]:
    """``studies`` and ``rounds`` that would fit, in words, by these names."""
    return {
        "studies": ngettext("%(count)s more study", "%(count)s more studies", studies) % {"count": number(studies)},
        "rounds": ngettext("%(count)s more round", "%(count)s more rounds", rounds) % {"count": number(rounds)},
    }
