"""How every page of HTML is made of a template: values are escaped, and a name that is not there is an error."""

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def environment(folder: Path, extensions: Sequence[str] = ()) -> Environment:
    """The templates in ``folder``; filters and globals are the caller's to add."""
    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=extensions,
    )
