"""Errors, named by whose fault they are.

A user sees two lines and never a traceback::

    wardround: error: the study names the strategy 'fedavgg', which does not exist
    wardround: hint: did you mean 'fedavg'?

No error text may hold a value that was derived from a patient's data.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any


class WardroundError(Exception):
    """Base of every error that a user may see: one sentence, and one hint on what to do about it."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions are pickled by their args, here the message alone: an error must survive the way between processes.
        return _again, (type(self), self.args, self.__dict__)

    def lines(self) -> str:
        """The two lines that a command prints: two whatever stands in a name that they quote."""
        return f"wardround: error: {_printable(self.message)}\nwardround: hint: {_printable(self.hint)}"


class UsageError(WardroundError):
    """Our caller asked for something impossible: a typo, a missing file, a plan that contradicts itself."""


class ProtocolViolation(WardroundError):
    """A peer sent what the protocol does not allow; ``site`` names it."""

    def __init__(self, site: str, message: str, hint: str = "ask the site for its log of this round") -> None:
        super().__init__(message, hint)
        self.site = site


class Unavailable(WardroundError):
    """The world is in the way: a full disk, a site that does not answer, a quorum that is not reached."""


def _printable(text: str) -> str:
    """``text`` with line ends and other control characters spelt out (CWE-150)."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _again(kind: type[WardroundError], args: tuple[Any, ...], fields: dict[str, Any]) -> WardroundError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(fields)
    return error


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """A hint that names the nearest known word, or else all of them."""
    names = sorted(known)
    near = get_close_matches(wrong, names, n=1, cutoff=0.5)
    return f"did you mean '{near[0]}'?" if near else f"known here: {', '.join(names)}"
