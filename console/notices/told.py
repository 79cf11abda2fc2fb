"""What people were told already, channel by channel: a file that is replaced as a whole, so that a crash loses nothing.

A notice whose matter has passed is forgotten, so that it is told again if it comes back.
"""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from wardround.console.notices.watching import Notice
from wardround.protocol.errors import Unavailable

TOLD: Final = "told.json"


@dataclass(slots=True)
class Told:
    """Keys by channel."""

    path: Path
    keys: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path) -> "Told":
        """What is written in ``folder``; a file that cannot be read is as if nobody had been told."""
        path = folder / TOLD
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            return cls(path, {str(channel): [str(key) for key in keys] for channel, keys in found.items()})
        except (OSError, ValueError, AttributeError, TypeError):
            return cls(path)

    def fresh(self, channel: str, notices: Sequence[Notice]) -> list[Notice]:
        """Those that ``channel`` was not told yet."""
        known = set(self.keys.get(channel, ()))
        return [notice for notice in notices if notice.key not in known]

    def note(self, channel: str, notices: Iterable[Notice], *, all_known: bool = True) -> None:
        """``channel`` has been told ``notices``. On disk when this returns.

        ``all_known``: these are all that there are now, and others have passed; False: the rest could not be looked at.
        """
        before = () if all_known else self.keys.get(channel, ())
        self.keys[channel] = sorted({*before, *(notice.key for notice in notices)})
        beside = self.path.with_suffix(".new")
        try:
            with beside.open("w", encoding="utf-8") as file:
                json.dump(self.keys, file)
                file.flush()
                os.fsync(file.fileno())
            beside.chmod(0o600)
            beside.replace(self.path)
        except OSError as error:
            raise Unavailable(f"'{self.path.name}' cannot be written: {error.strerror}", "check the disk") from error
