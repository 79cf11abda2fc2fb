"""A password or a token in a file of its own, which only its owner may read."""

import stat
from pathlib import Path

from wardround.protocol.errors import UsageError


def read_secret(path: Path, what: str, setting: str) -> str:
    """The file's text without spaces around it.

    Args:
        what: what it is, for errors: password or token.
        setting: the setting that named the file.

    Raises:
        UsageError: it cannot be read, or others may read it.
    """
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise UsageError(f"others may read the {what} file '{path.name}'", f"run: chmod 600 {path}")
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise UsageError(f"the {what} file '{path.name}' cannot be read", f"check '{setting}'") from None
