"""What a check says: one plain sentence, and one cure.

A report is sent to strangers by e-mail. So a sentence never holds a password, a key, a value or a number of patients, a
name of a data file, or a folder: files of our own are called by their last name, sources by their place in site.yaml.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class State(StrEnum):
    """How a check ended. A warning works today."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


NETWORK: Final = {
    "dns": "Is the name known here?",
    "connection": "Does somebody listen there?",
    "proxy": "Does the proxy let this site through?",
    "tls": "Does TLS come through whole?",
    "issuer": "Is the certificate the coordinator's own?",
    "host-name": "Is the certificate for this name?",
    "dates": "Is the certificate valid today?",
    "coordinator": "Is it the coordinator that answers?",
    "clock": "Do both clocks agree?",
}
LOCAL: Final = {
    "link": "Does the site know its coordinator?",
    "settings": "Is site.yaml understood?",
    "user": "Is this the daemon's own user?",
    "umask": "Are new files closed to others?",
    "site-folder": "Are the site's keys and ledger closed to others?",
    "link-folder": "Is the link folder closed to others?",
    "separation": "Is the SuperNode kept from data and keys?",
    "ledger": "Can the ledger be opened and written?",
    "witnesses": "Does everything that was heard of ledgers agree?",
    "data": "Can the data be read?",
    "data-rights": "Is the data closed to others?",
    "opt-outs": "Can the opt-outs be read?",
    "runtime-port": "Is the port on 127.0.0.1 free?",
    "disk": "Is there room on the disk?",
    "memory": "Is there enough memory?",
    "torch": "Can torch be used?",
    "doctor": "Did every check come to its end?",
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
