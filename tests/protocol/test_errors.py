"""An error that a user may see keeps its words on every way, between processes too."""

import pickle

import pytest

from wardround.client.store.verify import Broken
from wardround.client.training import StepsMismatch
from wardround.privacy.books import NotAllowed
from wardround.protocol.errors import ProtocolViolation, Unavailable, UsageError, WardroundError

ERRORS = [
    UsageError("no such file", "name another"),
    Unavailable("the disk is full", "free some"),
    ProtocolViolation("north", "the answer is too long"),
    ProtocolViolation("north", "the answer is too long", "update the site"),
    NotAllowed("a block is released once", "nothing was written"),
    Broken(7, "the signature is not the site's"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_comes_out_of_another_process_as_it_went_in(error: WardroundError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert again.lines() == error.lines() and str(again) == str(error)
    assert vars(again) == vars(error)


def test_every_kind_of_error_has_a_message_and_a_hint() -> None:
    kinds = {ProtocolViolation, Unavailable, UsageError, Broken, NotAllowed, StepsMismatch}
    assert all(issubclass(kind, WardroundError) for kind in kinds)
    assert ERRORS[0].lines().splitlines() == ["wardround: error: no such file", "wardround: hint: name another"]


@pytest.mark.parametrize(
    "name", ["a\nb", "a\r\nwardround: hint: run this", "\x1b[2J", "\u202egnp.exe", "a\x00b", "a\u2028b"]
)
def test_a_name_that_an_error_quotes_makes_no_third_line_and_clears_no_screen(name: str) -> None:
    lines = UsageError(f"there is no file '{name}'", f"did you mean '{name}'?").lines()
    assert lines.count("\n") == 1 and all(char.isprintable() or char == "\n" for char in lines)
    assert len(lines.splitlines()) == 2
