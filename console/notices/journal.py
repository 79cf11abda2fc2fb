"""What was sent to whom and when, delivered or not: the newest deliveries, in a file that is replaced as a whole.

``told`` remembers what nobody must hear of twice; the journal is for people who ask whether a message went out.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from wardround.conf.said import Said
from wardround.console.notices.watching import Level, Notice
from wardround.protocol.errors import Unavailable

JOURNAL: Final = "notices.json"
MOST: Final = 200
"""Deliveries that are kept."""


class Outcome(StrEnum):
    """How a delivery ended: the channel took it, or did not."""

    SENT = "sent"
    FAILED = "failed"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Sentence(_Part):
    """A said sentence, so that it can be said again in another language."""

    template: str = Field(max_length=1000)
    values: dict[str, "str | Sentence"] = Field(default_factory=dict)

    @classmethod
    def of(cls, text: str) -> "Sentence":
        if not isinstance(text, Said):
            return cls(template=text)
        return cls(
            template=text.template,
            values={name: cls.of(one) if isinstance(one, Said) else one for name, one in text.values.items()},
        )

    def said(self) -> Said:
        values = {name: one.said() if isinstance(one, Sentence) else one for name, one in self.values.items()}
        return Said(self.template, values)


class Told(_Part):
    """One notice of a delivery."""

    key: str
    level: Level
    sentence: Sentence


class Delivery(_Part):
    """A message to one channel. ``tries``: how often in a row the same ended so; ``why``: what kept it."""

    at: datetime
    channel: str
    outcome: Outcome
    notices: tuple[Told, ...]
    why: str = ""
    tries: int = 1


_DELIVERIES: Final = TypeAdapter[tuple[Delivery, ...]](tuple[Delivery, ...])


@dataclass(frozen=True, slots=True)
class Journal:
    """The journal at ``path``."""

    path: Path

    @classmethod
    def beside(cls, file: Path) -> "Journal":
        """The journal in the folder of another file."""
        return cls(file.with_name(JOURNAL))

    def read(self) -> tuple[Delivery, ...]:
        """The deliveries, the newest first; a file that cannot be read says nothing."""
        try:
            return _DELIVERIES.validate_json(self.path.read_bytes())
        except (OSError, ValidationError):
            return ()

    def note(self, at: datetime, channel: str, outcome: Outcome, notices: Sequence[Notice], why: str = "") -> None:
        """Write a delivery down. The same failure once more is one line with one more try."""
        told = tuple(Told(key=one.key, level=one.level, sentence=Sentence.of(one.sentence)) for one in notices)
        made = Delivery(at=at, channel=channel, outcome=outcome, notices=told, why=why)
        before = list(self.read())
        for place, one in enumerate(before[:10]):
            if outcome is Outcome.FAILED and one == made.model_copy(update={"at": one.at, "tries": one.tries}):
                made = made.model_copy(update={"tries": one.tries + 1})
                del before[place]
                break
        beside = self.path.with_suffix(".new")
        try:
            with open(os.open(beside, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
                json.dump(_DELIVERIES.dump_python((made, *before)[:MOST], mode="json"), file)
            beside.replace(self.path)
        except OSError as error:
            raise Unavailable(f"'{self.path.name}' cannot be written: {error.strerror}", "check the disk") from error
