"""The schema of a site's database, one SQL file a version, applied in order and never edited afterwards."""

from importlib.resources import files
from typing import Final

HEAD: Final = "0005"
"""The version of the schema that this code reads and writes."""


def statements(name: str) -> list[str]:
    """The SQL statements of one file; a line that is a semicolon ends a statement."""
    text = files(__package__).joinpath(name).read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("--")]
    return [part.strip() for part in "\n".join(lines).split("\n;") if part.strip()]


def every_statement() -> list[str]:
    """The whole schema, for a database that begins empty and ends with its process."""
    names = sorted(file.name for file in files(__package__).iterdir() if file.name.endswith(".sql"))
    return [statement for name in names for statement in statements(name)]
