"""Files that commands write: never over another one, and whole or not at all."""

import os
from contextlib import suppress
from pathlib import Path

from wardround.protocol.errors import Unavailable, UsageError


def write_new(path: Path, content: bytes) -> None:
    """Write ``content`` to a new file, on disk when this returns.

    Raises:
        UsageError: it exists already, and stays as it is.
        Unavailable: it cannot be written, on a full disk for example; nothing is left of it.
    """
    made = False
    try:
        with path.open("xb") as file:
            made = True
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise UsageError(f"'{path}' exists already", "choose a new name; nothing is written over") from None
    except OSError as error:
        if made:
            with suppress(OSError):
                path.unlink()
        raise Unavailable(f"'{path}' cannot be written: {error.strerror}", "check the folder and the disk") from error
