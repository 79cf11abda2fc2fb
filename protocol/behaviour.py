"""What a plan's numbers depend on, as one digest: the source files that compute, protect and add up.

A plan names the digest that it was written for, and a site runs no plan of another. A patch elsewhere (a connector,
the daemon, a page) leaves it alone, so it needs no new approval. Anybody can recompute it: SHA-256 over the files'
paths and bytes, in the order of their paths.
"""

from functools import lru_cache
from pathlib import Path
from typing import Final

from wardround.protocol.canonical import LABEL_BEHAVIOUR, digest

COVERED: Final = (
    "protocol",
    "privacy",
    "strategies",
    "client/tasks",
    "client/plugins",
    "client/answers.py",
    "client/contributions.py",
    "client/counted.py",
    "client/fall_back.py",
    "client/indicator_site.py",
    "client/learning.py",
    "client/personal.py",
    "client/population.py",
    "client/site.py",
    "client/training.py",
)
"""Folders and files below the package, whose change is another behaviour."""


@lru_cache(maxsize=1)
def behaviour() -> str:
    """The behaviour of this installation, 64 hex digits. The files are read and never imported."""
    protocol = Path(__file__).resolve().parent
    parts: list[bytes] = []
    for covered in COVERED:
        place = protocol.parent / covered
        for file in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            parts += [file.relative_to(protocol.parent).as_posix().encode(), file.read_bytes()]
    return digest(LABEL_BEHAVIOUR, *parts)
