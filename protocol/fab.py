"""The Flower App Bundle of a study: one pyproject.toml that names the installed package and the plan, and no code.

A site computes the one bundle that belongs to a plan and refuses any other byte; it never unpacks it. Format: a ZIP
archive (APPNOTE 6.3.x), entries stored, with fixed dates, so that the same plan gives the same bytes everywhere.
"""

import hashlib
import re
import zipfile
from io import BytesIO
from typing import Final

FAB_NAME: Final = "wardround-study"
PUBLISHER: Final = "wardround"
_DATE: Final = (2024, 10, 1, 0, 0, 0)
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")

_PYPROJECT: Final = """[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "{name}"
version = "1.0.0"
description = "A Wardround study. No code is in this bundle: every site runs what it has installed."
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "{publisher}"
fab-include = ["pyproject.toml"]

[tool.flwr.app.components]
serverapp = "wardround.server.flower.app:app"
clientapp = "wardround.client.flower.app:app"

[tool.flwr.app.config]
plan = "{plan}"
"""


def thin_fab(plan: str) -> bytes:
    """The bundle of the plan with this digest. Raises ValueError when it is no digest."""
    if not _DIGEST.fullmatch(plan):
        raise ValueError("a plan's digest has 64 hex digits")
    text = _PYPROJECT.format(name=FAB_NAME, publisher=PUBLISHER, plan=plan).encode()
    content = f"pyproject.toml,{hashlib.sha256(text).hexdigest()},{8 * len(text)}\n".encode()
    made = BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as archive:
        for name, data in (("pyproject.toml", text), (".info/CONTENT", content)):
            entry = zipfile.ZipInfo(name, _DATE)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data)
    return made.getvalue()


def fab_hash(plan: str) -> str:
    """SHA-256 of the plan's bundle, 64 hex digits: what Flower calls its hash."""
    return hashlib.sha256(thin_fab(plan)).hexdigest()
