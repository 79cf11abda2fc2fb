"""What a check says: one plain sentence, and one cure.

A report is sent to strangers by e-mail. So a sentence never holds a password, a key, a value or a number of patients, a
name of a data file, or a folder: files of our own are called by their last name, sources by their place in site.yaml.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from wardround.conf.said import said


class State(StrEnum):
    """How a check ended. A warning works today."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


NETWORK: Final = {
    "dns": said("Is the name known here?"),
    "connection": said("Does somebody listen there?"),
    "proxy": said("Does the proxy let this site through?"),
    "tls": said("Does TLS come through whole?"),
    "issuer": said("Is the certificate the coordinator's own?"),
    "host-name": said("Is the certificate for this name?"),
    "dates": said("Is the certificate valid today?"),
    "coordinator": said("Is it the coordinator that answers?"),
    "clock": said("Do both clocks agree?"),
}
LOCAL: Final = {
    "link": said("Does the site know its coordinator?"),
    "settings": said("Is site.yaml understood?"),
    "user": said("Is this the daemon's own user?"),
    "umask": said("Are new files closed to others?"),
    "site-folder": said("Are the site's keys and ledger closed to others?"),
    "link-folder": said("Is the link folder closed to others?"),
    "separation": said("Is the SuperNode kept from data and keys?"),
    "ledger": said("Can the ledger be opened and written?"),
    "witnesses": said("Does everything that was heard of ledgers agree?"),
    "data": said("Can the data be read?"),
    "data-rights": said("Is the data closed to others?"),
    "opt-outs": said("Can the opt-outs be read?"),
    "feeds": said("Do the feeds tell what happens?"),
    "runtime-port": said("Is the port on 127.0.0.1 free?"),
    "disk": said("Is there room on the disk?"),
    "memory": said("Is there enough memory?"),
    "torch": said("Can torch be used?"),
    "doctor": said("Did every check come to its end?"),
}
CHECKS: Final = NETWORK | LOCAL
"""Name of a check -> the question that it answers; docs/doctor.md explains each."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The answer of one check. ``cure`` is empty when it is ok."""

    check: str
    state: State
    sentence: str
    cure: str = ""

    def __post_init__(self) -> None:
        if self.check not in CHECKS:
            raise ValueError(f"'{self.check}' is no check")
        if (self.state is State.OK) == bool(self.cure):
            raise ValueError("a cure belongs to whatever is not ok, and to nothing else")


def ok(check: str, sentence: str) -> Finding:
    """A finding with nothing to do."""
    return Finding(check, State.OK, sentence)


def warning(check: str, sentence: str, cure: str) -> Finding:
    """A finding that works today and may not tomorrow."""
    return Finding(check, State.WARNING, sentence, cure)


def failed(check: str, sentence: str, cure: str) -> Finding:
    """A finding with which the site cannot work, or must not."""
    return Finding(check, State.FAILED, sentence, cure)


def plain(text: str, most: int = 80) -> str:
    """A stranger's text, short and safe on a terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)[:most]
