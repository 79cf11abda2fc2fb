"""Checkpoints: written whole or not at all, on disk before the next round opens."""

import os
from pathlib import Path

from wardround.protocol.errors import Unavailable


def write_checkpoint(path: Path, *parts: bytes | memoryview) -> None:
    """Replace ``path`` with ``parts``, one after another: write beside it, fsync, rename, fsync the folder.

    Raises:
        Unavailable: the disk is full or read-only; the old checkpoint is untouched.
    """
    beside = path.with_name(path.name + ".new")
    try:
        with beside.open("wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise Unavailable(
            f"the checkpoint '{path}' cannot be written: {error.strerror}",
            "free some space or choose another folder; the last checkpoint is untouched",
        ) from error
